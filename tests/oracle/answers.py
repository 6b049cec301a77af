"""What each host of a world answers to one judge.

A site has its own ports and its own content. The host that the drawn faults are at is the registry, or
the first mirror before a good registry. Each fault that has its turn is noted in the site's log.
"""

import base64
import json
import time

from images import (DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, Image, digest_of, encode)
import names
from room import (ABSENT, LOCAL_NAMES, LOOPBACK, LOOPBACK_6, NAMED, NAMED_ADDRESS, NAMES, ON_LOOPBACK, OWN_LOOPBACK, OWN_PRIVATE, PRIVATE, PRIVATE_6, ZONE)
from proxies import Proxy
from servers import Reply, Servers
from worlds import whole

USER, PASSWORD, WRONG = "ann", "pw-good-71", "pw-stale-13"
REPOSITORY, TAG = "team/app", "1.0"
JSON = ("Content-Type", "application/json")
PAGE = b"<!doctype html><html><head><title>Sign in - Oracle portal</title></head><body>Please sign in.</body></html>"
HTML = ("Content-Type", "text/html; charset=utf-8")
HOST_OF = {"one": "registry", "two": "two", "dead_first": "dead-first", "silent_first": "silent-first",
           "foreign_first": "foreign-first", "all_dead": "all-dead"}
REDIRECTS = ("relative", "other_port", "subdomain", "other_host", "http")
# The ports of a site, from its first one.
MAIN, OTHER, PLAIN, NOTHING, PROXY = 0, 1, 2, 3, 4
PORTS = 5
# The places where a registry without a name of its own stands.
PLACES = {"localhost": "localhost", "loopback": LOOPBACK, "loopback_6": LOOPBACK_6, "named_loopback": ON_LOOPBACK, "private": PRIVATE, "private_6": PRIVATE_6}


def errors(code, message):
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def refusal(status):
    """A registry's answer of an error status, without a challenge."""
    codes = {400: "NAME_INVALID", 401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 405: "UNSUPPORTED",
             416: "BLOB_UNKNOWN", 429: "TOOMANYREQUESTS"}
    return Reply(status, [JSON], errors(codes.get(status, "UNKNOWN"), "the oracle's lab says so"))


def page(status=200):
    return Reply(status, [HTML], PAGE)


class Site:
    """The servers of one world for one judge."""

    PLAIN, NOTHING, PROXY = PLAIN, NOTHING, PROXY

    def __init__(self, world, judge, salt, base, contexts, number=None):
        self.values = whole(world["values"])
        self.chain = world.get("texts", {}).get("tls", self.values["tls"])
        self.main = base + MAIN
        self.judge, self.base, self.contexts = judge, base, contexts
        self.log, self.counters, self.tokens = [], {}, {}
        self.began = time.monotonic()
        self.last = self.began
        v = self.values
        self._stand(v, number)
        self.faulty = "registry" if v["faults_at"] == "registry" else "mirror_a"
        self.names = {"registry": self.registry_name, "mirror_a": f"mirror-a.{ZONE}", "mirror_b": f"mirror-b.{ZONE}"}
        urls = [self.url(f"storage.{ZONE}") + "/foreign/"]
        if v["content"].startswith("foreign_urls_dead"):
            urls = [self.url(f"dead.{ZONE}") + "/foreign/"]
        self.image = Image(v, salt, urls)
        self.servers = Servers(self.answer, self.note)
        self.proxy = None
        if v["streams"] == "one_connection":
            self.servers.single.add(self.faulty)
        self.streaming = 0

    # --- where things are ---

    def _stand(self, v, number):
        """Name, addresses and port of the registry."""
        self.registry_name = f"{HOST_OF[v['addresses']]}.{ZONE}"
        self.addresses = NAMES[self.registry_name]
        self.plaintext = v["scheme"] != "https" or v["place"].endswith("_plain")
        if v["resolver"] != "hosts_file" or v["edited"].startswith("resolver_"):
            self.registry_name = "named" if v["resolver"] in names.SHORT else NAMED
            self.addresses = [NAMED_ADDRESS]
        elif v["place"] != "name":
            place = v["place"].rpartition("_")[0]
            self.registry_name = PLACES[place]
            if number is not None:
                self.registry_name = (OWN_LOOPBACK if place == "loopback" else OWN_PRIVATE).format(number)
                self.main = int(v["port"])
            self.addresses = LOCAL_NAMES.get(self.registry_name, [self.registry_name])
        self.address = self.addresses[0]

    def url(self, name, port=MAIN, scheme=None):
        at_registry = name == self.registry_name and port == MAIN
        host = f"[{name}]" if ":" in name else name
        number = self.main if at_registry else self.base + port
        return f"{scheme or ('http' if at_registry and self.plaintext else 'https')}://{host}:{number}"

    def tls(self, role):
        """The TLS of a host, by what is drawn."""
        at = {"host": self.faulty, "realm": "auth", "storage": "storage"}[self.values["tls_at"]]
        return self.contexts(self.chain if role == at and self.values["tls"] != "good" else "good")

    @property
    def host(self):
        """The name of the host that the faults are at."""
        return self.names[self.faulty]

    @property
    def authority(self):
        host = f"[{self.registry_name}]" if ":" in self.registry_name else self.registry_name
        return host if self.main == 443 else f"{host}:{self.main}"

    @property
    def reference(self):
        v = self.values["reference"]
        top = self.image.top
        name = f"{self.authority}/{REPOSITORY}"
        return {
            "tag": f"{name}:{TAG}", "digest": f"{name}@{top}", "tag_and_digest": f"{name}:{TAG}@{top}",
            "missing_tag": f"{name}:9.9", "missing_digest": f"{name}@{digest_of(top.encode())}",
        }[v]

    def credentials(self):
        """The kubelet's tries in order; `None` is a pull without an AuthConfig."""
        return {"none": [None], "other_host": [None], "good": [(USER, PASSWORD)], "bad": [(USER, WRONG)],
                "bad_then_good": [(USER, WRONG), (USER, PASSWORD)]}[self.values["secret"]]

    def docker_config(self):
        """The docker config in the pod's Secret, or None where the pod has no Secret."""
        def entry(password):
            return {"username": USER, "password": password, "auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}

        auths = {
            "none": None, "good": {self.authority: entry(PASSWORD)}, "bad": {self.authority: entry(WRONG)},
            "other_host": {f"elsewhere.{ZONE}": entry(PASSWORD)},
            "bad_then_good": {self.authority: entry(PASSWORD), f"{self.authority}/team": entry(WRONG)},
        }[self.values["secret"]]
        return None if auths is None else json.dumps({"auths": auths})

    def hosts_toml(self):
        """hosts.toml of the registry, or None where containerd's defaults do."""
        v = self.values
        if v["mirrors"] == "none" and v["scheme"] == "https":
            return None
        lines = []
        if v["server_line"] == "present" or v["scheme"] != "https":
            lines.append(f'server = "{self.url(self.registry_name)}"')
        capabilities = {"both": '["pull", "resolve"]', "pull": '["pull"]', "resolve": '["resolve"]'}
        path = {"plain": "", "prefix": "/hub", "override": "/hub/v2", "missing_override": "/v2/hub"}[v["mirror_path"]]
        for mirror in ("mirror_a", "mirror_b")[:{"none": 0, "one": 1, "two": 2}[v["mirrors"]]]:
            name = {"dead": f"dead.{ZONE}", "silent": f"silent.{ZONE}"}.get(v[mirror], self.names[mirror])
            lines.append(f'[host."{self.url(name)}{path if mirror == "mirror_a" else ""}"]')
            lines.append(f"  capabilities = {capabilities[v['mirror_capabilities'] if mirror == 'mirror_a' else 'both']}")
            if mirror == "mirror_a" and v["mirror_path"] == "override":
                lines.append("  override_path = true")
        if v["scheme"] == "http":
            # A server line alone is not enough for every version.
            lines.append(f'[host."{self.url(self.registry_name)}"]')
            lines.append(f"  capabilities = {capabilities['both']}")
        return "\n".join(lines) + "\n"

    async def start(self):
        listen, v = self.servers.listen, self.values
        good = self.contexts("good")
        main = None if self.plaintext else self.tls("registry")
        serving = {"one": [0], "two": [0, 1], "dead_first": [1], "silent_first": [1], "foreign_first": [1], "all_dead": []}
        for number in serving[v["addresses"]]:
            await listen("registry", self.addresses[number], self.main, main)
            await listen("registry_other", self.addresses[number], self.base + OTHER, self.tls("registry"))
        if v["addresses"] == "foreign_first":
            await listen("foreign", self.addresses[0], self.main, None if self.plaintext else self.contexts("foreign"))
        for role, name, ports in (("storage", "storage", (MAIN, PLAIN)), ("auth", "auth", (MAIN, OTHER, PLAIN)),
                                  ("mirror_a", "mirror-a", (MAIN,)), ("mirror_a_other", "mirror-a", (OTHER,)),
                                  ("mirror_b", "mirror-b", (MAIN,)), ("sub", "blobs.registry", (MAIN,))):
            for port in ports:
                context = None if port == PLAIN else self.tls(role.removesuffix("_other")) if port in (MAIN, OTHER) else good
                await listen(role, NAMES[f"{name}.{ZONE}"][0], self.base + port, context)
        if v["hosts_file"] != "drawn" or v["config_file"] != "own_version":
            await listen("mirror_a", NAMES[f"mirror-a.{ZONE}"][0], self.base + PLAIN, None)
        if v["proxy"] not in ("none", "down", "silent", "absent_name"):
            self.proxy = Proxy(v["proxy"], self.note_proxy, self.contexts, {NAMED: NAMED_ADDRESS, "named": NAMED_ADDRESS})
            await self.proxy.start(self.base + PROXY)

    async def stop(self):
        await self.servers.close()
        if self.proxy is not None:
            await self.proxy.close()

    # --- the log ---

    def note(self, role, request, reply):
        now = time.monotonic()
        self.last = now
        entry = {"at": round(now - self.began, 3), "host": role}
        if request is None:
            entry.update(line="connection refused", fired=["streams=one_connection"])
        else:
            authorization = request.headers.get("authorization", "")
            entry.update(line=f"{request.method} {request.target[:200]}", status=reply.status, fired=request.fired)
            if authorization:
                entry["auth"] = authorization.split(" ")[0]
            if "range" in request.headers:
                entry["range"] = request.headers["range"]
            if reply.ending:
                entry["ending"] = reply.ending
        self.log.append(entry)

    def note_proxy(self, line, refused):
        self.last = time.monotonic()
        self.log.append({"at": round(self.last - self.began, 3), "host": "proxy", "line": line[:200], "fired": [f"proxy={self.values['proxy']}"] * refused})

    def forget(self):
        """What came before the pull itself is no part of it."""
        self.log.clear()
        self.began = self.last = time.monotonic()

    def fired(self):
        """The drawn faults that had their turn, in the order of their first one."""
        found = []
        for entry in self.log:
            found += [fault for fault in entry["fired"] if fault not in found]
        return found

    def count(self, key):
        self.counters[key] = self.counters.get(key, 0) + 1
        return self.counters[key]

    def drawn(self, request, dimension):
        """The value of a dimension, noted as fired where it is not the usual one."""
        value = self.values[dimension]
        if value not in ("ok", "right", "no", "none", "usual", "honoured", "nobody", "full", "allowed", "any", "good",
                         "bearer"):
            request.fire(f"{dimension}={value}")
        return value

    # --- the hosts ---

    def answer(self, role, request):
        path = request.path
        if role == "auth" or path.startswith("/token"):
            return self.token_service(request)
        if role == "foreign":
            return refusal(404)
        if path.startswith("/foreign/"):
            return self.plain_blob(request, path.rpartition("/")[2])
        if path.startswith("/store/"):
            return self.storage(role, request)
        role = role.removesuffix("_other")
        if role == "mirror_a":
            stripped = self.strip(request, path)
            if stripped is None:
                request.fire("mirror_path=missing_override")
                return page()
            path = stripped
        if role != self.faulty and role.startswith("mirror"):
            return self.mirror(role, request, path)
        return self.registry(role, request, path)

    def strip(self, request, path):
        """The path below the mirror's own prefix, or None where only its web pages are."""
        prefix = {"plain": "", "prefix": "/hub", "override": "/hub", "missing_override": None}[self.values["mirror_path"]]
        if prefix is None:
            return None
        return path.removeprefix(prefix)

    def parse(self, request, path):
        """(class, digest or tag) of a registry's request; the class is None where there is no such thing."""
        if path.rstrip("/") == "/v2":
            return "ping", ""
        left, _, name = path.rpartition("/")
        if left == f"/v2/{REPOSITORY}/manifests":
            return ("head" if request.method == "HEAD" else "get"), name
        if left == f"/v2/{REPOSITORY}/blobs":
            if name == self.image.config:
                return "config", name
            return ("layer" if name in self.image.layers else "blob"), name
        return None, name

    def registry(self, role, request, path):
        faulty = role == self.faulty
        kind, name = self.parse(request, path)
        if kind is None:
            return refusal(404)
        if faulty:
            refused = self.challenge(request, kind)
            if refused is not None:
                return refused
        if kind == "ping":
            return Reply(200, [JSON, ("Docker-Distribution-API-Version", "registry/2.0")], b"{}")
        if faulty:
            moved = self.redirect(request, kind, name)
            if moved is not None:
                return moved
            return self.serve(request, kind, name)
        return self.plain(request, kind, name)

    def storage(self, role, request):
        """The hosts that a redirect leads to: /store/HOP/CLASS/NAME."""
        _, _, hop, kind, name = request.path.split("/", 4)
        where = self.values["challenge_on"]
        if role in ("storage", "sub") and (where == "storage_for_all" or where == "storage" and kind == "layer"):
            self.drawn(request, "challenge_on")
            refused = self.demand(request, "storage")
            if refused is not None:
                return refused
        if "signed" in request.query and "authorization" in request.headers:
            request.fire(f"layer_redirect={self.values['layer_redirect']}")
            return Reply(400, [("Content-Type", "application/xml")],
                         b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>")
        if request.query.get("signed") == ["get"] and request.method == "HEAD":
            request.fire("head_redirect=signed_for_get")
            return Reply(403, [("Content-Type", "application/xml")], b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if kind == "login":
            return page()
        if kind == "loop":
            return Reply(int(self.values["redirect_code"]), [("Location", request.target)])
        if int(hop) > 1:
            return Reply(int(self.values["redirect_code"]), [("Location", f"/store/{int(hop) - 1}/{kind}/{name}")])
        return self.serve(request, kind, name)

    def mirror(self, role, request, path):
        """A mirror that has only its own fault."""
        value = self.drawn(request, role)
        kind, name = self.parse(request, path)
        if value == "page":
            return page()
        if kind == "ping":
            return Reply(200, [JSON], b"{}")
        if value in ("401", "403", "500"):
            reply = refusal(int(value))
            if value == "401":
                reply.headers.append(("WWW-Authenticate", 'Basic realm="mirror"'))
            return reply
        tagged = kind in ("head", "get") and not name.startswith("sha256:")
        if value == "unknown_404" or (value == "tag_404" and tagged) or (value == "layer_404" and kind == "layer"):
            return refusal(404)
        reply = self.plain(request, kind, name)
        if kind == "layer" and value == "wrong_bytes":
            reply.body = bytes(byte ^ 0x5A for byte in reply.body)
        if kind == "layer" and value == "breaks":
            reply.sent, reply.ending = 0, "end"
        return reply

    # --- content ---

    def known(self, kind, name):
        """The digest that a name leads to, or None."""
        if kind in ("head", "get"):
            digest = self.image.top if name == TAG else name
            return digest if digest in self.image.manifests and digest not in self.image.withheld else None
        return name if name in self.image.blobs and name not in self.image.withheld else None

    def plain(self, request, kind, name):
        """A good registry's answer."""
        digest = self.known(kind, name)
        if digest is None:
            if kind in ("head", "get"):
                request.fire(f"reference={self.values['reference']}" if name not in self.image.blobs else f"image={self.values['image']}")
                return refusal(404)
            request.fire(f"content={self.values['content']}")
            return Reply(404, [JSON], errors("BLOB_UNKNOWN", "blob unknown to registry"))
        if kind in ("head", "get"):
            return Reply(200, [("Content-Type", self.image.manifests[digest]), ("Docker-Content-Digest", digest)], self.image.blobs[digest])
        return self.plain_blob(request, digest)

    def plain_blob(self, request, digest, whole=None):
        data = self.image.blobs.get(digest, b"") if whole is None else whole
        headers = [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes"), ("Docker-Content-Digest", digest)]
        part = self.range_of(request, len(data))
        if part is None:
            return Reply(200, headers, data)
        first, last = part
        headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
        return Reply(206, headers, data[first:last + 1])

    @staticmethod
    def range_of(request, size):
        text = request.headers.get("range", "")
        if not text.startswith("bytes="):
            return None
        first, _, last = text[6:].partition("-")
        if not first.isdigit() or int(first) >= size:
            return None
        return int(first), min(int(last), size - 1) if last.isdigit() else size - 1

    # --- redirects of the faulty host ---

    def redirect(self, request, kind, name):
        if kind == "config":
            where = "other_host" if self.values["config"] == "redirected" else "no"
            dimension = "config"
        elif kind in ("head", "get", "layer"):
            dimension = f"{kind}_redirect"
            if kind == "get" and self.values["head_redirect"] == "login":
                dimension = "head_redirect"
            where = self.values[dimension]
        else:
            return None
        if where == "no" or self.known(kind, name) is None:
            return None
        request.fire(f"{dimension}={self.values[dimension]}")
        code = int(self.values["redirect_code"])
        tail = f"/store/1/{kind}/{name}"
        storage, sub = self.url(f"storage.{ZONE}"), self.url("blobs." + self.host)
        locations = {
            "relative": tail, "other_port": self.url(self.host, OTHER) + tail, "subdomain": sub + tail,
            "other_host": storage + tail, "http": self.url(f"storage.{ZONE}", PLAIN, "http") + tail,
            "dead": self.url(f"dead.{ZONE}") + tail, "absent_name": self.url(ABSENT) + tail,
            "loop": storage + f"/store/1/loop/{name}", "login": storage + f"/store/1/login/{name}",
            "nine_hops": storage + f"/store/9/{kind}/{name}", "eleven_hops": storage + f"/store/11/{kind}/{name}",
            "signed_for_get": storage + tail + "?signed=get",
            "signed_other_host": storage + tail + "?signed=all&X-Amz-Signature=5f",
            "signed_subdomain": sub + tail + "?signed=all&X-Amz-Signature=5f",
            "signed_other_port": self.url(self.host, OTHER) + tail + "?signed=all&X-Amz-Signature=5f",
        }
        if where == "no_location":
            return Reply(code)
        return Reply(code, [("Location", locations[where])])

    # --- faults of the faulty host ---

    def serve(self, request, kind, name):
        if self.known(kind, name) is None:
            return self.plain(request, kind, name)
        if kind in ("head", "get"):
            return self.manifest(request, kind, self.known(kind, name))
        if kind == "config":
            return self.config(request, name)
        if kind == "layer":
            return self.layer(request, name)
        return self.plain_blob(request, name)

    def status_fault(self, request, dimension, key):
        """The answer of a drawn status, or None where the request goes on."""
        value = self.values[dimension]
        if value in ("ok", "206", "redirected", "gzip", "chunked", "resumable", "wrong_bytes", "truncated", "page", "empty"):
            return None
        if value.endswith("_first"):
            if self.count((dimension, key)) > (2 if value.startswith("429") else 1):
                return None
            request.fire(f"{dimension}={value}")
            return refusal(int(value[:3]))
        if value == "404_until_get" and self.counters.get("tag fetched"):
            return None
        request.fire(f"{dimension}={value}")
        if value in ("close", "reset", "stall"):
            return Reply(0, ending={"close": "end"}.get(value, value))
        return refusal(int(value[:3]))

    def manifest(self, request, kind, digest):
        v = self.values
        at = v["get_at"] if digest in (self.image.top, self.image.own) else "none"
        here = kind == "head" or at == "all" or (at == "top") == (digest == self.image.top)
        if kind == "get" and request.path.endswith("/" + TAG):
            self.count("tag fetched")
        if v["head"] == "page":
            request.fire("head=page")
            return page()
        if here:
            failed = self.status_fault(request, kind, digest)
            if failed is not None:
                return failed
        data, media_type = self.image.blobs[digest], self.image.manifests[digest]
        reply = Reply(200, [], data)
        kind_type = v["head_type"] if kind == "head" else (v["get_type"] if here else "right")
        if kind_type != "right":
            request.fire(f"{kind}_type={kind_type}")
        media_type = {
            "right": media_type, "charset": media_type + "; charset=utf-8", "missing": None, "text": "text/plain",
            "json": "application/json", "page": "text/html", "octets": "application/octet-stream",
            "other_kind": OCI_MANIFEST if media_type in (OCI_INDEX, DOCKER_LIST) else OCI_INDEX,
        }[kind_type]
        if media_type:
            reply.headers.append(("Content-Type", media_type))
        self.digest_header(request, kind, digest, reply)
        coding = v["manifest_coding"]
        if coding != "none" and (kind == "get" or coding == "gzip_with_head"):
            request.fire(f"manifest_coding={coding}")
            name = coding.removeprefix("false_").removeprefix("raw-").removesuffix("_with_head")
            reply.headers.append(("Content-Encoding", name))
            if coding != "false_gzip":
                reply.body = encode(data, coding.removesuffix("_with_head"))
        if kind == "head":
            length = self.drawn(request, "head_length")
            reply.length = {"right": None, "missing": "none", "chunked": "chunked", "zero": 0, "wrong": len(reply.body) + 7}[length]
            return reply
        return self.manifest_body(request, reply) if here else reply

    def digest_header(self, request, kind, digest, reply):
        value = self.values["head_digest"] if kind == "head" else "right"
        if value != "right":
            request.fire(f"head_digest={value}")
        header = {"right": digest, "missing": None, "wrong": digest_of(b"another"), "malformed": "sha256:12"}[value]
        if header:
            reply.headers.append(("Docker-Content-Digest", header))

    def manifest_body(self, request, reply):
        body, size = self.drawn(request, "get_body"), len(reply.body)
        reply.body = {
            "right": reply.body, "truncated": reply.body[:size // 2], "other_bytes": reply.body.replace(b"schemaVersion", b"schemaversion"),
            "page": PAGE, "empty": b"", "json_error": errors("UNKNOWN", "try again"), "longer": reply.body + b"\n \n",
        }[body]
        if body == "page":
            reply.headers = [HTML]
        length = self.drawn(request, "get_length")
        reply.length = {"right": None, "none": "none", "chunked": "chunked", "above": len(reply.body) + 30}[length]
        if length == "above":
            reply.ending = "end"
        return reply

    def config(self, request, digest):
        failed = self.status_fault(request, "config", digest)
        value = self.values["config"]
        if value == "reset":
            request.fire("config=reset")
            data = self.image.blobs[digest]
            return Reply(200, [("Content-Type", "application/octet-stream")], data, sent=len(data) // 2, ending="reset")
        if failed is not None:
            return failed
        value = self.drawn(request, "config")
        data = self.image.blobs[digest]
        reply = self.plain_blob(request, digest)
        if value == "wrong_bytes":
            reply.body = data.replace(b"amd64", b"riscv")
        elif value == "truncated":
            reply.body = data[:len(data) // 2]
        elif value == "page":
            return page()
        elif value == "empty":
            reply.body = b""
        elif value == "gzip":
            return Reply(200, [("Content-Type", "application/octet-stream"), ("Content-Encoding", "gzip")], encode(data, "gzip"))
        elif value == "chunked":
            reply.length = "chunked"
        elif value == "resumable" and reply.status == 200:
            reply.sent, reply.ending = len(data) // 2, "end"
        return reply

    def has_fault(self, digest):
        """Whether this layer is the one with the fault."""
        layers, where = self.image.layers, self.values["layer_at"]
        chosen = {"first": layers[0], "middle": layers[len(layers) // 2], "last": layers[-1]}
        return where == "all" or digest == chosen[where]

    def layer(self, request, digest):
        data = self.image.blobs[digest]
        crowded = self.crowd(request)
        if crowded is not None:
            return crowded
        part = self.range_of(request, len(data))
        if "range" in request.headers and self.values["layer_range"] != "honoured":
            value = self.drawn(request, "layer_range")
            if value == "ignored":
                part = None
            else:
                return refusal(int(value))
        if not self.has_fault(digest):
            return self.plain_blob(request, digest)
        failed = self.status_fault(request, "layer", digest)
        if failed is not None:
            return failed
        reply = self.plain_blob(request, digest) if part else Reply(
            200, [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes")], data)
        if self.values["layer"] == "206" and part is None:
            self.drawn(request, "layer")
            reply.status = 206
            reply.headers.append(("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}"))
        reply = self.layer_body(request, digest, data, part, reply)
        return self.layer_headers(request, part, reply)

    def layer_body(self, request, digest, data, part, reply):
        value, size = self.values["layer_body"], len(data)
        if value == "right":
            return reply
        request.fire(f"layer_body={value}")
        half = size // 2
        if value in ("page", "json"):
            return page() if value == "page" else Reply(200, [JSON], errors("UNKNOWN", "try again"))
        changed = {"wrong_bytes": bytes(byte ^ 0x5A for byte in reply.body), "empty": b"", "shorter": data[:half],
                   "longer": data + b"tail of another file"}
        if value in changed:
            reply.body = changed[value]
        elif value in ("reset", "stall"):
            reply.sent, reply.ending = len(reply.body) // 2, value
        elif value == "piecewise":
            # A third of the whole at a time, so that a few attempts get it all.
            if len(reply.body) > size // 3 + 1:
                reply.sent, reply.ending = size // 3 + 1, "end"
        elif part is None and "range" not in request.headers:
            reply.sent, reply.ending = (0 if value == "nothing_more" else half), "end"
        elif value == "range_ignored":
            return Reply(200, [("Content-Type", "application/octet-stream")], data)
        elif value == "range_refused":
            return refusal(416)
        elif value == "nothing_more":
            reply.sent, reply.ending = 0, "end"
        elif value == "wrong_range" and part is not None:
            return Reply(206, [("Content-Range", f"bytes 0-{size - 1}/{size}")], data)
        return reply

    def layer_headers(self, request, part, reply):
        value = self.values["layer_headers"]
        if value == "usual" or reply.status not in (200, 206):
            return reply
        request.fire(f"layer_headers={value}")
        if value == "no_length":
            reply.length = "none"
        elif value == "chunked":
            reply.length = "chunked"
        elif value == "page_type":
            reply.headers = [(name, content) for name, content in reply.headers if name != "Content-Type"] + [HTML]
        elif value == "range_noise" and part is None:
            reply.headers.append(("Content-Range", "bytes 17-16/5"))
        elif part is None and value != "range_noise":
            coding = value.removeprefix("false_").removeprefix("raw-")
            reply.headers.append(("Content-Encoding", coding))
            if value != "false_gzip":
                short = reply.sent is not None
                reply.body = encode(reply.body, value)
                reply.sent = len(reply.body) // 2 if short else None
        return reply

    def crowd(self, request):
        """Refuses a second layer while a first one is under way."""
        value = self.values["streams"]
        if value not in ("one_429", "one_503"):
            return None
        now = time.monotonic()
        busy = now < self.counters.get("busy until", 0)
        if busy:
            request.fire(f"streams={value}")
            return refusal(int(value[-3:]))
        self.counters["busy until"] = now + 0.4
        return None

    # --- challenges and tokens ---

    def challenge(self, request, kind):
        """The refusal of a request that needs a credential, or None."""
        where = self.values["challenge_on"]
        hidden = where == "hidden" and kind != "ping"
        asked = where in ("everything", "hidden") or where == kind or (where == "layers" and kind == "layer") \
            or (where == "ping_only" and kind == "ping")
        if not asked:
            return None
        self.drawn(request, "challenge_on")
        refused = self.demand(request, kind)
        if refused is not None and hidden and "authorization" not in request.headers:
            return refusal(404)
        return refused

    def demand(self, request, kind):
        """None where the request carries what is required, else the answer with the challenge."""
        v = self.values
        form = v["challenge"]
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        service = "content"
        if form == "differs_by_request":
            service = "head" if kind in ("head", "ping") else "content"
        elif form == "differs_for_layers":
            service = "layers" if kind == "layer" else "content"
        basic = form in ("basic", "negotiate_then_basic", "bearer_then_basic", "basic_then_bearer")
        error = None
        if scheme.lower() == "basic" and basic:
            if credential == base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
                return None
            request.fire(f"secret={v['secret']}")
        elif scheme.lower() == "bearer" and form not in ("basic", "negotiate_then_basic"):
            verdict = self.token_verdict(request, credential, service)
            if verdict is None:
                return None
            error = verdict
        elif v["secret"] in ("none", "other_host") and form in ("basic", "negotiate_then_basic"):
            request.fire(f"secret={v['secret']}")
        if error == "denied":
            return Reply(403, [JSON], errors("DENIED", "requested access to the resource is denied"))
        self.drawn(request, "challenge")
        status = 403 if form == "status_403" else 401
        return Reply(status, [JSON] + [("WWW-Authenticate", text) for text in self.challenges(form, service, error)],
                     errors("UNAUTHORIZED", "authentication required"))

    def realm(self):
        v = self.values["realm"]
        auth = f"auth.{ZONE}"
        return {
            "other_host": self.url(auth) + "/token", "same_host": self.url(self.host) + "/token",
            "other_port": self.url(self.host, OTHER) + "/token", "plain_http": self.url(auth, PLAIN, "http") + "/token",
            "dead": self.url(f"dead.{ZONE}") + "/token", "absent_name": self.url(ABSENT) + "/token",
            "silent": self.url(f"silent.{ZONE}") + "/token", "relative": "/token", "malformed": f"https://[{auth}/token",
        }[v]

    def challenges(self, form, service, error):
        """The values of WWW-Authenticate."""
        parts = [f'realm="{self.realm()}"', f'service="{service}"', f'scope="repository:{REPOSITORY}:pull"']
        if form == "no_realm":
            parts = parts[1:]
        elif form == "no_service":
            parts = [parts[0], parts[2]]
        elif form == "no_scope":
            parts = parts[:2]
        if form == "with_error" and error is None:
            error = "invalid_token"
        if error and error != "silent":
            parts.append(f'error="{error}"')
        bearer, basic = "Bearer " + ",".join(parts), 'Basic realm="oracle lab"'
        return {
            "lower_case": ["bearer " + ",".join(parts)], "basic": [basic], "negotiate_then_basic": ["Negotiate", basic],
            "bearer_then_basic": [bearer, basic], "basic_then_bearer": [basic, bearer],
            "two_bearers": [bearer, f'Bearer realm="{self.url("dead." + ZONE)}/token",service="second"'],
            "negotiate_only": ["Negotiate"], "digest_only": ['Digest realm="oracle lab", nonce="5f", qop="auth"'],
            "no_header": [], "malformed": [f'Bearer realm="{self.realm()},service={service}'],
        }.get(form, [bearer])

    def token_verdict(self, request, token, service):
        """None where the token is taken, else the `error=` of the refusal ("silent": none, "denied": a 403)."""
        record = self.tokens.get(token)
        if record is None:
            return "invalid_token"
        if record["insufficient"]:
            request.fire(f"anonymous={self.values['anonymous']}")
            return "insufficient_scope"
        if self.values["challenge"] in ("differs_by_request", "differs_for_layers") and record["service"] != service:
            request.fire(f"challenge={self.values['challenge']}")
            return "silent"
        grant = self.values["grant"]
        record["uses"] += 1
        bad = {
            "rejected_once": record["number"] == 1, "rejected_once_silently": record["number"] == 1,
            "rejected_always": True, "insufficient": True, "denied_403": True,
            "expires_with_error": record["uses"] > 2, "expires_silently": record["uses"] > 2,
        }.get(grant, False)
        if not bad:
            return None
        request.fire(f"grant={grant}")
        return {"insufficient": "insufficient_scope", "denied_403": "denied", "rejected_once_silently": "silent",
                "expires_silently": "silent"}.get(grant, "invalid_token")

    def token_service(self, request):
        dimension = "token_post" if request.method == "POST" else "token_get"
        if request.path == "/token":
            answered = self.token_fault(request, dimension)
            if answered is not None:
                return answered
        form = request.query
        if request.method == "POST":
            form = self.form(request)
        given = self.given(request, form)
        insufficient = False
        if given == "bad":
            request.fire(f"secret={self.values['secret']}")
            return Reply(401, [JSON], errors("UNAUTHORIZED", "incorrect username or password"))
        if given == "none":
            anonymous = self.drawn(request, "anonymous")
            if anonymous == "refused":
                return Reply(401, [JSON], errors("UNAUTHORIZED", "authentication required"))
            insufficient = anonymous == "insufficient"
        number = len(self.tokens) + 1
        token = f"tok{number}." + digest_of(f"{self.base}{number}{self.began}".encode())[7:27]
        self.tokens[token] = {"insufficient": insufficient, "number": number, "uses": 0, "service": form.get("service", [""])[0]}
        fields = {"token": token, "access_token": token, "expires_in": 1 if self.values["grant"] == "short_expiry" else 300,
                  "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        value = self.values[dimension] if request.path == "/token" else "ok"
        if value == "token_only":
            request.fire(f"{dimension}={value}")
            del fields["access_token"]
        elif value == "access_token_only":
            request.fire(f"{dimension}={value}")
            del fields["token"]
        elif value == "no_token":
            request.fire(f"{dimension}={value}")
            fields = {"expires_in": 300}
        return Reply(200, [JSON], json.dumps(fields).encode())

    @staticmethod
    def form(request):
        from urllib.parse import parse_qs
        return parse_qs(request.body.decode("latin-1"))

    @staticmethod
    def given(request, form):
        """Which credential a token request carries: good, bad or none."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(text).decode().partition(":")
            except ValueError:
                return "bad"
        elif request.method == "POST" and "username" in form:
            user, password = form["username"][0], form.get("password", [""])[0]
        else:
            return "none"
        return "good" if (user, password) == (USER, PASSWORD) else "bad"

    def token_fault(self, request, dimension):
        value = self.values[dimension]
        if value in ("ok", "token_only", "access_token_only", "no_token"):
            return None
        request.fire(f"{dimension}={value}")
        if value == "garbage":
            return Reply(200, [JSON], b'{"token": "abc')
        if value.startswith("page_"):
            return page(int(value[5:]))
        if value in ("301", "302", "303", "307", "308"):
            return Reply(int(value), [("Location", self.url(f"auth.{ZONE}", OTHER) + "/token2")])
        return refusal(int(value))
