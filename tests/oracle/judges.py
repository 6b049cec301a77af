"""The judges of a world: real runtimes, and the probe told to be one of them.

Each judge gets servers of its own with content of its own. A pull ends as "pulled", "failed" or
"stalls"; the last where no request came for a while and the runtime still waits.
"""

import asyncio
import json
import os
import shutil
import time

from answers import PORTS, Site
from runtime import Pool

# Seconds without any request after which a pull is cut, and the most that any pull gets.
CUT, MOST = 90, 420
PROBE_TIMEOUT, PROBE_MOST = "4s", 120
FIRST_PORT, LAST_PORT = 20_000, 64_000


class Ports:
    """Hands out the ports of sites, from a range of this worker's own."""

    def __init__(self, worker, workers):
        width = (LAST_PORT - FIRST_PORT) // workers // PORTS * PORTS
        self.first = FIRST_PORT + worker * width
        self.count, self.next, self.taken = width // PORTS, 0, set()

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


class Bench:
    """What the judges of one worker share."""

    def __init__(self, folder, nonce, ports, contexts, facts, sockets, probe, flags):
        self.folder, self.nonce, self.ports, self.contexts = folder, nonce, ports, contexts
        self.probe, self.flags = probe, flags
        self.certs = os.path.join(folder, "certs.d")
        self.pool = Pool(facts, folder, self.certs, sockets)
        self.scratch = os.path.join(folder, f"scratch-{os.getpid()}")
        os.makedirs(self.scratch, exist_ok=True)
        self.probing = asyncio.Semaphore(2)
        self.empty = os.path.join(self.scratch, "empty.json")
        with open(self.empty, "w", encoding="utf-8") as file:
            file.write("{}")

    async def site(self, world, judge, attempt=0):
        """A started site with its hosts.toml in place."""
        base = self.ports.take()
        site = Site(world, judge, f"{self.nonce}/{world['id']}/{judge}/{attempt}", base, self.contexts)
        try:
            await site.start()
        except OSError:
            await self.end(site)
            raise
        text = site.hosts_toml()
        if text is not None:
            folder = os.path.join(self.certs, site.authority)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "hosts.toml"), "w", encoding="utf-8") as file:
                file.write(text)
        return site

    async def end(self, site):
        await site.stop()
        shutil.rmtree(os.path.join(self.certs, site.authority), ignore_errors=True)
        self.ports.give(site.base)


async def _watched(site, call):
    """The call's result, or "stalls" where neither it nor any request came to an end of the wait."""
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


async def pull(bench, world, version, attempt=0):
    """One pull by a real runtime, with the kubelet's tries of credentials."""
    async with bench.pool.lease(version) as client:
        return await _pull(bench, client, world, version, attempt)


async def _pull(bench, client, world, version, attempt):
    site = await bench.site(world, version, attempt)
    began = time.monotonic()
    texts, outcome = [], "failed"
    try:
        for credential in site.credentials():
            result = await _watched(site, client.pull(site.reference, credential, MOST))
            if result is None or result == "stalls":
                outcome = "pulled" if result is None else "stalls"
                break
            texts.append(result)
        seconds = round(time.monotonic() - began, 2)
        if outcome == "pulled":
            await client.remove(site.reference)
    finally:
        await bench.end(site)
    return {"outcome": outcome, "seconds": seconds, "texts": texts, "reference": site.reference,
            "fired": site.fired(), "requests": len(site.log), "log": site.log}


def secret_manifest(config):
    """The pod's Secret, as kubectl prints it."""
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": "shop"},
                       "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}})


def probe_command(bench, site, version, transfer):
    command = [bench.probe, "probe", site.reference, "-o", "json", "--transfer", transfer, "--hosts-dir", bench.certs,
               "--platform", "linux/amd64", "--timeout", PROBE_TIMEOUT]
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
    command = probe_command(bench, site, version, transfer)
    environment = {"PATH": os.environ["PATH"], "HOME": bench.scratch}
    try:
        async with bench.probing:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdin=asyncio.subprocess.DEVNULL,
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
