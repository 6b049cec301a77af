"""Runs two commands in turn against the same stack, and prints what each took."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from namespace import inside, sh

RUNS = int(sys.argv[1])


def once(command, environment):
    """Wall seconds, CPU seconds and peak KiB of a command.

    Memory is measured in a second run under GNU time: ru_maxrss survives exec, so that a child of this
    interpreter never shows less than the interpreter's own.
    """
    began = time.monotonic()
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    if status != 0:
        sys.exit(f"{command[0]} ended with {status}: {said.decode()}")
    peak = subprocess.run(
        ["/usr/bin/time", "-f", "%M", *command], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True,
    )
    return wall, usage.ru_utime + usage.ru_stime, int(peak.stderr.split()[-1])


def classification(facts, environment):
    """What observing the vantage point adds to a check: how long the check, once done, waited for it."""
    quiet = "table inet quiet {\nchain out {\ntype filter hook output priority 0;\nip daddr 169.254.169.254 drop\n}\n}\n"
    sh("ip", "route", "add", "169.254.169.254", "dev", "lo")
    sh("nft", quiet)
    for what, text in (
        ("nothing configured", "network: {}\n"),
        ("a metadata service that stays silent", "network: {metadata: huawei}\n"),
    ):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
            config.write(text)
            config.flush()
            command = ["target/release/pullpath", "probe", facts["reference"], "--transfer", "off", "-o", "json", "--platform", "linux/amd64",
                       "--nameserver", "127.0.0.1", "--docker-config", facts["docker_config"], "--config", config.name]
            waits, looks = [], []
            for _ in range(min(RUNS, 10)):
                report = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
                vantage = report["reports"][0]["evidence"]["vantage"]
                waits.append(vantage["waited_seconds"] * 1e3)
                looks.append(vantage["took_seconds"] * 1e3)
        print(f"classification with {what}: observed the vantage point for {statistics.median(looks):.1f} ms beside the check, "
              f"{max(waits):.1f} ms beyond it at most (bound: 1000 ms)")


def compare():
    stack = subprocess.Popen(
        ["target/release/examples/stack", "--dns-port", "53"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        facts = json.loads(stack.stdout.readline())
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SSL_CERT_FILE": facts["ca_file"]}
        commands = {
            # Both read the password from the same file and trust the same authority.
            "pullpath probe": (
                ["target/release/pullpath", "probe", facts["reference"], "--transfer", "off", "--platform", "linux/amd64",
                 "--nameserver", "127.0.0.1", "--docker-config", facts["docker_config"]]
            ),
            "skopeo inspect": (
                ["skopeo", "inspect", "--override-arch", "amd64", "--authfile", facts["docker_config"],
                 f"docker://{facts['reference']}"]
            ),
        }
        figures = {name: [] for name in commands}
        for run in range(RUNS + 2):
            for name, command in commands.items():
                figure = once(command, environment)
                if run >= 2:
                    figures[name].append(figure)
        version = subprocess.run(["skopeo", "--version"], capture_output=True, text=True).stdout.strip()
        print(f"{os.cpu_count()} CPUs, Linux {platform.release()}; {version}; {RUNS} runs of each in turn after 2")
        print("loopback TLS: docker-registry with token service behind nginx, blobs redirected\n")
        print(f"{'':16}{'wall ms':>24}{'CPU ms':>24}{'peak MiB':>24}")
        medians = {}
        for name, rows in figures.items():
            cells = []
            for column, scale in ((0, 1e3), (1, 1e3), (2, 1 / 1024)):
                values = [row[column] * scale for row in rows]
                medians[name, column] = statistics.median(values)
                cells.append(f"{min(values):.1f} / {statistics.median(values):.1f} / {max(values):.1f}")
            print(f"{name:16}" + "".join(f"{cell:>24}" for cell in cells))
        ours, theirs = commands
        ratios = [medians[ours, column] / medians[theirs, column] for column in range(3)]
        print(f"{'ratio of medians':16}" + "".join(f"{ratio:>24.2f}" for ratio in ratios))
        print("\nmin / median / max; a ratio below 1 means pullpath needs less")
        classification(facts, environment)
    finally:
        stack.stdin.close()
        try:
            stack.wait(timeout=10)
        except subprocess.TimeoutExpired:
            stack.kill()


if sys.argv[2:] == ["inside"]:
    compare()
else:
    inside(__file__, str(RUNS), "inside")
