"""HTTP/1.1 servers with control over every byte: bodies that end early, resets, stalls, odd lengths."""

import asyncio
import asyncio.sslproto
import dataclasses
import socket
import ssl
import struct
import time
from urllib.parse import parse_qs, urlsplit

import chains

MOST_HEAD = 64 * 1024
PAUSE = 0.05
# The first byte of TLS.
HANDSHAKE = b"\x16"


@dataclasses.dataclass
class Request:
    """One request as it came."""

    method: str
    target: str
    headers: dict
    body: bytes
    fired: list = dataclasses.field(default_factory=list)

    @property
    def path(self):
        return urlsplit(self.target).path

    @property
    def query(self):
        return parse_qs(urlsplit(self.target).query)

    def fire(self, fault):
        """Notes that a drawn fault had its turn in this request."""
        self.fired.append(fault)


@dataclasses.dataclass
class Reply:
    """One answer. `length` is what Content-Length says: None for the truth, a number, "none" or "chunked".

    `ending` is what happens after `sent` bytes of the body: "end", "reset" or "stall". A status of 0
    means that no head is sent at all.
    """

    status: int = 200
    headers: list = dataclasses.field(default_factory=list)
    body: bytes = b""
    length: object = None
    sent: int | None = None
    ending: str | None = None
    pause: float = 0.0


def _reason(status):
    names = {200: "OK", 206: "Partial Content", 301: "Moved Permanently", 302: "Found", 303: "See Other",
             307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized",
             403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
             408: "Request Timeout", 416: "Range Not Satisfiable", 429: "Too Many Requests",
             500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable"}
    return names.get(status, "Unknown")


def _reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read(reader):
    """The next request of a connection, without a method where TLS is spoken, or None at its end."""
    try:
        head = await reader.readexactly(1)
        if head == HANDSHAKE:
            return Request("", "", {}, b"")
        head += await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        return None
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    size = min(int(headers.get("content-length") or 0), MOST_HEAD)
    try:
        body = await reader.readexactly(size) if size else b""
    except (asyncio.IncompleteReadError, OSError):
        return None
    return Request(words[0], words[1], headers, body)


def _head(reply, method):
    lines = [f"HTTP/1.1 {reply.status} {_reason(reply.status)}"]
    names = {name.lower() for name, _ in reply.headers}
    if "date" not in names:
        lines.append("Date: " + time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if reply.length is None:
        lines.append(f"Content-Length: {len(reply.body)}")
    elif reply.length == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif reply.length == "none":
        if method != "HEAD":
            lines.append("Connection: close")
    else:
        lines.append(f"Content-Length: {reply.length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _answer(writer, request, reply):
    """Sends the answer; whether the connection goes on."""
    if reply.pause:
        await asyncio.sleep(reply.pause)
    if reply.status:
        out = _head(reply, request.method)
        if request.method != "HEAD":
            body = reply.body if reply.sent is None else reply.body[:reply.sent]
            if reply.length == "chunked":
                body = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
                body += b"" if reply.ending else b"0\r\n\r\n"
            out += body
        writer.write(out)
        await writer.drain()
    if reply.ending == "stall":
        await asyncio.sleep(600)
    if reply.ending == "reset":
        # What was sent is to be read before the reset makes it void.
        await asyncio.sleep(PAUSE)
        _reset(writer)
        return False
    if reply.ending == "end":
        return False
    return not (reply.length == "none" and request.method != "HEAD")


class Handshake(asyncio.sslproto.SSLProtocol):
    """TLS that informs its client by an alert why it ends the handshake, as other servers do."""

    def _on_handshake_complete(self, handshake_exc):
        if handshake_exc is not None and self._transport is not None and (alert := self._outgoing.read()):
            self._transport.write(alert)
        super()._on_handshake_complete(handshake_exc)


asyncio.sslproto.SSLProtocol = Handshake


def tls(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Servers:
    """The listening sockets of one site. `answer(role, request)` gives each Reply."""

    def __init__(self, answer, note):
        self.answer, self.note = answer, note
        self.listening, self.tasks = [], set()
        # Roles that take one connection at a time, and how many each has now.
        self.single, self.open = set(), {}

    async def listen(self, role, address, port, context):
        async def connected(reader, writer):
            task = asyncio.current_task()
            self.tasks.add(task)
            self.open[role] = self.open.get(role, 0) + 1
            try:
                await self._converse(role, reader, writer)
            except (OSError, ssl.SSLError, asyncio.CancelledError):
                pass
            finally:
                self.open[role] -= 1
                self.tasks.discard(task)
                writer.close()

        if isinstance(context, chains.Raw):
            raw, context = context, None
            connected = self._speechless(raw)
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        self.listening.append(await asyncio.start_server(
            connected, sock=sock, ssl=context, limit=MOST_HEAD, ssl_shutdown_timeout=1 if context else None))

    def _speechless(self, raw):
        """Serves those who speak TLS with some bytes that are none."""
        async def connected(reader, writer):
            task = asyncio.current_task()
            self.tasks.add(task)
            try:
                if not raw.at_once:
                    await reader.read(MOST_HEAD)
                writer.write(raw.data)
                await writer.drain()
                if raw.ending == "stay":
                    await reader.read()
                    await asyncio.sleep(600)
                elif raw.ending == "reset":
                    _reset(writer)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                self.tasks.discard(task)
                writer.close()
        return connected

    async def _converse(self, role, reader, writer):
        if role in self.single and self.open[role] > 1:
            self.note(role, None, None)
            _reset(writer)
            return
        going = True
        while going:
            request = await _read(reader)
            if request is None:
                return
            if not request.method:
                # As other servers answer those who speak TLS to their plain port.
                await _answer(writer, request, Reply(400, [("Connection", "close")], b"Bad Request"))
                return
            reply = self.answer(role, request)
            self.note(role, request, reply)
            going = await _answer(writer, request, reply)

    async def close(self):
        for server in self.listening:
            server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
