"""`pullpath run` beside a registry that fails and heals."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import daemons
from daemons import Stack, configure, daemon, metrics, resident, stop, value
from namespace import inside

SECONDS = int(sys.argv[1])
TARGETS, EVERY = 20, 10
# Failing for the second half of each period, in another way each time.
PERIOD = 240
FAULTS = {
    "refused": "tcp dport {registry} reject with tcp reset",
    "silent": "tcp dport {registry} drop",
    "no names": "udp dport 53 drop",
}


def break_it(rule):
    rules = f"table inet fault {{\n chain in {{\n type filter hook input priority 0\n {rule}\n }}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def repair():
    subprocess.run(["nft", "delete", "table", "inet", "fault"], check=True)


def checks(text):
    return sum(float(count) for count in re.findall(r"^pullpath_checks_total\{.*\} (\S+)$", text, re.M))


def series(text):
    """Those of targets, without the durations and dates that come and go with phases."""
    found = re.findall(r'^(pullpath_(?:pull_ready|phase_success|path_info|image_bytes)\{.*\}) ', text, re.M)
    return set(found)


def ready(text):
    return [float(truth) for truth in re.findall(r"^pullpath_pull_ready\{.*\} (\S+)$", text, re.M)]


def soak():
    schedule = {"reach": f"{EVERY}s", "path": "5m", "transfer": "off", "timeout": "2s", "check_timeout": "9s"}
    with Stack() as facts, tempfile.TemporaryDirectory() as folder:
        registry = re.search(r":(\d+)/", facts["reference"])[1]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        every = daemons.targets(facts, TARGETS)
        process = daemon(configure(folder, facts, every, schedule), environment)
        is_failing = False
        samples, wrong = [], []
        try:
            time.sleep(3 * EVERY)
            first = metrics()
            healthy, begun, expected = series(first), time.monotonic(), 0.0
            before, then = checks(first), begun
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
            while (now := time.monotonic()) - begun < SECONDS:
                number, place = divmod(now - begun, PERIOD)
                if place >= PERIOD / 2 and not is_failing:
                    kind = list(FAULTS)[int(number) % len(FAULTS)]
                    break_it(FAULTS[kind].format(registry=registry))
                    is_failing = True
                elif place < PERIOD / 2 and is_failing:
                    repair()
                    is_failing = False
                # One target is not there in the second quarter of a period.
                here = every[:-1] if PERIOD / 4 <= place < PERIOD / 2 else every
                configure(folder, facts, here, schedule)
                time.sleep(EVERY)
                text = metrics()
                expected += len(here) * (time.monotonic() - then) / EVERY
                then = time.monotonic()
                age = (then - begun) % PERIOD
                sample = (resident(process.pid), resident(process.pid, "RssAnon"), len(os.listdir(f"/proc/{process.pid}/fd")))
                samples.append(sample)
                # Settled: two turns after the last change.
                for after, count, truth in [(0, TARGETS, 1.0), (PERIOD / 4, TARGETS - 1, 1.0), (PERIOD / 2, TARGETS, 0.0)]:
                    first_period = then - begun < PERIOD / 4
                    if after + 3 * EVERY <= age < after + PERIOD / 4 and not first_period:
                        if ready(text) != [truth] * count:
                            wrong.append((round(then - begun), f"{count} targets should be {truth:.0f}", ready(text)))
                        if truth == 1.0 and count == TARGETS and series(text) != healthy:
                            wrong.append((round(then - begun), "series", sorted(series(text) ^ healthy)[:4]))
                if int(now - begun) // 300 != int(then - begun) // 300:
                    print(f"{then - begun:6.0f} s  {sample[0]:5.1f} MiB ({sample[1]:.1f} its own)  {sample[2]} files  "
                          f"{checks(text) - before:.0f} checks, {value(text, 'pullpath_checks_missed_total'):.0f} missed", flush=True)
            text = metrics()
            if is_failing:
                repair()
            quarter = len(samples) // 4
            early = statistics.median(own for _, own, _ in samples[quarter:2 * quarter])
            late = statistics.median(own for _, own, _ in samples[-quarter:])
            print(f"\n{SECONDS} s, {TARGETS} targets each {EVERY} s; faults in turn: {', '.join(FAULTS)}")
            print(f"memory of its own: {early:.2f} MiB in the second quarter, {late:.2f} in the last ({late / early:.2f}, bound 1.10); "
                  f"resident {max(rss for rss, _, _ in samples):.1f} MiB at most")
            print(f"files: {files} at first, {max(count for _, _, count in samples)} at most, {samples[-1][2]} at last")
            print(f"checks: {checks(text) - before:.0f} of {expected:.0f} that were due "
                  f"({(checks(text) - before) / expected:.3f}, bound 0.99); {value(text, 'pullpath_checks_missed_total'):.0f} missed; "
                  f"{value(text, 'pullpath_check_panics_total'):.0f} panics")
            print(f"wrong or leaked series: {len(wrong)} (bound 0)")
            for one in wrong[:10]:
                print("  ", one)
        finally:
            stop(process)


if sys.argv[2:] == ["inside"]:
    soak()
else:
    inside(__file__, str(SECONDS), "inside")
