"""A network namespace with a resolver of its own, for a benchmark that runs in it and is gone with it."""

import os
import subprocess
import sys


def sh(*words):
    subprocess.run(words, check=True)


def inside(script, *arguments):
    """Runs a script in a namespace whose name server is at 127.0.0.1."""
    name = f"pullpath-bench-{os.getpid()}"
    resolver = f"/etc/netns/{name}"
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "-n", name, "link", "set", "lo", "up")
        os.makedirs(resolver)
        with open(f"{resolver}/resolv.conf", "w") as file:
            file.write("nameserver 127.0.0.1\n")
        sh("ip", "netns", "exec", name, sys.executable, script, *arguments)
    finally:
        sh("ip", "netns", "del", name)
        if os.path.isdir(resolver):
            os.remove(f"{resolver}/resolv.conf")
            os.rmdir(resolver)
