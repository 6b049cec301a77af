"""The judges of a world: real runtimes, and the probe configured as one of them.

Each judge gets servers of its own with content of its own. A pull ends as "pulled", "failed" or
"stalls"; the last where no request came for a while and the runtime still waits.
"""

import asyncio
import json
import os
import time

import nodes
from answers import PORTS, Site
from room import OWN
from runtime import STARTING, UPSTREAM, Client, Pool, Runtime

# Seconds without any request after which a pull is cut, and the most that any pull gets.
CUT, MOST = 90, 420
PROBE_TIMEOUT, PROBE_MOST = "4s", 120
# How often a runtime of one's own is queried that has booted and has no image service, and how often Go looks at resolv.conf.
OWN_TRIES, RESOLVER_READ = 4, 5.6
FIRST_PORT, LAST_PORT = 20_000, 64_000


class Ports:
    """Hands out the ports of sites, from a range of this worker's own."""

    def __init__(self, worker, workers):
        width = (LAST_PORT - FIRST_PORT) // workers // PORTS * PORTS
        self.first = FIRST_PORT + worker * width
        self.count, self.next, self.taken = width // PORTS, 0, set()
        # Numbers of addresses on which the usual ports are free.
        self.numbers = list(range(1 + worker, OWN + 1, workers))

    def take(self):
        for _ in range(self.count):
            base = self.first + self.next * PORTS
            self.next = (self.next + 1) % self.count
            if base not in self.taken:
                self.taken.add(base)
                return base
        raise RuntimeError("no ports are left")

    def give(self, base):
        self.taken.discard(base)

    async def number(self):
        while not self.numbers:
            await asyncio.sleep(0.2)
        return self.numbers.pop(0)


class Bench:
    """What the judges of one worker share."""

    def __init__(self, folder, nonce, ports, facts, sockets, probe, flags):
        self.folder, self.nonce, self.ports = folder, nonce, ports
        self.room = os.path.join(folder, "room")
        self.contexts = nodes.contexts_of(self.room)
        self.probe, self.flags = probe, flags
        self.facts = {entry["version"]: entry for entry in facts}
        self.owning = asyncio.Semaphore(5)
        self.certs = os.path.join(folder, "certs.d")
        self.pool = Pool(facts, folder, self.certs, sockets)
        self.scratch = os.path.join(folder, f"scratch-{os.getpid()}")
        os.makedirs(self.scratch, exist_ok=True)
        self.probing = asyncio.Semaphore(2)
        self.empty = os.path.join(self.scratch, "empty.json")
        with open(self.empty, "w", encoding="utf-8") as file:
            file.write("{}")

    async def site(self, world, judge, attempt=0):
        """A started site; its node's files are not yet written."""
        number = await self.ports.number() if world["values"].get("port", "other") != "other" else None
        base = self.ports.take()
        site = Site(world, judge, f"{self.nonce}/{world['id']}/{judge}/{attempt}", base, self.contexts, number)
        site.number = number
        # A port is taken once at a time, so that no two nodes share a folder.
        site.node = nodes.Node(world, site, os.path.join(self.scratch, str(base)), self.room, self.certs)
        try:
            await site.start()
        except OSError:
            await self.end(site)
            raise
        return site

    async def end(self, site):
        await site.stop()
        site.node.remove()
        if site.number is not None:
            self.ports.numbers.append(site.number)
        self.ports.give(site.base)


async def _watched(site, call):
    """The call's result, or "stalls" where neither it nor any request ended within the wait."""
    task = asyncio.ensure_future(call)
    began = time.monotonic()
    while not task.done():
        await asyncio.wait([task], timeout=0.5)
        now = time.monotonic()
        if not task.done() and (now - max(site.last, began) > CUT or now - began > MOST):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return "stalls"
    return task.result()


async def pull(bench, world, version, attempt=0, upstream=False, restarted=False):
    """One pull by a real runtime, with the kubelet's tries of credentials; with `upstream`, by that build's defaults;
    with `restarted`, by one that was started after the last change of a file."""
    site = await bench.site(world, f"{version}{'-upstream' * upstream}{'-restarted' * restarted}", attempt)
    try:
        if site.node.own:
            async with bench.owning:
                return await _pull_by_own(bench, site, version, upstream, restarted)
        site.node.write(version)
        async with bench.pool.lease(version, upstream) as client:
            return await _pull(client, site)
    finally:
        await bench.end(site)


async def _pull(client, site, tries=STARTING):
    began = site.last = time.monotonic()
    texts, outcome = [], "failed"
    for credential in site.credentials():
        result = await _watched(site, client.pull(site.reference, credential, MOST, tries))
        if result is None or result == "stalls":
            outcome = "pulled" if result is None else "stalls"
            break
        texts.append(result)
    seconds = round(time.monotonic() - began, 2)
    if outcome == "pulled":
        await client.remove(site.reference)
    return _result(site, outcome, seconds, texts)


def _result(site, outcome, seconds, texts):
    return {"outcome": outcome, "seconds": seconds, "texts": texts, "reference": site.reference,
            "fired": site.fired(), "requests": len(site.log), "log": list(site.log)}


async def _pull_by_own(bench, site, version, upstream, restarted):
    """A pull by a containerd that is started with the files of this node, and before what was edited later."""
    node, edited = site.node, site.node.edited != "before" and not restarted
    node.write(version, old=edited)
    environment = node.variables(edited) | ({"GODEBUG": UPSTREAM[version]} if upstream else {})
    places = ("/run/nri", "/opt")
    runtime = Runtime(bench.facts[version], node.folder, None, environment,
                      lambda command: nodes.within(node.mounts(), command, places))
    client = Client(runtime.socket)
    try:
        try:
            await asyncio.to_thread(runtime.wait, 30)
        except RuntimeError:
            return _result(site, "failed", 0, [("NOT_STARTED", runtime.words().strip()[-600:])])
        if edited:
            if not node.edited.endswith("_unused"):
                # What is read at the first pull is read now.
                await client.pull(f"{site.authority}/warm/up:1", None, 60, OWN_TRIES)
            node.write(version)
            if node.edited.startswith("resolver_"):
                await asyncio.sleep(RESOLVER_READ)
            site.forget()
        return await _pull(client, site, OWN_TRIES)
    finally:
        await client.close()
        await asyncio.to_thread(runtime.stop)


def secret_manifest(config):
    """The pod's Secret, as kubectl prints it."""
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": "shop"},
                       "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}})


def probe_command(bench, site, version, transfer):
    node = site.node
    place = node.seen_by_probe()[0] if node.own else ["--hosts-dir", bench.certs]
    command = [bench.probe, "probe", site.reference, "-o", "json", "--transfer", transfer, *place, "--platform", "linux/amd64", "--timeout", PROBE_TIMEOUT]
    config = site.docker_config()
    if config is None:
        command += ["--docker-config", bench.empty]
    else:
        import base64
        path = os.path.join(bench.scratch, f"secret-{site.base}.json")
        document = json.loads(secret_manifest(config))
        document["data"] = {".dockerconfigjson": base64.b64encode(document.pop("stringData")[".dockerconfigjson"].encode()).decode()}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
        command += ["--secret-file", path]
    if "runtime" in bench.flags and version is not None:
        command += ["--runtime", f"containerd://{version}"]
    return command


def read_report(text):
    """Verdict and findings of the JSON report."""
    try:
        verdict = json.loads(text)["reports"][0]["verdict"]
    except (ValueError, LookupError, TypeError):
        return {"verdict": "none", "findings": []}
    keep = ("cause", "confidence", "severity", "leg", "phase")
    return {
        "verdict": verdict.get("pull", "none"),
        "findings": [{key: finding.get(key) for key in keep} for finding in verdict.get("findings", [])],
        "consequences": [finding.get("cause") for finding in verdict.get("consequences", [])],
        "unread": verdict.get("unread") or verdict.get("not_read") or [],
    }


async def probe(bench, world, version, transfer, keep=False):
    """One run of the probe."""
    site = await bench.site(world, f"probe-{version}-{transfer}")
    node = site.node
    edited = node.own and node.edited != "before"
    first = node.write(version or "2.1.9", old=True) if edited else []
    last = node.write(version or "2.1.9")
    command = probe_command(bench, site, version, transfer)
    run = command
    if node.own:
        seen = node.seen_by_probe()[1]
        run = nodes.within(node.mounts() + node.age(first, last, edited) + seen, command, ["/etc/containerd", "/etc/systemd/system"] if seen else ())
        # It sees no process but its own.
        run = [run[0], "--pid", "--fork", "--kill-child", "--mount-proc", *run[1:]]
    environment = {"PATH": os.environ["PATH"], "HOME": bench.scratch}
    try:
        async with bench.probing:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *run, env=environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            try:
                out, err = await asyncio.wait_for(process.communicate(), PROBE_MOST)
            except TimeoutError:
                process.kill()
                await process.wait()
                out, err = b"", b"cut"
    finally:
        await bench.end(site)
    result = read_report(out)
    result.update(seconds=round(time.monotonic() - began, 2), fired=site.fired(), requests=len(site.log),
                  exit=process.returncode)
    if result["verdict"] == "none":
        result["stderr"] = err.decode(errors="replace")[-600:]
    if keep:
        result.update(log=site.log, report=out.decode(errors="replace"), command=command, stderr=err.decode(errors="replace"))
    return result
