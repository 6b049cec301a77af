"""Clients that send nothing, half a head, or do not read; and what others get meanwhile."""

import hashlib
import http.server
import itertools
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from daemons import ADMIN, PUBLIC, PULLPATH, resident, stop
from namespace import inside

SECONDS, CONNECTIONS = int(sys.argv[1]), int(sys.argv[2])
PROCESSES, FILES, MEMORY = 5, 1024, 96 << 20
CGROUPS = "/run/pullpath-flood"
# Reconnections of one client process in a second.
RATE = 1000
SERVER = ("127.0.0.1", PUBLIC)
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
KINDS = {
    "idle": b"",
    "head": b"GET /metrics HTTP/1.1\r\nX: ",
    "metrics": 50 * (GET % b"/metrics"),
    "page": 50 * (GET % b"/"),
    "half": b"GET /metr",
}


def attack(address, count, seconds):
    """Keeps `count` connections open, of all kinds in turn; those with a head send a byte of it each few seconds."""
    poll, open_, kinds = select.epoll(), {}, itertools.cycle(KINDS)
    end, new, opened = time.monotonic() + seconds, 0.0, 0
    drip, then = time.monotonic(), time.monotonic()
    while (now := time.monotonic()) < end:
        new = min(new + (now - then) * RATE, RATE / 10)
        then = now
        while len(open_) < count and new >= 1:
            new -= 1
            one, kind = socket.socket(), next(kinds)
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.bind((address, 0))
            one.connect_ex(SERVER)
            poll.register(one, select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLHUP)
            open_[one.fileno()] = (one, kind)
            opened += 1
        for number, what in poll.poll(0.02):
            one, kind = open_[number]
            if what & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                poll.unregister(one)
                del open_[number]
                one.close()
                continue
            poll.modify(one, select.EPOLLRDHUP | select.EPOLLHUP)
            try:
                one.send(KINDS[kind])
                if kind == "half":
                    one.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        if now > drip + 3:
            drip = now
            for one, kind in open_.values():
                if kind == "head":
                    try:
                        one.send(b"a")
                    except OSError:
                        pass
    print(json.dumps({"opened": opened, "open": len(open_)}))


class Asker(threading.Thread):
    """Asks for a path again and again, from an address."""

    def __init__(self, address, path, pause):
        super().__init__(daemon=True)
        self.address, self.path, self.pause = address, path, pause
        self.took, self.failed, self.gap, self.is_over = [], 0, 0.0, False

    def ask(self):
        with socket.create_connection(SERVER, 10, (self.address, 0)) as one:
            one.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % self.path)
            answer = b""
            while part := one.recv(1 << 16):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200") or (self.path == b"/metrics" and b"process_" not in body):
            raise OSError("not answered")
        return body

    def run(self):
        last = time.monotonic()
        while not self.is_over:
            begun = time.monotonic()
            try:
                self.ask()
                last_, last = last, time.monotonic()
                self.gap = max(self.gap, last - last_)
                self.took.append(last - begun)
            except OSError:
                self.failed += 1
            time.sleep(self.pause)
        self.gap = max(self.gap, time.monotonic() - last)

    def result(self):
        if len(self.took) < 2:
            return f"{self.path.decode()}: {len(self.took)} answers, {self.failed} failed"
        p99 = statistics.quantiles(self.took, n=100)[98]
        return (f"{self.path.decode()} from {self.address}: {len(self.took)} answers, {self.failed} failed; "
                f"p50 {statistics.median(self.took):.3f} s, p99 {p99:.3f} s, max {max(self.took):.3f} s; gap {self.gap:.1f} s")


class Role:
    """A process with the limits of its pod."""

    def __init__(self, name, folder, targets=()):
        self.name, self.folder = name, folder
        self.cgroup = f"{CGROUPS}/pullpath-flood-{os.getpid()}"
        configuration = {"listen": f"127.0.0.1:{PUBLIC}", "log": {"level": "warn"}}
        arguments = ["cluster", "--identity", "a"]
        if name == "run":
            arguments = ["run"]
            configuration |= {"admin_listen": f"127.0.0.1:{ADMIN}", "vantage": {"node": "bench"},
                              "network": {"metadata": "off", "nameservers": ["127.0.0.1"]},
                              "schedule": {"transfer": "off"}, "targets": list(targets)}
        else:
            configuration["kubernetes"] = {"kubeconfig": os.path.join(folder, "kubeconfig")}
            config = {"apiVersion": "v1", "kind": "Config", "current-context": "x",
                      "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                      "users": [{"name": "u", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}
            with open(os.path.join(folder, "kubeconfig"), "w") as file:
                json.dump(config, file)
        path = os.path.join(folder, "pullpath.yaml")
        with open(path, "w") as file:
            json.dump(configuration, file)
        self.command = [PULLPATH, *arguments, "--config", path]

    def limit(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        if os.path.isdir(self.cgroup):
            with open(f"{self.cgroup}/cgroup.procs", "w") as file:
                file.write("0")

    def __enter__(self):
        try:
            if not os.path.ismount(CGROUPS):
                # `ip netns exec` has a /sys of its own, and a mount namespace.
                os.makedirs(CGROUPS, exist_ok=True)
                subprocess.run(["mount", "-t", "cgroup", "-o", "memory", "cgroup", CGROUPS], check=True)
            os.mkdir(self.cgroup)
            with open(f"{self.cgroup}/memory.limit_in_bytes", "w") as file:
                file.write(str(MEMORY))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no memory cgroup ({error}): only the process's own figures")
        self.log = open(os.path.join(self.folder, "log"), "w+")
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        self.process = subprocess.Popen(self.command, env=environment, preexec_fn=self.limit,
                                        stdout=subprocess.DEVNULL, stderr=self.log)
        asker = Asker("127.0.0.1", b"/healthz", 0)
        for _ in range(100):
            try:
                asker.ask()
                return self
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{self.name} does not answer")

    def __exit__(self, *_):
        stop(self.process)
        if os.path.isdir(self.cgroup):
            os.rmdir(self.cgroup)

    def memory(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            sys.exit(f"{self.name} ended with {self.process.returncode}: {self.log.read()[-2000:]}")
        return resident(self.process.pid), len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def kinds(self):
        """What is resident of the program's files, and what it has written, in MiB."""
        return [resident(self.process.pid, kind) for kind in ("RssFile", "RssAnon")]

    def sockets(self):
        """KiB of the kernel for the sockets at this side (sock_diag: rmem_alloc, wmem_queued)."""
        found = subprocess.run(["ss", "-Htnm", "sport", "=", f":{PUBLIC}"], capture_output=True, text=True).stdout
        total = 0
        for part in found.split("skmem:(")[1:]:
            fields = part.split(")")[0].split(",")
            total += int(fields[0][1:]) + int(fields[5][1:])
        return total >> 10


def flood(role, addresses, folder):
    targets = [{"name": f"t{i}", "image": f"registry.test/team/app{i}:1"} for i in range(20)]
    with Role(role, folder, targets) as one:
        time.sleep(20)
        start, files = one.memory()
        code, data = one.kinds()
        askers = [Asker("127.0.0.9" if len(addresses) > 1 else addresses[0], path, 0.25) for path in (b"/metrics", b"/healthz")]
        for asker in askers:
            asker.start()
        clients = [subprocess.Popen([sys.executable, __file__, str(SECONDS), str(CONNECTIONS), "client",
                                     addresses[i % len(addresses)], str(CONNECTIONS // PROCESSES)], stdout=subprocess.PIPE)
                   for i in range(PROCESSES)]
        most, most_files, most_sockets = 0.0, 0, 0
        end, looks = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            memory, count = one.memory()
            most, most_files = max(most, memory), max(most_files, count)
            if looks % 20 == 0:
                most_sockets = max(most_sockets, one.sockets())
            looks += 1
            time.sleep(0.5)
        for asker in askers:
            asker.is_over = True
        opened = sum(json.loads(client.communicate()[0])["opened"] for client in clients)
        for asker in askers:
            asker.join()
        time.sleep(60)
        after, _ = one.memory()
        code_after, data_after = one.kinds()
        text = Asker("127.0.0.1", b"/metrics", 0).ask().decode()
        print(f"\n{role}, {CONNECTIONS} connections for {SECONDS} s from {len(addresses)} address(es), {opened} opened in all")
        for asker in askers:
            print("  " + asker.result())
        print(f"  memory: {start:.1f} MiB at first, {most:.1f} at most (bound 48), {after:.1f} a minute after "
              f"({after / start:.2f}, bound 1.10); sockets {most_sockets / 1024:.1f} MiB at most; files: {files} at first, {most_files} at most")
        print(f"  of it the program's code: {code:.1f} MiB at first, {code_after:.1f} after; data: {data:.1f}, {data_after:.1f}")
        for line in text.splitlines():
            if line.startswith("pullpath_http_"):
                print("  " + line)
        sys.stdout.flush()


# ---- large reports ------------------------------------------------------------------------------

def registry(layers):
    """A registry with one image of so many layers, over plain HTTP."""
    digest = lambda number: "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
    kind = "application/vnd.oci.image.manifest.v1+json"
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                   "digest": "sha256:" + hashlib.sha256(config).hexdigest()},
        "layers": [{"size": i, "digest": digest(i)} for i in range(layers)]},
        separators=(",", ":")).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self, has_body=True):
            body, of = b"{}", "application/json"
            if "/manifests/" in self.path:
                body, of = manifest, kind
            elif "/blobs/" in self.path:
                body, of = config, "application/octet-stream"
            self.send_response(200)
            self.send_header("Content-Type", of)
            self.send_header("Content-Length", str(len(body)))
            if of == kind:
                self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
            self.end_headers()
            if has_body:
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

        def do_HEAD(self):
            self.do_GET(False)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def large(count, layers, folder):
    server = registry(layers)
    targets = [{"name": f"t{i}", "image": "localhost:5000/team/app:1"} for i in range(count)]
    with Role("run", folder, targets) as one:
        reports, end = b"", time.monotonic() + 240
        while reports.count(b'"verdict"') < count and time.monotonic() < end:
            time.sleep(5)
            one.memory()
            reports = Asker("127.0.0.1", b"/api/v1/reports", 0).ask()
        time.sleep(15)
        start, _ = one.memory()
        readers = [Asker(f"127.0.0.{i % 4 + 1}", path, 0.1) for i in range(16)
                   for path in (b"/api/v1/reports",)]
        for reader in readers:
            reader.start()
        health = Asker("127.0.0.1", b"/healthz", 0.25)
        health.start()
        most, end = 0.0, time.monotonic() + 60
        while time.monotonic() < end:
            most = max(most, one.memory()[0])
            time.sleep(0.2)
        for reader in [*readers, health]:
            reader.is_over = True
        for reader in [*readers, health]:
            reader.join()
        time.sleep(60)
        print(f"\n{count} targets whose reports have {len(reports) / count / 2**20:.1f} MiB each, /api/v1/reports read by 16 clients for 60 s")
        print(f"  {sum(len(reader.took) for reader in readers)} documents of {len(reports) / 2**20:.0f} MiB, "
              f"{sum(reader.failed for reader in readers)} failed; memory: {start:.1f} MiB at first, {most:.1f} at most, {one.memory()[0]:.1f} a minute after")
        print("  " + health.result())
        sys.stdout.flush()
    server.shutdown()
    server.server_close()


def whole():
    several = [f"127.0.0.{i}" for i in range(11, 16)]
    roles = os.environ.get("ROLES", "run cluster").split()
    sides = {"several": several, "one": ["127.0.0.1"]}
    for role in roles:
        for addresses in [sides[side] for side in os.environ.get("ADDRESSES", "several one").split()]:
            with tempfile.TemporaryDirectory() as folder:
                flood(role, addresses, folder)
    for count in [int(count) for count in os.environ.get("TARGETS", "12 50").split()]:
        with tempfile.TemporaryDirectory() as folder:
            large(count, int(os.environ.get("LAYERS", "42000")), folder)


if sys.argv[3:4] == ["client"]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack(sys.argv[4], int(sys.argv[5]), SECONDS)
elif sys.argv[3:] == ["inside"]:
    whole()
else:
    inside(__file__, str(SECONDS), str(CONNECTIONS), "inside")
