"""Reads one large layer with pullpath and with curl | sha256sum in turn; prints rates and CPU."""

import hashlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

RUNS, MEBIBYTES = int(sys.argv[1]), int(sys.argv[2])
PULLPATH = os.environ.get("PULLPATH", "target/release/pullpath")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sh(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def put(folder, content):
    """A file by its digest; the digest and size."""
    digest = hashlib.sha256(content).hexdigest()
    with open(f"{folder}/{digest}", "wb") as file:
        file.write(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def image(folder):
    """An image of one layer that can't be compressed; the layer's digest."""
    layer = put(folder, os.urandom(1 << 20) * MEBIBYTES)
    config = put(folder, json.dumps({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }).encode())
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **config}, "layers": [{"mediaType": LAYER, **layer}],
    }).encode()
    return layer["digest"], put(folder, manifest)["digest"]


def certificates(folder):
    sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
       "-subj", "/CN=Ceiling root", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
    sh("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=registry.test",
       "-addext", "subjectAltName=DNS:registry.test", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/request.pem")
    sh("openssl", "x509", "-req", "-in", f"{folder}/request.pem", "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key",
       "-days", "2", "-copy_extensions", "copy", "-out", f"{folder}/certificate.pem")


def nginx(folder, manifest, port):
    """nginx is all of a registry that a pull by GET needs."""
    with open(f"{folder}/nginx.conf", "w") as file:
        file.write(f"""
daemon off; pid {folder}/nginx.pid; error_log stderr error; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; root {folder}/blobs; keepalive_timeout 60s;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} ssl; server_name registry.test;
    ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
    location = /v2/ {{ return 200 '{{}}'; }}
    location ~ ^/v2/app/manifests/ {{
      types {{ }} default_type {MANIFEST}; add_header Docker-Content-Digest {manifest};
      try_files /{manifest.removeprefix("sha256:")} =404;
    }}
    location ~ ^/v2/app/blobs/sha256:(?<digest>[0-9a-f]+)$ {{ default_type application/octet-stream; try_files /$digest =404; }}
  }}
}}
""")
    process = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.05)
    process.terminate()
    sys.exit("nginx does not start")


def once(command, accept):
    """Wall and CPU seconds of a command and all of its children."""
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = child.stdout.read()
    problem = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    if status != 0 or not accept(said):
        sys.exit(f"{command[0]} ended with {status}: {said.decode()[:2000]}{problem.decode()[:2000]}")
    return wall, usage.ru_utime + usage.ru_stime


def is_checked(digest):
    def accept(said):
        report = json.loads(said)["reports"][0]
        streams = report["evidence"]["transfer"]["streams"]
        return [(s["digest"], s["end"]) for s in streams] == [(digest, {"kind": "complete", "digest_matches": True})]
    return accept


def compare(folder, digest, manifest):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = nginx(folder, manifest, port)
    try:
        url = f"https://registry.test:{port}/v2/app/blobs/{digest}"
        pipeline = (f"set -o pipefail; curl --silent --fail --http1.1 --noproxy '*' --cacert {folder}/ca.pem "
                    f"--resolve registry.test:{port}:127.0.0.1 {url} | sha256sum")
        for name, nothing in (("none.json", "{}"), ("none.toml", "")):
            with open(f"{folder}/{name}", "w") as none:
                none.write(nothing)
        commands = {
            "pullpath": (
                [PULLPATH, "probe", f"registry.test:{port}/app:1", "--transfer", "full", "-o", "json", "--platform", "linux/amd64",
                 "--resolve", f"registry.test:{port}:127.0.0.1", "--ca-file", f"{folder}/ca.pem",
                 "--docker-config", f"{folder}/none.json", "--containerd-config", f"{folder}/none.toml",
                 "--proxy-from", "/dev/null"],
                is_checked(digest),
            ),
            "curl | sha256sum": (
                ["bash", "-c", pipeline], lambda said: said.decode().split()[0] == digest.removeprefix("sha256:"),
            ),
        }
        figures = {name: [] for name in commands}
        for run in range(RUNS + 1):
            for name, (command, accept) in commands.items():
                figure = once(command, accept)
                if run:
                    figures[name].append(figure)
    finally:
        server.terminate()
        server.wait()
    print(f"\nHTTP/1.1, TLSv1.3 AES-256-GCM\n{'':18}{'MiB/s':>24}{'CPU ns/byte':>24}")
    medians = []
    for name, runs in figures.items():
        rates = [MEBIBYTES / wall for wall, _ in runs]
        costs = [cpu * 1e9 / (MEBIBYTES << 20) for _, cpu in runs]
        shown = [f"{statistics.median(v):.2f} ({min(v):.2f}..{max(v):.2f})" for v in (rates, costs)]
        print(f"{name:18}{shown[0]:>24}{shown[1]:>24}")
        medians.append((statistics.median(rates), statistics.median(costs)))
    (rate, cost), (their_rate, their_cost) = medians
    print(f"{'ratio':18}{rate / their_rate:>24.2f}{cost / their_cost:>24.2f}")


def main():
    with open("/proc/cpuinfo") as file:
        lines = file.read().splitlines()
    flags = set(next((l for l in lines if l.startswith(("flags", "Features"))), "").split())
    wanted = ["aes", "vaes", "pclmulqdq", "vpclmulqdq", "avx2", "avx512f", "sha_ni", "sha1", "sha2"]
    print(f"{os.cpu_count()} CPUs, Linux {platform.release()}, of its flags: {' '.join(f for f in wanted if f in flags)}")
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    print(f"{curl.split(' (')[0]}; one stream of {MEBIBYTES} MiB; {RUNS} runs of each in turn after 1; the server shares the CPUs")
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/blobs")
        os.chmod(folder, 0o755)
        certificates(folder)
        digest, manifest = image(f"{folder}/blobs")
        compare(folder, digest, manifest)


main()
