"""Real containerd: one instance of each version, started with its defaults, asked over CRI."""

import asyncio
import contextlib
import os
import subprocess
import time

import grpc

# The default is five minutes. It has to be longer than two silent dials of 30 s, which it would else end.
PROGRESS_TIMEOUT = "75s"
PULL = "/runtime.v1.ImageService/PullImage"
REMOVE = "/runtime.v1.ImageService/RemoveImage"


def _varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """A length-delimited field of a protobuf message; nothing where it is empty."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def image_spec(image):
    return field(1, field(1, image))


def pull_request(image, credential):
    """PullImageRequest as the kubelet fills it: user and password, or no AuthConfig at all."""
    request = image_spec(image)
    if credential is not None:
        request += field(2, field(1, credential[0]) + field(2, credential[1]))
    return request


def configuration(version, folder, certs):
    """The configuration file in the form that this version reads."""
    lines = [f'root = "{folder}/root"', f'state = "{folder}/state"', "[grpc]", f'  address = "{folder}/s.sock"',
             '[plugins."io.containerd.internal.v1.opt"]', f'  path = "{folder}/opt"']
    if version.startswith("1."):
        plugin = '[plugins."io.containerd.grpc.v1.cri"'
        head = ["version = 2"]
        lines += [plugin + "]"]
        if not version.startswith("1.6."):
            lines += [f'  image_pull_progress_timeout = "{PROGRESS_TIMEOUT}"']
    else:
        plugin = '[plugins."io.containerd.cri.v1.images"'
        head = ["version = 3"]
        lines += [plugin + "]", f'  image_pull_progress_timeout = "{PROGRESS_TIMEOUT}"']
        # Else all instances would share one socket of the host.
        lines += ['[plugins."io.containerd.nri.v1.nri"]', f'  socket_path = "{folder}/nri.sock"']
    lines += [plugin + ".registry]", f'  config_path = "{certs}"']
    return "\n".join(head + lines) + "\n"


# What grpc says without a server.
ENDED = ("failed to connect to all addresses", "Socket closed", "recvmsg:Connection reset")
# How often a runtime that is still starting is queried again.
STARTING = 80


# What the go.mod of upstream's line of releases sets, where Debian's build has older defaults: of 1.7 its latest
# (go 1.25), of 2.1 that of 2.1.9 (go 1.24). Containerd 1.6.20 is of a Go that knows no such defaults.
UPSTREAM = {
    "1.7.24": "netedns0=1,panicnil=0,httplaxcontentlength=0,tls3des=0,tlsrsakex=0,tlsmlkem=1,rsa1024min=1,x509negativeserial=0,x509usepolicies=1,"
              "x509rsacrt=1,multipathtcp=1",
    "2.1.9": "panicnil=0,httplaxcontentlength=0,tlsmlkem=1,rsa1024min=1,x509negativeserial=0,x509usepolicies=1,x509rsacrt=1,multipathtcp=1",
}
BOOTED = "containerd successfully booted"


class Runtime:
    """One running containerd. With `wrap` the command is run within that; with `environment` it has these variables, too."""

    def __init__(self, facts, folder, certs=None, environment=None, wrap=lambda command: command):
        self.version = facts["version"]
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        config = os.path.join(folder, "config.toml")
        if certs is not None:
            with open(config, "w", encoding="utf-8") as file:
                file.write(configuration(self.version, folder, certs))
        binaries = os.path.join(facts["root"], "usr/bin")
        environment = {"PATH": f"{binaries}:{facts['root']}/usr/sbin:{os.environ['PATH']}", "HOME": folder, **(environment or {})}
        self.log = os.path.join(folder, "log")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                wrap([os.path.join(binaries, "containerd"), "--config", config, "--log-level", "debug"]),
                stdout=log, stderr=log, env=environment, stdin=subprocess.DEVNULL, cwd=folder)

    @property
    def socket(self):
        return "unix://" + os.path.join(self.folder, "s.sock")

    def wait(self, seconds=30):
        """Waits until the image service answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            words = self.words()
            if BOOTED in words:
                if "too many open files" in words:
                    raise OSError("a runtime lacks plugins: fs.inotify.max_user_instances is too small for so many at a time")
                return
            time.sleep(0.1)
        raise RuntimeError(f"containerd {self.version} did not start: {self.words()[-2000:]}")

    def words(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read(400_000)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(15)


class Client:
    """Asks one containerd, from an event loop."""

    def __init__(self, socket):
        self.channel = grpc.aio.insecure_channel(socket)
        self._pull = self.channel.unary_unary(PULL)
        self._remove = self.channel.unary_unary(REMOVE)

    async def pull(self, image, credential, seconds, tries=STARTING):
        """`None` where the image was pulled, else the code and the runtime's words."""
        for left in range(tries - 1, -1, -1):
            try:
                await self._pull(pull_request(image, credential), timeout=seconds)
            except grpc.aio.AioRpcError as error:
                if left and (error.code() is grpc.StatusCode.UNIMPLEMENTED or "not initialized yet" in (error.details() or "")):
                    # The socket is there before the image service is.
                    await asyncio.sleep(0.25)
                    continue
                if tries == STARTING and (error.details() or "").startswith(ENDED):
                    raise RuntimeError("a runtime that others share has ended") from error
                return error.code().name, error.details() or ""
            return None
        raise RuntimeError("the runtime has no image service")

    async def close(self):
        await self.channel.close()

    async def remove(self, image):
        try:
            await self._remove(image_spec(image), timeout=30)
        except grpc.aio.AioRpcError:
            # What is not there need not go.
            return


def shared(facts):
    """The runtimes that all pulls may share."""
    return [entry for entry in facts if entry["version"].startswith("1.")]


class Pool:
    """Clients of one worker. Up to 1.7 all pulls share one containerd, as each pull has limits of its own.

    From 2.0 on the transfer service counts the downloads of all pulls together (three at a time), so that
    a stalled pull would hold up others: each pull has an instance to itself.
    """

    MOST = 26

    def __init__(self, facts, folder, certs, sockets):
        self.facts = {entry["version"]: entry for entry in facts}
        self.folder, self.certs = folder, certs
        self.shared = {version: Client(socket) for version, socket in sockets.items()}
        self.free, self.started = {}, []
        self.room = asyncio.Semaphore(self.MOST)
        self.starting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def lease(self, version, upstream=False):
        """A client of this version; with `upstream`, of one that has the defaults of upstream's build."""
        if upstream and version.startswith("1."):
            async with self.starting:
                if (version, upstream) not in self.shared:
                    self.shared[version, upstream] = await self._start(version, upstream)
            yield self.shared[version, upstream]
            return
        if not upstream and version in self.shared:
            yield self.shared[version]
            return
        async with self.room:
            free = self.free.setdefault((version, upstream), [])
            client = free.pop() if free else await self._start(version, upstream)
            try:
                yield client
            finally:
                free.append(client)

    async def _start(self, version, upstream):
        folder = os.path.join(self.folder, f"{version}-{os.getpid()}-{len(self.started)}")
        runtime = Runtime(self.facts[version], folder, self.certs, {"GODEBUG": UPSTREAM[version]} if upstream else None)
        self.started.append(runtime)
        await asyncio.to_thread(runtime.wait, 60)
        return Client(runtime.socket)

    def stop(self):
        for runtime in self.started:
            runtime.process.terminate()
        for runtime in self.started:
            runtime.stop()
