"""The proxy of a world: what containerd's environment says of it, and what it does."""

import asyncio
import base64
import socket
import ssl

from room import ABSENT, NAMES, PROXY_NAME, ZONE

USER, PASSWORD, WRONG = "ann", "pw-proxy-71", "pw-proxy-13"
LIMIT = 64 * 1024
OVER_TLS = ("good_over_tls", "over_tls_untrusted")
# Passwords with a character that Go takes as it is, or not; the proxy wants each as it is here.
SPECIAL = {"good_encoded": "pw^7#1/%", "good_marks": "pw!$&'()*+,;=~:@71", "caret_in_password": "pw^71", "hash_in_password": "pw#71", "slash_in_password": "pw/71",
           "blank_in_password": "pw 71", "percent_in_password": "pw%zz71"}
SOCKS = ("good_socks", "good_socks_login")


def url(value, port, nothing):
    """The proxy's URL, as the variable has it."""
    here = f"{PROXY_NAME}:{port}"
    return {
        "good_credentials": f"http://{USER}:{PASSWORD}@{here}", "wrong_credentials": f"http://{USER}:{WRONG}@{here}", "good_over_tls": f"https://{here}",
        "good_without_scheme": here, "down": f"http://{PROXY_NAME}:{nothing}", "absent_name": f"http://{ABSENT}:{port}", "over_tls_untrusted": f"https://{here}",
        "good_encoded": f"http://{USER}:pw%5E7%231%2F%25@{here}", "good_socks": f"socks5://{here}", "good_socks_login": f"socks5://{USER}:{PASSWORD}@{here}",
        "tls_to_plain": f"https://{here}", "malformed": f"http://[{here}", "no_such_scheme": f"ftp://{here}", "silent": f"http://silent.{ZONE}:{port}",
    }.get(value, f"http://{USER}:{SPECIAL[value]}@{here}" if value in SPECIAL else f"http://{here}")


def exceptions(value, site):
    """What NO_PROXY says, or None."""
    name, port, address = site.registry_name, site.main, site.address
    return {
        "host": name, "host_port": f"{name}:{port}", "other_port": f"{name}:1", "dot_suffix": f".{ZONE}", "suffix": ZONE, "star_suffix": f"*.{ZONE}", "star": "*",
        "cidr_of_address": "10.0.0.0/8,127.0.0.0/8", "address_of_name": address, "upper_case": name.upper(), "blanks": f" other.example , {name} ",
        "semicolons": f"other.example;{name}",
        "with_scheme": f"https://{name}", "trailing_dot": f"{name}.", "quoted": f'"{name}"', "partial_label": name[1:], "lower_variable": name,
        "other_host": f"elsewhere.{ZONE}", "with_path": f"{name}/v2/", "only_blanks": f"other.example {name}", "below_it": f".{name}", "pattern": f"*{name[2:]}",
        "empty_entries": f",,{name},",
    }.get(value)


def environment(values, site, url_of=None):
    """containerd's variables for these values."""
    value = values["proxy"]
    if value == "none":
        return {}
    proxy = url_of or url(value, site.base + site.PROXY, site.base + site.NOTHING)
    down = url("down", 0, site.base + site.NOTHING)
    found = {
        "lower": {"https_proxy": proxy, "http_proxy": proxy}, "https_only": {"HTTPS_PROXY": proxy}, "http_only": {"HTTP_PROXY": proxy},
        "all_proxy": {"ALL_PROXY": proxy, "all_proxy": proxy},
        "upper_before_lower": {"HTTPS_PROXY": proxy, "https_proxy": down, "HTTP_PROXY": proxy}, "empty_upper": {"HTTPS_PROXY": "", "https_proxy": proxy},
    }.get(values["proxy_vars"], {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy})
    excepted = exceptions(values["no_proxy"], site)
    if excepted is not None:
        found["no_proxy" if values["no_proxy"] == "lower_variable" else "NO_PROXY"] = excepted
    return found


class Proxy:
    """One proxy, which serves CONNECT and absolute URLs."""

    def __init__(self, value, note, contexts, known):
        # `known` are names that this process can't find out.
        self.value, self.note, self.contexts, self.known = value, note, contexts, known
        self.server, self.tasks = None, set()

    async def start(self, port):
        context = None
        if self.value in OVER_TLS:
            context = self.contexts("good" if self.value == "good_over_tls" else "untrusted_root")
        self.server = await asyncio.start_server(self._accept, NAMES[PROXY_NAME][0], port, ssl=context, limit=LIMIT, reuse_address=True)

    async def close(self):
        if self.server is not None:
            self.server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, ValueError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()

    def _refusal(self, headers):
        """The answer that ends it all, or None."""
        if self.value in ("good_credentials", "wrong_credentials", "wants_407") or self.value in SPECIAL:
            given = headers.get("proxy-authorization", "")
            right = "Basic " + base64.b64encode(f"{USER}:{SPECIAL.get(self.value, PASSWORD)}".encode()).decode()
            if given != right:
                return b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\nContent-Length: 0\r\n\r\n"
        return {"refuses_403": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "answers_502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
                "answers_page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>", "closes": b""}.get(self.value)

    async def _socks(self, reader, writer):
        """SOCKS5 (RFC 1928, 1929), for names."""
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.value == "good_socks_login" else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes((5, wanted)))
        if wanted:
            given = []
            await reader.readexactly(1)
            for _ in range(2):
                given.append((await reader.readexactly((await reader.readexactly(1))[0])).decode())
            writer.write(b"\x01\x00" if given == [USER, PASSWORD] else b"\x01\x01")
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = socket.inet_ntop(*((socket.AF_INET, await reader.readexactly(4)) if kind == 1 else (socket.AF_INET6, await reader.readexactly(16))))
        port = int.from_bytes(await reader.readexactly(2))
        self.note(f"SOCKS {host}:{port}", False)
        await self._pass(reader, writer, host, port, b"", b"\x05\x00\x00\x01" + bytes(6), b"\x05\x04\x00\x01" + bytes(6))

    async def _serve(self, reader, writer):
        if self.value in SOCKS:
            await self._socks(reader, writer)
            return
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.strip().lower(): text.strip() for name, _, text in (entry.partition(":") for entry in rest if entry)}
        refusal = self._refusal(headers)
        self.note(f"{method} {target}", refusal is not None or self.value == "inspects")
        if refusal is not None:
            writer.write(refusal)
            await writer.drain()
            return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            first = b""
        else:
            host, _, path = target.split("//", 1)[1].partition("/")
            host, _, port = host.rpartition(":") if ":" in host else (host, "", "80")
            first = f"{method} /{path} HTTP/1.1\r\nConnection: close\r\n".encode() + "\r\n".join(
                entry for entry in rest if not entry.lower().startswith(("proxy-", "connection:"))).encode()
        await self._pass(reader, writer, host.strip("[]"), int(port), first,
                         b"HTTP/1.1 200 Connection established\r\n\r\n" if method == "CONNECT" else b"",
                         b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    async def _pass(self, reader, writer, host, port, first, opened, failed):
        try:
            found = await asyncio.to_thread(socket.getaddrinfo, self.known.get(host, host), port, type=socket.SOCK_STREAM)
            far_reader, far_writer = await asyncio.wait_for(asyncio.open_connection(found[0][4][0], port), 10)
        except (OSError, TimeoutError):
            writer.write(failed)
            await writer.drain()
            return
        try:
            writer.write(opened)
            await writer.drain()
            far_writer.write(first)
            if self.value == "inspects":
                await writer.start_tls(self.contexts("untrusted_root"))
                return
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        finally:
            far_writer.close()

    @staticmethod
    async def _copy(reader, writer):
        while data := await reader.read(LIMIT):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
