"""The files of one judge's node: hosts.toml, config.toml, the bundle, resolv.conf and the unit's environment.

Most worlds share one containerd and one certs.d. Where something holds from containerd's start on or is one
file for the whole process, the judge has a node of its own, in a mount namespace of its own.
"""

import base64
import os
import re
import shutil
import socket
import time

import chains
import config_texts
import hosts_texts
import names
import proxies
import runtime
from node import OWN
from room import NAMES, ZONE
from worlds import DIMENSIONS, is_usual

WORDS = re.compile("@([A-Z_0-9]+)@")
UNSHARE = ["unshare", "--mount", "--propagation", "private"]
BOTH = '  capabilities = ["pull", "resolve"]\n'
NONSENSE_PEM = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n"
UNIT = "/etc/systemd/system/containerd.service.d"
HOUR, HALF, TEN = 3600, 1800, 600


def member(world, dimension):
    """The text or certificate that a world has of a class, or None."""
    value = world["values"].get(dimension)
    if value is None or not DIMENSIONS[dimension][value].members:
        return None
    return world["texts"][dimension]


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Node:
    """What one judge finds. `site` has the URLs, `room` is the folder of the room."""

    def __init__(self, world, site, folder, room, shared_certs):
        self.world, self.values, self.site, self.folder, self.room = world, site.values, site, folder, room
        text = member(world, "hosts_file")
        self.hosts_text = None if text is None else hosts_texts.TEXTS[self.values["hosts_file"]][1][text]
        beyond = isinstance(self.hosts_text, dict) and not all(name.startswith("@AUTHORITY@/") for name in self.hosts_text)
        self.own = beyond or self.values["hosts_file"] == "deadly" or any(not is_usual(dimension, self.values[dimension]) for dimension in OWN)
        self.certs = os.path.join(folder, "certs.d") if self.own else shared_certs
        self.edited = self.values["edited"]
        self.written = {}

    # --- words of the texts ---

    def words(self):
        site = self.site
        mirror, tls = f"mirror-a.{ZONE}", os.path.join(self.room, "tls")
        plain = f"{mirror}:{site.base + site.PLAIN}"
        return {
            "REGISTRY": site.url(site.registry_name), "AUTHORITY": site.authority, "UPPER": site.authority.upper(), "NAME": site.registry_name,
            "PORT": str(site.main),
            "MIRROR": site.url(mirror), "MIRROR_B": site.url(f"mirror-b.{ZONE}"), "MIRROR_HOST": f"{mirror}:{site.base}", "PLAIN": "http://" + plain,
            "PLAIN_HOST": plain,
            "TLS_TO_PLAIN": "https://" + plain, "PLAIN_TO_TLS": f"http://{mirror}:{site.base}", "DEAD": site.url(f"dead.{ZONE}"), "FOLDER": self.folder,
            "CERTS": self.certs,
            **{name: os.path.join(self.folder, file) for name, file in
               (("CA", "ca.pem"), ("NONSENSE", "nonsense"), ("NONSENSE_PEM", "nonsense.pem"), ("EMPTY", "empty"), ("COMBINED", "combined.pem"), ("OTHER_KEY",
               "other.key"))},
            "CLIENT": os.path.join(tls, "client.pem"), "KEY": os.path.join(tls, "client.key"),
        }

    def fill(self, text):
        if isinstance(text, bytes):
            return WORDS.sub(lambda found: self.placeholders[found[1]], text.decode("latin-1")).encode("latin-1") if b"@" in text else text
        return WORDS.sub(lambda found: self.placeholders.get(found[1], found[0]), text)

    def put(self, path, text):
        """Writes a file, unless it is there with the same content; None is a folder."""
        path = os.path.join(self.folder, path)
        if text is None:
            os.makedirs(path, exist_ok=True)
            return
        data = text.encode() if isinstance(text, str) else text
        if self.written.get(path) == data:
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        self.written[path] = data
        self.fresh.append(path)

    # --- the files ---

    def _auxiliary(self):
        chain = member(self.world, "tls")
        authority = _read(os.path.join(self.room, "ca.pem"))
        path = os.path.join(self.room, "tls", f"{chain}.ca")
        if chain and os.path.exists(path):
            authority += _read(path)
        client, key = _read(self.placeholders["CLIENT"]), _read(self.placeholders["KEY"])
        self.placeholders.update(CA_TEXT=authority, CLIENT_TEXT=client, KEY_TEXT=key)
        for name, text in (("ca.pem", authority), ("nonsense", "nonsense\n"), ("nonsense.pem", NONSENSE_PEM), ("empty", ""), ("combined.pem", client + key),
                           ("other.key", _read(os.path.join(self.room, "server.key")))):
            self.put(name, text)

    def hosts(self, old):
        """The files below certs.d."""
        broken = f'server = "{self.placeholders["DEAD"]}"\n[host."{self.placeholders["DEAD"]}"]\n{BOTH}'
        if self.edited in ("hosts_mended_after", "hosts_broken_after") and old == (self.edited == "hosts_mended_after"):
            return {f"{self.site.authority}/hosts.toml": broken}
        text = self.site.hosts_toml() if self.hosts_text is None else self.hosts_text
        if text is None:
            return {}
        return text if isinstance(text, dict) else {"@AUTHORITY@/hosts.toml": text}

    def config(self, old, version):
        """config.toml and what it imports."""
        text = member(self.world, "config_file")
        if text is not None:
            files = config_texts.TEXTS[self.values["config_file"]][1][text]
            return files if "config.toml" in files else files[version[0]]
        usual = runtime.configuration(version, self.folder, self.certs)
        plugin = config_texts.CRI_2 if version.startswith("1.") else config_texts.CRI_3
        if self.edited in ("config_mended_after", "config_broken_after") and old == (self.edited == "config_mended_after"):
            usual += f'[{plugin}.registry.mirrors."{self.site.authority}"]\n  endpoint = ["{self.placeholders["MIRROR"]}"]\n'
        elif self.edited == "path_added_after" and old:
            usual = "\n".join(line for line in usual.split("\n") if "config_path" not in line)
        return {"config.toml": usual}

    def bundle(self, old):
        """The files of /etc/ssl/certs, or None where the room's do."""
        value, whole = self.values["bundle"], _read(os.path.join(self.room, "certs", "ca-certificates.crt"))
        if self.edited.startswith("ca_"):
            without = old == (self.edited != "ca_removed_after")
            return {"ca-certificates.crt": _read(os.path.join(self.room, "other.pem")) if without else whole}
        first = whole.split("-----END CERTIFICATE-----")[0]
        der = base64.b64decode("".join(first.split("\n")[1:]))
        return {
            "file": None, "in_folder": {"lab.pem": whole}, "with_noise": {"ca-certificates.crt": "# authorities\n" + NONSENSE_PEM + "words between\n" + whole},
            "crlf": {"ca-certificates.crt": whole.replace("\n", "\r\n")}, "absent": {}, "empty": {"ca-certificates.crt": ""}, "der": {"ca-certificates.crt": der},
            "by_ssl_cert_file": {"elsewhere/bundle.pem": whole}, "by_ssl_cert_dir": {"elsewhere/bundle.pem": whole},
            "ssl_cert_file_absent": {"ca-certificates.crt": whole},
        }[value]

    def variables(self, old):
        """The environment of containerd's unit."""
        found = {
            "by_ssl_cert_file": {"SSL_CERT_FILE": "/etc/ssl/certs/elsewhere/bundle.pem"}, "by_ssl_cert_dir": {"SSL_CERT_DIR": "/etc/ssl/certs/elsewhere"},
            "ssl_cert_file_absent": {"SSL_CERT_FILE": "/etc/no/such.pem"},
        }.get(self.values["bundle"], {})
        if self.edited in ("proxy_added_after", "proxy_removed_after"):
            if old == (self.edited == "proxy_removed_after"):
                down = proxies.url("down", 0, self.site.base + self.site.NOTHING)
                found = found | {"HTTPS_PROXY": down, "HTTP_PROXY": down}
            return found
        return found | proxies.environment(self.values, self.site)

    def resolv_conf(self, old):
        if self.edited in ("resolver_mended_after", "resolver_broken_after"):
            return names.BROKEN if old == (self.edited == "resolver_mended_after") else names.GOOD
        return names.FILES.get(self.values["resolver"])

    def write(self, version, old=False):
        """Puts all files in their place; those that are new or changed are returned."""
        self.fresh, self.placeholders = [], self.words()
        os.makedirs(self.folder, exist_ok=True)
        if self.own or self.hosts_text is not None:
            self._auxiliary()
        for name, text in self.hosts(old).items():
            self.put(os.path.join(self.certs, self.fill(name)), text if text is None else self.fill(text))
        if self.own:
            for name, text in self.config(old, version).items():
                self.put(name, self.fill(text))
            for name, text in (self.bundle(old) or {}).items():
                self.put(os.path.join("bundle", name), text)
            os.makedirs(os.path.join(self.folder, "bundle"), exist_ok=True)
            self.put("containerd.conf", self.drop_in(old))
            if self.resolv_conf(old) is not None:
                self.put("resolv.conf", self.resolv_conf(old))
        return self.fresh

    def drop_in(self, old):
        """A systemd drop-in with these variables."""
        lines = ["[Service]"]
        for name, value in self.variables(old).items():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
            lines.append(f'Environment="{name}={escaped}"')
        return "\n".join(lines) + "\n"

    # --- where it runs ---

    def mounts(self):
        """(source, target) of what the judge sees in other places."""
        found = []
        if self.bundle(False) is not None:
            found.append((os.path.join(self.folder, "bundle"), "/etc/ssl/certs"))
        if self.resolv_conf(False) is not None:
            found.append((os.path.join(self.folder, "resolv.conf"), os.path.realpath("/etc/resolv.conf")))
        return found

    def age(self, old_files, new_files, edited):
        """Files of before the start, the runtime's socket, and what was edited later: each with its time."""
        now = time.time()
        run = os.path.join(self.folder, "run")
        os.makedirs(run, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as sock:
            # The path of a socket is short: it is bound from within its folder.
            here = os.open(run, os.O_RDONLY)
            try:
                sock.bind(f"/proc/self/fd/{here}/containerd.sock")
            finally:
                os.close(here)
        for path in {*old_files, *new_files}:
            moment = now - (TEN if edited and path in new_files else HOUR)
            os.utime(path, (moment, moment))
        os.utime(os.path.join(run, "containerd.sock"), (now - HALF, now - HALF))
        return [(run, "/run/containerd")]

    # --- the options of the probe for it ---

    def seen_by_probe(self):
        """Its options, and (source, target) of what it sees besides: an edited node's files stand where nodes have them."""
        if self.edited == "before":
            return (["--containerd-config", os.path.join(self.folder, "config.toml"), "--proxy-from", os.path.join(self.folder, "containerd.conf")], [])
        return (["--proxy-from", f"{UNIT}/containerd.conf"], [(self.folder, "/etc/containerd"), (self.folder, UNIT)])

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.own:
            shutil.rmtree(os.path.join(self.certs, self.site.authority), ignore_errors=True)


def within(mounts, command, private_places=()):
    """The command in a mount namespace with these mounts; `private_places` get a file system of their own."""
    script = "".join(f"mkdir -p {place} && mount -t tmpfs tmpfs {place} && " for place in private_places)
    script += "".join(f"mkdir -p {target} && " for _, target in mounts if any(target.startswith(place) for place in private_places))
    script += "".join(f"mount --bind '{source}' '{target}' && " for source, target in mounts)
    return [*UNSHARE, "sh", "-c", script + 'exec "$@"', "sh", *command]


def contexts_of(room):
    """A server's TLS by the name of its kind: "good", "foreign", or one of chains.py."""
    from servers import tls
    found = {}

    def context(kind):
        if kind not in found:
            if kind in ("good", "foreign"):
                stem = os.path.join(room, {"good": "server", "foreign": "foreign"}[kind])
                found[kind] = tls(stem + ".pem", stem + ".key")
            else:
                found[kind] = chains.context(os.path.join(room, "tls"), kind)
        return found[kind]
    return context


def chains_of(worlds):
    """The certificates that these worlds need."""
    found = {member(world, "tls") for world in worlds} - {None}
    if any(world["values"].get("proxy") in ("inspects", "over_tls_untrusted") for world in worlds):
        found.add("untrusted_root")
    return sorted(found)


def make_old(folder):
    """Gives the files of a folder a time before that of every runtime's socket."""
    moment = time.time() - 24 * HOUR
    for name in os.listdir(folder):
        os.utime(os.path.join(folder, name), (moment, moment))


def addresses():
    """What the room has to be reachable by beside its names."""
    return [address for address in (*names.SERVERS.values(), names.DEAD_SERVER) if address not in sum(NAMES.values(), [])]
