"""One worker: reads worlds as JSON lines, plays each to all judges, writes the results as JSON lines.

    worker.py SETTINGS-AS-JSON
"""

import asyncio
import json
import sys
import traceback

import judges
from servers import tls
from worlds import has_state

# How often a runtime pulls in a world with chance or state.
PULLS_WITH_STATE = 3


def public(result):
    """A pull's result without the log of requests."""
    return {key: value for key, value in result.items() if key != "log"}


async def play(bench, world, settings):
    """All judges, side by side."""
    versions = settings["versions"]
    repeats = PULLS_WITH_STATE if has_state(world["values"]) else 1

    async def pulls(version):
        return [public(result) for result in await asyncio.gather(
            *(judges.pull(bench, world, version, attempt) for attempt in range(repeats)))]

    async def probes(transfer):
        if "runtime" not in bench.flags:
            # It can't be told apart, so that one report serves for all.
            report = await judges.probe(bench, world, None, transfer)
            return {version: report for version in versions}
        return {version: await judges.probe(bench, world, version, transfer) for version in versions}

    done = await asyncio.gather(*(pulls(version) for version in versions), probes("full"),
                                *([probes("off")] if settings["off"] else []))
    result = {"id": world["id"], "values": world["values"], "pulls": dict(zip(versions, done)), "probes": done[len(versions)]}
    if settings["off"]:
        result["off"] = done[len(versions) + 1]
    return result


async def main(settings):
    folder = settings["room"]
    contexts = (tls(f"{folder}/room/server.pem", f"{folder}/room/server.key"),
                tls(f"{folder}/room/foreign.pem", f"{folder}/room/foreign.key"))
    bench = judges.Bench(folder, settings["nonce"], judges.Ports(settings["worker"], settings["workers"]), contexts,
                         settings["facts"], settings["sockets"], settings["probe"], settings["flags"])
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tasks = set()

    async def one(world):
        try:
            result = await play(bench, world, settings)
        except Exception:  # noqa: BLE001 - a bug of the lab is reported, and the run goes on
            result = {"id": world["id"], "values": world["values"], "broken": traceback.format_exc()}
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
