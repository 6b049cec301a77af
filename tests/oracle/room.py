"""The room that everything runs in: one network and mount namespace, its names and certificates.

The addresses stand on lo but are not loopback addresses, because containerd treats those specially.
The silent addresses are routed into a cable whose other end takes nothing.
"""

import os
import subprocess

ZONE = "oracle.test"
SILENT = ("10.91.0.5", "10.91.0.6", "10.91.0.7")
NAME_SERVER = "10.90.0.53"

# Each name with its addresses in their order.
NAMES = {
    f"registry.{ZONE}": ["10.90.0.10"],
    f"two.{ZONE}": ["10.90.0.20", "10.90.0.21"],
    f"dead-first.{ZONE}": ["10.90.0.22", "10.90.0.23"],
    f"silent-first.{ZONE}": ["10.91.0.5", "10.90.0.25"],
    f"foreign-first.{ZONE}": ["10.90.0.26", "10.90.0.27"],
    f"all-dead.{ZONE}": ["10.90.0.28"],
    f"storage.{ZONE}": ["10.90.0.12"],
    f"auth.{ZONE}": ["10.90.0.14"],
    f"mirror-a.{ZONE}": ["10.90.0.15"],
    f"mirror-b.{ZONE}": ["10.90.0.16"],
    f"dead.{ZONE}": ["10.90.0.19"],
    f"proxy.{ZONE}": ["10.90.0.31"],
    f"silent.{ZONE}": ["10.91.0.6"],
}
# Below the registry's own name and below each mirror's, storage may stand.
SUBDOMAIN_ADDRESS = "10.90.0.11"
for _name in list(NAMES):
    NAMES["blobs." + _name] = [SUBDOMAIN_ADDRESS]

PROXY_NAME = f"proxy.{ZONE}"
# A registry may stand at an address: these, and for the usual ports of http and https one of its own for each pull.
LOOPBACK, LOOPBACK_6, PRIVATE, PRIVATE_6 = "127.0.0.3", "::1", "10.92.0.1", "fd00:92::1"
OWN = 24
OWN_LOOPBACK, OWN_PRIVATE = "127.0.80.{}", "10.92.80.{}"
IPS = (LOOPBACK, LOOPBACK_6, PRIVATE, PRIVATE_6, *(pool.format(number) for pool in (OWN_LOOPBACK, OWN_PRIVATE) for number in range(1, OWN + 1)))
# Names that stand for loopback, and one that only name servers know.
ON_LOOPBACK = f"on-loopback.{ZONE}"
NAMED = f"named.{ZONE}"
LOCAL_NAMES = {"localhost": ["127.0.0.1"], ON_LOOPBACK: ["127.0.0.9"]}
NAMED_ADDRESS = "10.90.0.30"

# A name that neither the hosts file nor the name server knows.
ABSENT = f"absent.{ZONE}"


def sh(*command, timeout=60, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, **options)


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def certify(folder):
    """Makes the authority, the servers' certificate and the one of a foreign server."""
    ca, key = f"{folder}/ca.pem", f"{folder}/ca.key"
    sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key)
    sh("openssl", "req", "-x509", "-new", "-key", key, "-subj", "/CN=oracle lab authority", "-days", "3650",
       "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", ca)
    sh("openssl", "req", "-x509", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{folder}/other.key", "-subj", "/CN=another authority", "-days", "3650",
       "-out", f"{folder}/other.pem")
    for stem, names in (("server", [*sorted(NAMES), *LOCAL_NAMES, NAMED, "blobs." + NAMED, "named"]), ("foreign", ["elsewhere.example"])):
        own, request, extensions = f"{folder}/{stem}.key", f"{folder}/{stem}.csr", f"{folder}/{stem}.ext"
        sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", own)
        sh("openssl", "req", "-new", "-key", own, "-subj", f"/CN={names[0]}", "-out", request)
        write(extensions, "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName="
              + ",".join(["DNS:" + name for name in names] + ["IP:" + one for one in IPS if stem == "server"]) + "\n")
        sh("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "365",
           "-extfile", extensions, "-out", f"{folder}/{stem}.pem")


def furnish(folder, trusted="", more=()):
    """Sets up addresses, names and trust in the namespace that this process is in.

    `trusted` is what the bundle has beside the room's own authority, `more` are other addresses.
    """
    os.makedirs(folder, exist_ok=True)
    certify(folder)
    sh("ip", "link", "set", "lo", "up")
    for addresses in NAMES.values():
        for address in addresses:
            if address not in SILENT:
                sh("ip", "addr", "replace", address + "/32", "dev", "lo")
    for address in (NAMED_ADDRESS, PRIVATE, *more):
        sh("ip", "addr", "replace", address + ("/128" if ":" in address else "/32"), "dev", "lo")
    sh("ip", "addr", "replace", PRIVATE_6 + "/128", "dev", "lo")
    # Each address of these is here.
    sh("ip", "route", "replace", "local", OWN_PRIVATE.format("0") + "/24", "dev", "lo")
    sh("ip", "link", "add", "void0", "type", "veth", "peer", "name", "void1")
    sh("ip", "link", "set", "void0", "arp", "off", "up")
    sh("ip", "link", "set", "void1", "arp", "off", "up")
    sh("ip", "addr", "replace", "10.90.0.2/32", "dev", "void0")
    for address in SILENT:
        sh("ip", "route", "replace", address + "/32", "dev", "void0", "src", "10.90.0.2")
    write("/proc/sys/net/ipv4/ip_local_port_range", "10000 19999")
    write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
    empty_run()
    hosts = "".join(f"{address} {name}\n" for name, addresses in (LOCAL_NAMES | NAMES).items() for address in addresses)
    bind(write(f"{folder}/hosts", hosts), "/etc/hosts")
    bind(write(f"{folder}/resolv.conf", f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:1\n"), "/etc/resolv.conf")
    trust = f"{folder}/certs"
    os.makedirs(trust, exist_ok=True)
    with open(f"{folder}/ca.pem", encoding="utf-8") as file:
        write(f"{trust}/ca-certificates.crt", file.read() + trusted)
    sh("mount", "--bind", trust, "/etc/ssl/certs")


def empty_run():
    """No runtime of this machine is visible here by its socket; the place for one's own is there."""
    resolver = os.path.realpath("/etc/resolv.conf")
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.makedirs("/run/containerd")
    if resolver.startswith("/run/"):
        os.makedirs(os.path.dirname(resolver), exist_ok=True)
        write(resolver, "")


def bind(source, target):
    sh("mount", "--bind", source, os.path.realpath(target))
