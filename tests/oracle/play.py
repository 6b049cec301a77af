"""Plays worlds to real runtimes and to the probe; to be run by tests/oracle/run, in namespaces of its own."""

import argparse
import asyncio
import glob
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import threading
import time

import causes
import chains
import judges
import names
import nodes
import room
import score
from runtime import Runtime, shared
from worlds import DIMENSIONS, GROUPS, alone, coverage, generate, is_timed, is_usual, whole

# What worlds are drawn from where nothing is said of it.
DRAWN = "all"
HERE = os.path.dirname(os.path.abspath(__file__))
# How many worlds a worker plays at a time: quick ones, and timed ones beside them.
QUICK, TIMED = 3, 20


def arguments():
    parser = argparse.ArgumentParser(prog="tests/oracle/run", description="Plays generated worlds to real containerd and to `pullpath probe`.")
    parser.add_argument("worlds", nargs="?", type=int, default=2000, help="how many worlds (default: 2000)")
    parser.add_argument("seed", nargs="?", help="the seed (default: a random one)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: a new folder in the temporary one)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run whose results are there")
    parser.add_argument("--worlds-dir", metavar="DIR", help="play the stored worlds of this folder too")
    parser.add_argument("--replay", metavar="WORLDFILE", help="play one stored world, and show all of it")
    parser.add_argument("--judge", metavar="VERSION", help="with --replay: this runtime only")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--no-off", action="store_true", help="leave out the probes with --transfer off")
    parser.add_argument("--alone", action="store_true", help="play one world for each unusual value, and no drawn ones: shows what each value does")
    parser.add_argument("--dimensions", choices=sorted(GROUPS), help="what worlds are drawn from (default: protocol; all, where --only or --with asks for it)")
    parser.add_argument("--with", dest="fixed", metavar="DIMENSION=VALUE", action="append", default=[], help="with --alone: all worlds have this value beside; repeatable")
    parser.add_argument("--no-probe", action="store_true", help="ask the runtimes only")
    parser.add_argument("--only", metavar="DIMENSION[=VALUE]", action="append", default=[], help="only worlds with this value, or with any unusual one where none is named; repeatable")
    return parser.parse_args()


def probe_program():
    """The probe: PULLPATH, or what this checkout has built."""
    root = os.path.dirname(os.path.dirname(HERE))
    candidates = [os.environ.get("PULLPATH"), f"{root}/target/release/pullpath", f"{root}/target/debug/pullpath"]
    for path in candidates:
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    sys.exit("no pullpath: build it, or give its path in PULLPATH")


def probe_flags(program):
    """Which of the newer options this probe has."""
    output = subprocess.run([program, "probe", "--help"], capture_output=True, text=True, timeout=30)
    return ["runtime"] if "--runtime" in output.stdout else []


class Lab:
    """The room, its name server and the runtimes."""

    def __init__(self, folder, worlds):
        self.folder, self.runtimes, self.stop = folder, [], threading.Event()
        # The CAs of these worlds are in one bundle for all.
        shop = chains.Workshop(f"{folder}/room/tls")
        shop.client_files()
        room.furnish(f"{folder}/room", "".join(shop.save(chain) for chain in nodes.chains_of(worlds)), nodes.addresses())
        # The bundle is older than any runtime.
        nodes.make_old(f"{folder}/room/certs")
        threading.Thread(target=names.serve, args=(self.stop,), daemon=True).start()
        os.makedirs(f"{folder}/certs.d", exist_ok=True)
        self.facts = [json.loads(line) for line in os.environ["ORACLE_RUNTIMES"].splitlines()]

    def __enter__(self):
        try:
            # Those of 2.x are started by the workers, one for each pull at a time.
            for facts in shared(self.facts):
                self.runtimes.append(Runtime(facts, f"{self.folder}/{facts['version']}", f"{self.folder}/certs.d"))
            for runtime in self.runtimes:
                runtime.wait()
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for runtime in self.runtimes:
            runtime.stop()
        self.stop.set()

    @property
    def sockets(self):
        return {runtime.version: runtime.socket for runtime in self.runtimes}


def print_facts(lab, program, flags):
    for facts in lab.facts:
        print(f"containerd {facts['version']} ({facts['suite']}), {facts['go']}, GODEBUG {facts['godebug'] or '(none)'}")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout.strip()
    print(f"probe: {version}, {'given the version by --runtime' if flags else 'not given the version (it has no --runtime)'}")


async def run_worker(number, settings, quick, timed, done):
    """Feeds one worker process until both queues are empty."""
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, os.path.join(HERE, "worker.py"), json.dumps({**settings, "worker": number}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, limit=1 << 24)
    playing = {"quick": 0, "timed": 0}
    kinds = {}

    def feed():
        for kind, queue, most in (("quick", quick, QUICK), ("timed", timed, TIMED)):
            while queue and playing[kind] < most:
                world = queue.pop(0)
                kinds[world["id"]] = kind
                playing[kind] += 1
                process.stdin.write((json.dumps(world) + "\n").encode())

    try:
        feed()
        while any(playing.values()):
            line = await process.stdout.readline()
            if not line:
                raise RuntimeError("a worker ended early")
            result = json.loads(line)
            playing[kinds.pop(result["id"])] -= 1
            done(result)
            feed()
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_all(worlds, settings, done):
    # The longest first, so that they end with the others.
    timed = [world for world in worlds if is_timed(world["values"])]
    quick = [world for world in worlds if not is_timed(world["values"])]
    await asyncio.gather(*(run_worker(number, settings, quick, timed, done) for number in range(settings["workers"])))


def load_world(path):
    """A stored world; dimensions that came later have their usual value."""
    with open(path, encoding="utf-8") as file:
        stored = json.load(file)
    values = whole(stored["values"])
    for dimension, value in values.items():
        if value not in DIMENSIONS[dimension]:
            sys.exit(f"{path}: {dimension} has no value {value!r}")
    return {**stored, "values": values, "id": stored.get("id", os.path.basename(path))}


def settings_of(lab, args, program, flags):
    return {"room": lab.folder, "nonce": f"{time.time_ns():x}", "workers": args.jobs, "sockets": lab.sockets, "facts": lab.facts,
            "versions": [facts["version"] for facts in lab.facts], "probe": program, "flags": flags, "off": not args.no_off and not args.no_probe,
            "probing": not args.no_probe}


def results_of(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def choose(args, out):
    """The worlds of this run, and those that are left of it."""
    state = os.path.join(out, "run.json")
    kept = ("worlds", "seed", "alone", "dimensions", "fixed")
    if args.resume:
        with open(state, encoding="utf-8") as file:
            stored = json.load(file)
        for name in kept:
            setattr(args, name, stored[name])
    args.seed = args.seed or f"{random.SystemRandom().randrange(16 ** 6):06x}"
    # A request for a dimension that only the node's side has selects all dimensions.
    asked = {wanted.partition("=")[0] for wanted in [*args.only, *args.fixed]}
    args.dimensions = args.dimensions or (DRAWN if asked <= set(GROUPS[DRAWN]) else "all")
    with open(state, "w", encoding="utf-8") as file:
        json.dump({name: getattr(args, name) for name in kept}, file)
    fixed = [tuple(wanted.split("=", 1)) for wanted in args.fixed]
    worlds = alone(args.dimensions, fixed) if args.alone else generate(args.worlds, args.seed, args.dimensions)
    if args.worlds_dir:
        worlds += [load_world(path) for path in sorted(glob.glob(os.path.join(args.worlds_dir, "*.json")))]
    for wanted in args.only:
        dimension, named, value = wanted.partition("=")
        drawn = [(world, whole(world["values"])[dimension]) for world in worlds]
        worlds = [world for world, has in drawn if (value in (has, world.get("texts", {}).get(dimension)) if named else not is_usual(dimension, has))]
    done = {result["id"] for result in results_of(os.path.join(out, "results.jsonl"))}
    return worlds, [world for world in worlds if world["id"] not in done]


def transfer_seen(folder):
    """Whether the log of a containerd 2 says that it pulled by the transfer service."""
    for path in glob.glob(f"{folder}/2.*/log"):
        with open(path, encoding="utf-8", errors="replace") as file:
            if "using transfer service" in file.read(400_000):
                return True
    return False


def run(lab, args, program, flags, out, worlds, left):
    print(f"seed {args.seed}, {len(worlds)} worlds, {len(left)} to play; results in {out}", flush=True)
    began, count = time.monotonic(), 0
    with open(os.path.join(out, "results.jsonl"), "a", encoding="utf-8") as file:
        def done(result):
            nonlocal count
            count += 1
            file.write(json.dumps(result) + "\n")
            file.flush()
            if count % 50 == 0:
                print(f"{count}/{len(left)} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

        asyncio.run(run_all(left, settings_of(lab, args, program, flags), done))
    seconds = time.monotonic() - began
    transfer = transfer_seen(lab.folder)
    print(f"played {count} worlds in {seconds:.0f} s ({seconds / max(count, 1):.2f} s each)")
    print(f"transfer service of containerd 2: {'found in its log' if transfer else 'not found in its log'}")
    known = {world["id"] for world in worlds}
    results = [result for result in results_of(os.path.join(out, "results.jsonl")) if result["id"] in known]
    summary = score.judge(results, [facts["version"] for facts in lab.facts], coverage(worlds, GROUPS[args.dimensions]), out)
    summary.update(seed=args.seed, seconds=round(seconds, 1), transfer_service=transfer,
                   runtimes=[{key: facts[key] for key in ("version", "go", "godebug")} for facts in lab.facts])
    with open(os.path.join(out, "summary.json"), "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    return 0


def show_log(log):
    for entry in log:
        extras = [f"{key}={entry[key]}" for key in ("auth", "range", "ending") if key in entry]
        fired = "  <" + ", ".join(entry["fired"]) + ">" if entry["fired"] else ""
        print(f"  {entry['at']:7.3f} {entry['host']:<14} {entry['line']} -> {entry.get('status', '-')} {' '.join(extras)}{fired}")


async def replay_judges(bench, world, versions, off):
    for version in versions:
        result = await judges.pull(bench, world, version)
        print(f"\n=== containerd {version}: {result['outcome']} after {result['seconds']} s")
        for code, text in result["texts"]:
            print(f"  {code}: {text}")
        show_log(result["log"])
    given = versions if "runtime" in bench.flags else [None]
    for version in given:
        for transfer in ("full", "off") if off else ("full",):
            result = await judges.probe(bench, world, version, transfer, keep=True)
            print(f"\n=== probe {version or ''} --transfer {transfer}: {result['verdict']} after {result['seconds']} s")
            print("  $ " + shlex.join(["pullpath", *result["command"][1:]]))
            for finding in result["findings"]:
                print("  " + " ".join(f"{key}={value}" for key, value in finding.items()))
            show_log(result["log"])
            print(result["report"] or result["stderr"])


def replay(lab, args, program, flags, world):
    print("unusual values: " + ", ".join(f"{d}={v}" for d, v in world["values"].items() if v != next(iter(DIMENSIONS[d]))))
    versions = [facts["version"] for facts in lab.facts if args.judge in (None, facts["version"])]
    if not versions:
        sys.exit(f"no runtime {args.judge}")

    async def play():
        bench = judges.Bench(lab.folder, f"{time.time_ns():x}", judges.Ports(0, 1), lab.facts, lab.sockets, program, flags)
        await replay_judges(bench, world, versions, not args.no_off)
        bench.pool.stop()

    asyncio.run(play())
    return 0


def main():
    args = arguments()
    causes.check()
    program = probe_program()
    flags = probe_flags(program)
    # On memory, which goes with the namespace.
    folder = os.environ["ORACLE_ROOM"]
    room.sh("mount", "-t", "tmpfs", "-o", "size=8g", "oracle", folder)
    if args.replay:
        world = load_world(args.replay)
        with Lab(folder, [world]) as lab:
            print_facts(lab, program, flags)
            return replay(lab, args, program, flags, world)
    out = args.resume or args.out or tempfile.mkdtemp(prefix="oracle-", dir="/var/tmp")
    os.makedirs(out, exist_ok=True)
    worlds, left = choose(args, out)
    with Lab(folder, left) as lab:
        print_facts(lab, program, flags)
        return run(lab, args, program, flags, out, worlds, left)


if __name__ == "__main__":
    sys.exit(main())
