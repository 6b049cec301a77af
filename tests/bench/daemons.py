"""Starts `pullpath run` and others for a benchmark, and reports what they use."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

PULLPATH = os.environ.get("PULLPATH", "target/release/pullpath")
TICKS = os.sysconf("SC_CLK_TCK")
PUBLIC, ADMIN = 19797, 19798


def get(url, method="GET"):
    """The body; twice as long as any check may last."""
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read().decode()


def metrics():
    return get(f"http://127.0.0.1:{PUBLIC}/metrics")


def value(text, series):
    """Of a series, by its name and labels."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
    return float(found[1]) if found else None


def cpu(pid):
    """Seconds that a process has had (proc(5): utime and stime are the fields 14 and 15)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid, kind="VmRSS"):
    """MiB; `RssAnon` is what the process has written, `RssFile` its program."""
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"{kind}:\s+(\d+)", file.read())[1]) / 1024


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
        "log": {"level": "error"},
    })


def targets(facts, count):
    return [{"name": f"t{i}", "image": facts["reference"], "credential": {"docker_config": facts["docker_config"]}}
            for i in range(count)]


def configure(folder, *what):
    path = os.path.join(folder, "pullpath.yaml")
    with open(path + ".new", "w") as file:
        file.write(configuration(*what))
    os.rename(path + ".new", path)
    return path


def daemon(path, environment):
    return start([PULLPATH, "run", "--config", path], f"http://127.0.0.1:{PUBLIC}/healthz", environment)


class Stack:
    """The real servers of the tests; `facts` says where they are."""

    def __enter__(self):
        self.process = subprocess.Popen(["target/release/examples/stack", "--dns-port", "53"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.facts = json.loads(self.process.stdout.readline())
        return self.facts

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
