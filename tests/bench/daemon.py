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
import urllib.request

from namespace import inside

PROBES = int(sys.argv[1])
SECONDS = int(sys.argv[2])
PULLPATH = os.environ.get("PULLPATH", "target/release/pullpath")
TICKS = os.sysconf("SC_CLK_TCK")
PUBLIC, ADMIN, BLACKBOX = 19797, 19798, 19115


def get(url, method="GET"):
    """The body; twice as long as any check may last."""
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read().decode()


def cpu(pid):
    """Seconds that a process has had (proc(5): utime and stime are the fields 14 and 15)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid):
    """MiB."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024


def start(command, url, environment):
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(100):
        try:
            get(url)
            return process
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended: {process.stderr.read().decode()}")
            time.sleep(0.1)
    sys.exit(f"{command[0]} does not answer")


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()


def configuration(facts, targets, schedule):
    return json.dumps({
        "listen": f"127.0.0.1:{PUBLIC}", "admin_listen": f"127.0.0.1:{ADMIN}", "vantage": {"node": "bench"},
        "network": {"nameservers": ["127.0.0.1"], "ca_files": [facts["ca_file"]], "metadata": "off"},
        "targets": targets, "schedule": schedule,
        "budgets": {"registry_requests_per_minute": 1000000, "checks_at_once": 16},
        "log": {"level": "warn"},
    })


def daemon(facts, targets, schedule, folder, environment):
    path = os.path.join(folder, "pullpath.yaml")
    with open(path, "w") as file:
        file.write(configuration(facts, targets, schedule))
    return start([PULLPATH, "run", "--config", path], f"http://127.0.0.1:{PUBLIC}/healthz", environment)


def per_probe(process, url):
    """CPU milliseconds of one probe."""
    for _ in range(20):
        get(url)
    before = cpu(process.pid)
    for _ in range(PROBES):
        get(url)
    return (cpu(process.pid) - before) * 1e3 / PROBES


def value(metrics, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.M)
    return float(found[1]) if found else None


def quantile(metrics, name, share):
    """The upper edge of the bucket that holds it."""
    buckets = [(float(edge), float(count)) for edge, count in re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', metrics, re.M)]
    wanted = share * buckets[-1][1]
    return next(edge for edge, count in buckets if count >= wanted)


def compare():
    stack = subprocess.Popen(["target/release/examples/stack", "--dns-port", "53"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running = []
    try:
        facts = json.loads(stack.stdout.readline())
        host = facts["reference"].split("/")[0]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SSL_CERT_FILE": facts["ca_file"]}
        with tempfile.TemporaryDirectory() as folder:
            modules = os.path.join(folder, "blackbox.yml")
            with open(modules, "w") as file:
                file.write(json.dumps({"modules": {"v2": {"prober": "http", "timeout": "5s", "http": {
                    "valid_status_codes": [200, 401], "preferred_ip_protocol": "ip4", "tls_config": {"ca_file": facts["ca_file"]}}}}}))
            blackbox = start(["prometheus-blackbox-exporter", f"--config.file={modules}", f"--web.listen-address=127.0.0.1:{BLACKBOX}",
                              "--log.level=error"], f"http://127.0.0.1:{BLACKBOX}/-/healthy", environment)
            running.append(blackbox)
            at_start = resident(blackbox.pid)

            wrong = os.path.join(folder, "wrong.json")
            with open(wrong, "w") as file:
                file.write(json.dumps({"auths": {host: {"username": "puller", "password": "wrong"}}}))
            reference, right = facts["reference"], facts["docker_config"]
            never = {"reach": "24h", "path": "24h", "transfer": "off"}
            # A credential that rests ends a check behind `/v2/`: names, TCP, TLS, GET, and no more.
            targets = [{"name": "ping", "image": reference, "credential": {"docker_config": wrong}},
                       {"name": "whole", "image": reference, "credential": {"docker_config": right}}]
            ours = daemon(facts, targets, never, folder, environment)
            running.append(ours)
            theirs_ms = per_probe(blackbox, f"http://127.0.0.1:{BLACKBOX}/probe?module=v2&target=https://{host}/v2/")
            ping_ms = per_probe(ours, f"http://127.0.0.1:{PUBLIC}/probe?target=ping")
            whole_ms = per_probe(ours, f"http://127.0.0.1:{PUBLIC}/probe?target=whole")
            stop(ours)

            many = lambda count: [{"name": f"t{i}", "image": reference, "credential": {"docker_config": right}} for i in range(count)]
            few = daemon(facts, many(20), {"reach": "10s", "path": "1m", "transfer": "off"}, folder, environment)
            running.append(few)
            time.sleep(30)
            few_rss = resident(few.pid)
            stop(few)

            thousand = daemon(facts, many(1000), {"reach": "1m", "path": "24h", "transfer": "off"}, folder, environment)
            running.append(thousand)
            time.sleep(70)
            before, began = cpu(thousand.pid), time.monotonic()
            time.sleep(SECONDS)
            share = (cpu(thousand.pid) - before) / (time.monotonic() - began)
            scrapes = []
            for _ in range(10):
                begun = time.monotonic()
                metrics = get(f"http://127.0.0.1:{PUBLIC}/metrics")
                scrapes.append((time.monotonic() - begun) * 1e3)
            checks = value(metrics, 'pullpath_checks_total{tier="reach",outcome="would_succeed"}')
            lag = quantile(metrics, "pullpath_scheduler_lag_seconds", 0.99)
            missed = value(metrics, "pullpath_checks_missed_total")
            thousand_rss = resident(thousand.pid)
            series = sum(1 for line in metrics.splitlines() if 'target="' in line)

            version = subprocess.run(["prometheus-blackbox-exporter", "--version"], capture_output=True, text=True)
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
            print(f"\n1,000 targets, each checked every 60 s, over {SECONDS} s after the first minute:")
            print(f"  {share:.3f} of a core (bound 0.1); {checks:.0f} checks; begun late by {lag} s at most in 99 % (bound 1 s); {missed:.0f} missed")
            print(f"  {thousand_rss:.1f} MiB resident (bound 64); /metrics in {statistics.median(scrapes):.1f} ms, "
                  f"{max(scrapes):.1f} at most (bound 50), {series / 1000:.1f} series a target")
    finally:
        for process in running:
            if process.poll() is None:
                stop(process)
        stack.stdin.close()
        try:
            stack.wait(timeout=10)
        except subprocess.TimeoutExpired:
            stack.kill()


if sys.argv[3:] == ["inside"]:
    compare()
else:
    inside(__file__, str(PROBES), str(SECONDS), "inside")
