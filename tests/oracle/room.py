"""The room that everything runs in: one network and mount namespace, its names and certificates.

The addresses stand on lo but are not loopback addresses, because containerd treats those specially.
The silent addresses are routed into a cable whose other end takes nothing.
"""

import os
import socket
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
    f"silent.{ZONE}": ["10.91.0.6"],
}
# Below the registry's own name and below each mirror's, storage may stand.
SUBDOMAIN_ADDRESS = "10.90.0.11"
for _name in list(NAMES):
    NAMES["blobs." + _name] = [SUBDOMAIN_ADDRESS]

# A name that neither the hosts file nor the name server knows.
ABSENT = f"absent.{ZONE}"


def sh(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, **options)


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
    for stem, names in (("server", sorted(NAMES)), ("foreign", ["elsewhere.example"])):
        own, request, extensions = f"{folder}/{stem}.key", f"{folder}/{stem}.csr", f"{folder}/{stem}.ext"
        sh("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", own)
        sh("openssl", "req", "-new", "-key", own, "-subj", f"/CN={names[0]}", "-out", request)
        write(extensions, "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName="
              + ",".join("DNS:" + name for name in names) + "\n")
        sh("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "365",
           "-extfile", extensions, "-out", f"{folder}/{stem}.pem")


def furnish(folder):
    """Sets up addresses, names and trust in the namespace that this process is in."""
    os.makedirs(folder, exist_ok=True)
    certify(folder)
    sh("ip", "link", "set", "lo", "up")
    for addresses in NAMES.values():
        for address in addresses:
            if address not in SILENT:
                sh("ip", "addr", "replace", address + "/32", "dev", "lo")
    sh("ip", "addr", "replace", NAME_SERVER + "/32", "dev", "lo")
    sh("ip", "link", "add", "void0", "type", "veth", "peer", "name", "void1")
    sh("ip", "link", "set", "void0", "arp", "off", "up")
    sh("ip", "link", "set", "void1", "arp", "off", "up")
    sh("ip", "addr", "replace", "10.90.0.2/32", "dev", "void0")
    for address in SILENT:
        sh("ip", "route", "replace", address + "/32", "dev", "void0", "src", "10.90.0.2")
    write("/proc/sys/net/ipv4/ip_local_port_range", "10000 19999")
    write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
    hosts = "127.0.0.1 localhost\n" + "".join(
        f"{address} {name}\n" for name, addresses in NAMES.items() for address in addresses)
    bind(write(f"{folder}/hosts", hosts), "/etc/hosts")
    bind(write(f"{folder}/resolv.conf", f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:1\n"), "/etc/resolv.conf")
    trust = f"{folder}/certs"
    os.makedirs(trust, exist_ok=True)
    with open(f"{folder}/ca.pem", encoding="utf-8") as file:
        write(f"{trust}/ca-certificates.crt", file.read())
    sh("mount", "--bind", trust, "/etc/ssl/certs")


def bind(source, target):
    sh("mount", "--bind", source, os.path.realpath(target))


def answer_names(stop):
    """A name server that knows no name; runs in a thread until `stop` is set."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NAME_SERVER, 53))
        server.settimeout(0.5)
        while not stop.is_set():
            try:
                question, peer = server.recvfrom(1500)
            except TimeoutError:
                continue
            # The same identification and question, as an authoritative answer: no such name.
            end = question.find(b"\0", 12) + 5
            server.sendto(question[:2] + b"\x85\x83\0\x01\0\0\0\0\0\0" + question[12:end], peer)
