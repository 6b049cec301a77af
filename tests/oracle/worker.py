"""One worker: reads worlds as JSON lines, plays each to all judges, writes the results as JSON lines.

    worker.py SETTINGS-AS-JSON
"""

import asyncio
import json
import sys
import traceback

import judges
from node import BUILD_DECIDES, HELD_FROM_START
from runtime import UPSTREAM
from worlds import has_state, is_usual, whole

# How often a runtime pulls in a world with chance or state.
PULLS_WITH_STATE = 3


def public(result):
    """A pull's result without the log of requests; of that, the hosts in the order of their first."""
    kept = {key: value for key, value in result.items() if key != "log"}
    return {**kept, "hosts": list(dict.fromkeys(entry["host"] for entry in result["log"]))}


def builds_decide(values):
    """Whether the rules that a build of containerd has of Go may matter in this world."""
    return any(values[dimension] in names if names else not is_usual(dimension, values[dimension]) for dimension, names in BUILD_DECIDES.items())


async def play(bench, world, settings):
    """All judges, side by side."""
    versions = settings["versions"]
    repeats = PULLS_WITH_STATE if has_state(world["values"]) else 1

    async def pulls(version):
        return [public(result) for result in await asyncio.gather(
            *(judges.pull(bench, world, version, attempt) for attempt in range(repeats)))]

    async def probes(transfer):
        if not settings["probing"]:
            nothing = {"verdict": "none", "findings": [], "seconds": 0, "requests": 0}
            return dict.fromkeys(versions, nothing)
        if "runtime" not in bench.flags:
            # It can't be distinguished, so that one report serves for all.
            report = await judges.probe(bench, world, None, transfer)
            return {version: report for version in versions}
        return {version: await judges.probe(bench, world, version, transfer) for version in versions}

    twice = [version for version in versions if version in UPSTREAM and builds_decide(whole(world["values"]))]

    started_anew = versions if whole(world["values"])["edited"] in HELD_FROM_START else []

    async def others(of, **how):
        return dict(zip(of, [public(result) for result in await asyncio.gather(
            *(judges.pull(bench, world, version, **how) for version in of))]))

    pulled, probed, upstream, restarted, off = await asyncio.gather(
        asyncio.gather(*(pulls(version) for version in versions)), probes("full"), others(twice, upstream=True),
        others(started_anew, restarted=True), probes("off") if settings["off"] else asyncio.sleep(0))
    result = {**world, "pulls": dict(zip(versions, pulled)), "probes": probed, "upstream": upstream, "restarted": restarted}
    if settings["off"]:
        result["off"] = off
    return result


async def main(settings):
    bench = judges.Bench(settings["room"], settings["nonce"], judges.Ports(settings["worker"], settings["workers"]),
                         settings["facts"], settings["sockets"], settings["probe"], settings["flags"])
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tasks = set()

    async def one(world):
        try:
            result = await play(bench, world, settings)
        except Exception:  # noqa: BLE001 - a bug of the lab is reported, and the run goes on
            result = {**world, "broken": traceback.format_exc()}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()

    while line := await lines.readline():
        task = asyncio.ensure_future(one(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    bench.pool.stop()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
