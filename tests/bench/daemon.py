"""`pullpath run` beside blackbox_exporter on the same endpoint, and with a thousand targets."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

from daemons import PUBLIC, Stack, configure, cpu, daemon, get, metrics, resident, start, stop, targets, value
from namespace import inside

PROBES = int(sys.argv[1])
SECONDS = int(sys.argv[2])
BLACKBOX = os.environ["BLACKBOX"]
PORT = 19115


def per_probe(process, url):
    """CPU milliseconds of one probe."""
    for _ in range(20):
        get(url)
    before = cpu(process.pid)
    for _ in range(PROBES):
        get(url)
    return (cpu(process.pid) - before) * 1e3 / PROBES


def quantile(text, name, share):
    """The upper edge of the bucket that holds it."""
    buckets = [(float(edge), float(count)) for edge, count in re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', text, re.M)]
    wanted = share * buckets[-1][1]
    return next(edge for edge, count in buckets if count >= wanted)


def compare():
    running = []
    with Stack() as facts, tempfile.TemporaryDirectory() as folder:
        host = facts["reference"].split("/")[0]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SSL_CERT_FILE": facts["ca_file"]}
        try:
            modules = os.path.join(folder, "blackbox.yml")
            with open(modules, "w") as file:
                file.write(json.dumps({"modules": {"v2": {"prober": "http", "timeout": "5s", "http": {
                    "valid_status_codes": [200, 401], "preferred_ip_protocol": "ip4", "tls_config": {"ca_file": facts["ca_file"]}}}}}))
            blackbox = start([BLACKBOX, f"--config.file={modules}", f"--web.listen-address=127.0.0.1:{PORT}",
                              "--log.level=error"], f"http://127.0.0.1:{PORT}/-/healthy", environment)
            running.append(blackbox)
            at_start = resident(blackbox.pid)

            # Not beside the configuration, whose folder is watched.
            secrets = os.path.join(folder, "secrets")
            os.mkdir(secrets)
            wrong = os.path.join(secrets, "wrong.json")
            with open(wrong, "w") as file:
                file.write(json.dumps({"auths": {host: {"username": "puller", "password": "wrong"}}}))
            reference, right = facts["reference"], facts["docker_config"]
            never = {"reach": "24h", "path": "24h", "transfer": "off"}
            # A credential that rests ends a check behind `/v2/`: names, TCP, TLS, GET, and no more.
            two = [{"name": "ping", "image": reference, "credential": {"docker_config": wrong}},
                   {"name": "whole", "image": reference, "credential": {"docker_config": right}}]
            ours = daemon(configure(folder, facts, two, never), environment)
            running.append(ours)
            theirs_ms = per_probe(blackbox, f"http://127.0.0.1:{PORT}/probe?module=v2&target=https://{host}/v2/")
            ping_ms = per_probe(ours, f"http://127.0.0.1:{PUBLIC}/probe?target=ping")
            whole_ms = per_probe(ours, f"http://127.0.0.1:{PUBLIC}/probe?target=whole")
            stop(ours)

            often = {"reach": "10s", "path": "1m", "transfer": "off"}
            few = daemon(configure(folder, facts, targets(facts, 20), often), environment)
            running.append(few)
            time.sleep(30)
            few_rss, few_own = resident(few.pid), resident(few.pid, "RssAnon")
            stop(few)

            minutely = {"reach": "1m", "path": "24h", "transfer": "off"}
            thousand = daemon(configure(folder, facts, targets(facts, 1000), minutely), environment)
            running.append(thousand)
            time.sleep(70)
            before, began = cpu(thousand.pid), time.monotonic()
            time.sleep(SECONDS)
            share = (cpu(thousand.pid) - before) / (time.monotonic() - began)
            scrapes = []
            for _ in range(10):
                begun = time.monotonic()
                text = metrics()
                scrapes.append((time.monotonic() - begun) * 1e3)
            checks = value(text, 'pullpath_checks_total{tier="reach",outcome="would_succeed"}')
            lag = quantile(text, "pullpath_scheduler_lag_seconds", 0.99)
            missed = value(text, "pullpath_checks_missed_total")
            thousand_rss = resident(thousand.pid)
            series = sum(1 for line in text.splitlines() if 'target="' in line)

            version = subprocess.run([BLACKBOX, "--version"], capture_output=True, text=True)
            print(f"{os.cpu_count()} CPUs, Linux {platform.release()}; {(version.stdout + version.stderr).splitlines()[0]}; {PROBES} probes each")
            print("loopback TLS: docker-registry with token service behind nginx, blobs redirected\n")
            rows = [
                ("names, TCP, TLS, GET /v2/", ping_ms, theirs_ms, "CPU ms a probe", 0.5),
                ("whole check of three legs, beside that", whole_ms, theirs_ms, "CPU ms a probe", 2.0),
                ("memory with 20 targets, beside its own at start", few_rss, at_start, "MiB", 1.0),
            ]
            print(f"{'':50}{'pullpath':>10}{'blackbox':>10}{'ratio':>8}{'bound':>8}")
            for name, own, other, unit, bound in rows:
                print(f"{name:50}{own:>10.2f}{other:>10.2f}{own / other:>8.2f}{bound:>8.1f}  {unit}")
            print(f"  (of the memory {few_own:.1f} MiB its own, the rest pages of its program)")
            print(f"\n1,000 targets, each checked every 60 s, over {SECONDS} s after the first minute:")
            print(f"  {share:.3f} of a core (bound 0.1); {checks:.0f} checks; begun late by {lag} s at most in 99 % (bound 1 s); {missed:.0f} missed")
            print(f"  {thousand_rss:.1f} MiB resident (bound 64); /metrics in {statistics.median(scrapes):.1f} ms, "
                  f"{max(scrapes):.1f} at most (bound 50), {series / 1000:.1f} series a target")
        finally:
            for process in running:
                if process.poll() is None:
                    stop(process)


if sys.argv[3:] == ["inside"]:
    compare()
else:
    inside(__file__, str(PROBES), str(SECONDS), "inside")
