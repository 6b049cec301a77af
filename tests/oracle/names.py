"""Name servers of every temper, and the resolv.conf that leads to them."""

import selectors
import socket
import struct
import threading
import time

from room import NAME_SERVER, NAMED, NAMED_ADDRESS, ZONE

A, AAAA, CNAME, OPT = 1, 28, 5, 41
DEAD_ADDRESS = "10.90.0.19"
# What each server does; those that say nothing have an address and no more.
SERVERS = {
    "absent": NAME_SERVER, "good": "10.90.0.55", "servfail": "10.90.0.56", "refused": "10.90.0.57", "nodata": "10.90.0.58", "slow": "10.90.0.59",
    "truncated": "10.90.0.60", "edns_refused": "10.90.0.61", "upper": "10.90.0.62", "cname": "10.90.0.63", "cname_loop": "10.90.0.64",
    "aaaa_servfail": "10.90.0.65", "aaaa_silent": "10.90.0.66", "wrong_id": "10.90.0.67", "lame": "10.90.0.68", "wild": "10.90.0.69", "dead_suffix": "10.90.0.70", "good_6": "fd00:92::53",
}
DEAD_SERVER, SILENT_SERVER = "10.90.0.54", "10.91.0.7"
SLOW = 1.2


def _lines(*servers, search="", options="timeout:2 attempts:2"):
    addresses = {**SERVERS, "dead": DEAD_SERVER, "silent": SILENT_SERVER}
    lines = [f"search {search}"] if search else []
    return "\n".join(lines + [f"nameserver {addresses[server]}" for server in servers] + ([f"options {options}"] if options else [])) + "\n"


FILES = {
    "one_server": _lines("good"), "search": _lines("good", search=f"shop.svc.cluster.local svc.cluster.local {ZONE}"), "search_short": _lines("good", search=ZONE),
    "ndots_0": _lines("good", search=ZONE, options="ndots:0 timeout:2 attempts:2"), "rotate": _lines("good", "good_6", options="rotate timeout:2 attempts:2"),
    "dead_second": _lines("good", "dead"), "truncated": _lines("truncated"), "edns_refused": _lines("edns_refused"),
    "trust_ad": _lines("good", options="trust-ad edns0 timeout:2 attempts:2"),
    "use_vc": _lines("good", options="use-vc timeout:2 attempts:2"), "slow": _lines("slow"), "three_servers": _lines("good", "good_6", "servfail"),
    "comments": "# made by hand\n; and this\n\n\t\n" + _lines("good"), "domain_line": f"domain {ZONE}\n" + _lines("good"),
    "single_request": _lines("good", options="single-request-reopen timeout:2 attempts:2"),
    "upper_case_answer": _lines("upper"), "cname": _lines("cname"), "server_of_ipv6": _lines("good_6"),
    "dead_first": _lines("dead", "good"), "servfail_first": _lines("servfail", "good"), "refused_first": _lines("refused", "good"),
    "nxdomain_first": _lines("absent", "good"),
    "nodata_first": _lines("nodata", "good"), "all_servfail": _lines("servfail", "servfail"), "all_nxdomain": _lines("absent"),
    "short_without_search": _lines("good"),
    "no_server": "options timeout:2 attempts:2\n", "empty": "", "garbage": "this is no file of a resolver\n" + _lines("good"),
    "unknown_option": _lines("good", options="timeout:2 attempts:2 colour:blue"),
    "good_is_fourth": _lines("dead", "servfail", "refused", "good"),
    "wildcard_in_search": _lines("wild", search="wild.test", options="ndots:5 timeout:2 attempts:2"),
    "aaaa_servfail": _lines("aaaa_servfail"), "cname_loop": _lines("cname_loop"), "wrong_identification": _lines("wrong_id", "good"), "lame": _lines("lame", "good"),
    "ndots_15": _lines("good", search="a.test b.test c.test d.test e.test f.test", options="ndots:15 timeout:2 attempts:2"),
    "rotate_dead": _lines("good", "dead", "servfail", options="rotate timeout:2 attempts:1"), "silent_first": _lines("silent", "good"),
    "all_silent": _lines("silent", "silent"),
    "aaaa_silent": _lines("aaaa_silent"),
    "dead_suffix": _lines("dead_suffix", search="silent.test", options="ndots:5 timeout:1 attempts:2"),
    "servfail_suffix": _lines("dead_suffix", search="servfail.test silent.test", options="ndots:5 timeout:1 attempts:1"),
    "twice_the_same": _lines("good", "good"), "rotate_one": _lines("good", options="rotate timeout:2 attempts:2"),
}
SHORT = ("search_short", "ndots_0", "short_without_search")
BROKEN, GOOD = FILES["all_servfail"], FILES["one_server"]


def _name(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    return ".".join(labels), at + 1


def _packed(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def _record(name, kind, data):
    return _packed(name) + struct.pack(">HHIH", kind, 1, 5, len(data)) + data


def answer(temper, question, over_tcp=False):
    """The answer's bytes, or None for silence."""
    name, end = _name(question, 12)
    kind = struct.unpack(">H", question[end:end + 2])[0]
    asked, lower = question[12:end + 4], name.lower()
    edns = struct.unpack(">H", question[10:12])[0] > 0
    code, records = 0, []
    known = lower == NAMED or temper == "wild" and lower.endswith(".wild.test")
    if temper in ("servfail", "refused") or temper == "aaaa_servfail" and kind == AAAA:
        code = 5 if temper == "refused" else 2
    elif temper == "edns_refused" and edns:
        code = 1
    elif temper == "dead_suffix" and lower.endswith(".servfail.test"):
        code = 2
    elif temper == "absent" or not known and not (temper == "dead_suffix" and lower.endswith(".silent.test")):
        code = 3
    elif temper == "aaaa_silent" and kind == AAAA:
        return None
    elif temper == "dead_suffix" and lower.endswith(".silent.test"):
        return None
    elif temper == "cname_loop":
        records = [_record(name, CNAME, _packed(f"loop.{ZONE}")), _record(f"loop.{ZONE}", CNAME, _packed(name))]
    elif kind == A and temper not in ("nodata", "lame"):
        address = DEAD_ADDRESS if lower != NAMED else NAMED_ADDRESS
        owner = name.upper() if temper == "upper" else name
        if temper == "cname":
            records, owner = [_record(name, CNAME, _packed(f"alias.{ZONE}"))], f"alias.{ZONE}"
        records = [*records, _record(owner, A, socket.inet_aton(address))]
    flags = 0x8180 if temper == "lame" else 0x8580
    if temper == "lame":
        flags = 0x8100
    if temper == "truncated" and not over_tcp:
        flags, records = flags | 0x0200, []
    identification = question[:2] if temper != "wrong_id" else bytes(byte ^ 0xFF for byte in question[:2])
    return identification + struct.pack(">HHHHH", flags | code, 1, len(records), 0, 0) + asked + b"".join(records)


class NameServers:
    """All of them, in one thread."""

    def __init__(self, stop):
        self.stop, self.selector, self.later = stop, selectors.DefaultSelector(), []
        for temper, address in SERVERS.items():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sock = socket.socket(family, kind)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, 53))
                if kind == socket.SOCK_STREAM:
                    sock.listen(64)
                self.selector.register(sock, selectors.EVENT_READ, (temper, kind))

    def run(self):
        while not self.stop.is_set():
            for key, _ in self.selector.select(0.2 if not self.later else 0.02):
                temper, kind = key.data
                try:
                    if kind == socket.SOCK_STREAM:
                        connection, _ = key.fileobj.accept()
                        threading.Thread(target=self._stream, args=(temper, connection), daemon=True).start()
                    else:
                        self._datagram(temper, key.fileobj)
                except (OSError, IndexError, struct.error):
                    continue
            now = time.monotonic()
            for due in [entry for entry in self.later if entry[0] <= now]:
                self.later.remove(due)
                due[1].sendto(due[2], due[3])

    def _datagram(self, temper, sock):
        question, peer = sock.recvfrom(1500)
        reply = answer(temper, question)
        if reply is None:
            return
        if temper == "slow":
            self.later.append((time.monotonic() + SLOW, sock, reply, peer))
        else:
            sock.sendto(reply, peer)

    @staticmethod
    def _stream(temper, connection):
        with connection:
            connection.settimeout(5)
            try:
                while head := connection.recv(2):
                    question = connection.recv(struct.unpack(">H", head)[0])
                    reply = answer(temper, question, over_tcp=True)
                    if reply is None:
                        return
                    connection.sendall(struct.pack(">H", len(reply)) + reply)
            except (OSError, IndexError, struct.error):
                return


def serve(stop):
    """Answers until `stop` is set."""
    NameServers(stop).run()
