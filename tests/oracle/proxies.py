"""The proxy of a world: what containerd's environment says of it, and what it does."""

import asyncio
import base64
import socket
import ssl

from room import ABSENT, NAMES, PROXY_NAME, ZONE

USER, PASSWORD, WRONG = "ann", "pw-proxy-71", "pw-proxy-13"
LIMIT = 64 * 1024
OVER_TLS = ("good_over_tls", "over_tls_untrusted")


def url(value, port, nothing):
    """The proxy's URL, as the variable has it."""
    here = f"{PROXY_NAME}:{port}"
    return {
        "good_credentials": f"http://{USER}:{PASSWORD}@{here}", "wrong_credentials": f"http://{USER}:{WRONG}@{here}", "good_over_tls": f"https://{here}",
        "good_without_scheme": here, "down": f"http://{PROXY_NAME}:{nothing}", "absent_name": f"http://{ABSENT}:{port}", "over_tls_untrusted": f"https://{here}",
        "tls_to_plain": f"https://{here}", "malformed": f"http://[{here}", "no_such_scheme": f"ftp://{here}", "silent": f"http://silent.{ZONE}:{port}",
    }.get(value, f"http://{here}")


def exceptions(value, site):
    """What NO_PROXY says, or None."""
    name, port, address = site.registry_name, site.main, site.address
    return {
        "host": name, "host_port": f"{name}:{port}", "other_port": f"{name}:1", "dot_suffix": f".{ZONE}", "suffix": ZONE, "star_suffix": f"*.{ZONE}", "star": "*",
        "cidr_of_address": "10.0.0.0/8,127.0.0.0/8", "address_of_name": address, "upper_case": name.upper(), "blanks": f" other.example , {name} ",
        "semicolons": f"other.example;{name}",
        "with_scheme": f"https://{name}", "trailing_dot": f"{name}.", "quoted": f'"{name}"', "partial_label": name[1:], "lower_variable": name,
        "other_host": f"elsewhere.{ZONE}",
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
        if self.value in ("good_credentials", "wrong_credentials", "wants_407"):
            given = headers.get("proxy-authorization", "")
            right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if given != right:
                return b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\nContent-Length: 0\r\n\r\n"
        return {"refuses_403": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "answers_502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
                "answers_page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>", "closes": b""}.get(self.value)

    async def _serve(self, reader, writer):
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
        await self._pass(reader, writer, host.strip("[]"), int(port), first, method == "CONNECT")

    async def _pass(self, reader, writer, host, port, first, tunnel):
        try:
            found = await asyncio.to_thread(socket.getaddrinfo, self.known.get(host, host), port, type=socket.SOCK_STREAM)
            far_reader, far_writer = await asyncio.wait_for(asyncio.open_connection(found[0][4][0], port), 10)
        except (OSError, TimeoutError):
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        try:
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await writer.drain()
            else:
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
