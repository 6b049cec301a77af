"""Image content of every shape, made again for each judge so that no digest is seen twice."""

import base64
import gzip
import hashlib
import io
import json
import random
import tarfile
import zlib

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"

# One byte more than the runtimes read of a top-level manifest, and some.
TOO_LARGE = 4_400_000


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def zstd_stored(data):
    """A zstd frame of raw blocks, which needs no compressor."""
    out = bytearray(b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little"))
    blocks = [data[at:at + 65536] for at in range(0, len(data), 65536)] or [b""]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        out += (len(block) << 3 | last).to_bytes(3, "little") + block
    return bytes(out)


def encode(data, coding):
    """The bytes of a content coding, as a server sends them."""
    if coding == "gzip":
        return gzip.compress(data, mtime=0)
    if coding == "deflate":
        return zlib.compress(data)
    if coding == "raw-deflate":
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(data) + packer.flush()
    if coding == "zstd":
        return zstd_stored(data)
    return data


def tar_of(name, content):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o644
        tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class Image:
    """The blobs and manifests of one image.

    `top` is the digest that the tag leads to; `manifests` holds the media type of each manifest;
    `own` is the manifest of the platform that is pulled, `config` and `layers` are its blobs.
    """

    def __init__(self, values, salt, foreign_urls):
        self.values = values
        self.random = random.Random(salt)
        self.salt = salt
        self.foreign_urls = foreign_urls
        self.blobs, self.manifests, self.withheld = {}, {}, set()
        self.config, self.layers, self.own = None, [], None
        self.top = self._build(values["image"])

    def _blob(self, data):
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    def _manifest(self, document, media_type):
        data = document if isinstance(document, bytes) else json.dumps(document, indent=1).encode()
        digest = self._blob(data)
        self.manifests[digest] = media_type
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def _layers(self, docker):
        """Descriptors of the layers and the digests of their tars."""
        content = self.values["content"]
        count = 0 if content == "zero_layers" else int(self.values["layers"])
        descriptors, diffs = [], []
        for number in range(count):
            size = self.random.choice((900, 4_000, 20_000, 60_000))
            tar = tar_of(f"file-{number}", self.random.randbytes(size))
            media_type, data = DOCKER_LAYER if docker else OCI_LAYER, gzip.compress(tar, 1, mtime=0)
            if content == "tar":
                media_type, data = media_type.removesuffix("+gzip").removesuffix(".gzip"), tar
            elif content == "zstd":
                media_type, data = "application/vnd.oci.image.layer.v1.tar+zstd", zstd_stored(tar)
            elif content == "other_vendor":
                media_type = OCI_LAYER if docker else DOCKER_LAYER
            elif content == "unknown_type":
                media_type = "application/vnd.example.layer.v1.tar+gzip"
            elif content == "encrypted":
                media_type += "+encrypted"
            elif content == "no_archive":
                data = self.random.randbytes(size)
            elif content == "wrong_diff_ids":
                tar += b"\0" * 512
            if content == "duplicate_layer" and number == 1:
                descriptors.append(dict(descriptors[0]))
                diffs.append(diffs[0])
                continue
            descriptor = {"mediaType": media_type, "digest": self._blob(data), "size": len(data)}
            if number == count - 1:
                if content == "size_above":
                    descriptor["size"] += 512
                elif content == "size_below":
                    descriptor["size"] -= 100
                elif content.startswith("foreign_"):
                    descriptor["mediaType"] = DOCKER_FOREIGN
                    descriptor["urls"] = [url + descriptor["digest"] for url in self.foreign_urls]
                    if content != "foreign_urls_dead_but_kept":
                        self.withheld.add(descriptor["digest"])
            descriptors.append(descriptor)
            diffs.append(digest_of(tar))
        return descriptors, diffs

    def _config(self, diffs, architecture="amd64", docker=False):
        document = {
            "architecture": architecture, "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": {"Labels": {"salt": self.salt}, "Cmd": ["/file-0"]},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": [{"created_by": "oracle"} for _ in diffs],
        }
        if self.values["content"] == "config_of_other_platform":
            document["architecture"] = "arm64"
        if self.values["content"] == "config_without_rootfs":
            del document["rootfs"]
        data = json.dumps(document).encode()
        descriptor = {"mediaType": DOCKER_CONFIG if docker else OCI_CONFIG, "digest": self._blob(data), "size": len(data)}
        if self.values["content"] == "config_size_wrong":
            descriptor["size"] += 40
        return descriptor

    def _image(self, docker=False, own=True, architecture="amd64", extra=None):
        """A manifest with its config and layers; `own` is the one that is pulled."""
        descriptors, diffs = self._layers(docker)
        config = self._config(diffs, architecture, docker)
        document = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST, "config": config, "layers": descriptors}
        document.update(extra or {})
        if self.values["image"] == "too_large":
            document["annotations"] = {"padding": "x" * TOO_LARGE}
        if own:
            self.config, self.layers = config["digest"], [layer["digest"] for layer in descriptors]
        entry = self._manifest(document, document["mediaType"])
        if own:
            self.own = entry["digest"]
        return entry

    def _artifact(self, config_type, layer_type, extra=None):
        layers = []
        for _ in range(int(self.values["layers"])):
            data = gzip.compress(tar_of("chart", self.random.randbytes(2_000)), mtime=0)
            if config_type == OCI_CONFIG:
                data = json.dumps({"critical": {"identity": self.random.random()}}).encode()
            layers.append({"mediaType": layer_type, "digest": self._blob(data), "size": len(data)})
        config = json.dumps({"name": self.salt}).encode()
        if config_type == OCI_CONFIG:
            config = json.dumps({"architecture": "", "os": "", "config": {"Labels": {"salt": self.salt}}, "history": [{}],
                                 "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}).encode()
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                    "config": {"mediaType": config_type, "digest": self._blob(config), "size": len(config)},
                    "layers": layers, **(extra or {})}
        self.config, self.layers = digest_of(config), [layer["digest"] for layer in layers]
        entry = self._manifest(document, OCI_MANIFEST)
        self.own = entry["digest"]
        return entry["digest"]

    def _attestation(self, subject):
        """What a build tool adds beside each image."""
        statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "salt": self.salt, "of": subject}).encode()
        config = json.dumps({"architecture": "unknown", "os": "unknown", "salt": self.salt, "rootfs": {"type": "layers", "diff_ids": [digest_of(statement)]}}).encode()
        entry = self._manifest({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": self._blob(config), "size": len(config)},
            "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": self._blob(statement), "size": len(statement)}],
        }, OCI_MANIFEST)
        entry["annotations"] = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject}
        entry["platform"] = {"os": "unknown", "architecture": "unknown"}
        return entry

    def _index(self, entries, docker=False, extra=None):
        media_type = DOCKER_LIST if docker else OCI_INDEX
        document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries, "annotations": {"salt": self.salt}}
        if docker:
            del document["annotations"]
        document.update(extra or {})
        return self._manifest(document, media_type)

    def _schema_1(self):
        """The oldest form: history and signature within the manifest."""
        descriptors, _ = self._layers(docker=True)
        history, parent = [], None
        for number, _ in enumerate(descriptors):
            link = {"id": hashlib.sha256(f"{self.salt}{number}".encode()).hexdigest(), "created": "2015-01-01T00:00:00Z",
                    "architecture": "amd64", "os": "linux", "container_config": {"Cmd": ["/file-0"]}, "config": {"Cmd": ["/file-0"]}}
            if parent:
                link["parent"] = parent
            parent = link["id"]
            history.insert(0, {"v1Compatibility": json.dumps(link)})
        self.layers = [layer["digest"] for layer in descriptors]
        payload = json.dumps({
            "schemaVersion": 1, "name": "team/app", "tag": "1.0", "architecture": "amd64",
            "fsLayers": [{"blobSum": layer["digest"]} for layer in reversed(descriptors)], "history": history,
        }, indent=3).encode()
        tail = b"\n}"

        def plain(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        protected = plain(json.dumps({"formatLength": len(payload) - len(tail), "formatTail": plain(tail), "time": "2015-01-01T00:00:00Z"}).encode())
        signature = {"header": {"jwk": {"crv": "P-256", "kid": "LAB", "kty": "EC", "x": plain(b"x" * 32), "y": plain(b"y" * 32)}, "alg": "ES256"},
                     "signature": plain(b"s" * 64), "protected": protected}
        whole = payload[:-len(tail)] + b',\n   "signatures": ' + json.dumps([signature]).encode() + tail
        # The digest is that of the payload; what is served has the signature too.
        digest = digest_of(payload)
        self.blobs[digest], self.manifests[digest] = whole, SCHEMA_1
        self.own = digest
        return digest

    def _build(self, kind):
        """The digest that the tag leads to."""
        amd64, arm64 = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}
        builders = {
            "single_oci": lambda: self._image()["digest"],
            "too_large": lambda: self._image()["digest"],
            "single_docker": lambda: self._image(docker=True)["digest"],
            "helm": lambda: self._artifact("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
            "wasm": lambda: self._artifact("application/vnd.wasm.config.v0+json", "application/wasm"),
            "signature": lambda: self._artifact(OCI_CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json"),
            "artifact_type": lambda: self._artifact(EMPTY_JSON, "application/vnd.example.data.v1", extra={"artifactType": "application/vnd.example.thing.v1"}),
            "schema_1": self._schema_1,
            "no_json": lambda: self._manifest(b"no JSON: " + self.salt.encode(), OCI_MANIFEST)["digest"],
            "empty_index": lambda: self._index([])["digest"],
        }
        if kind in builders:
            return builders[kind]()
        docker = kind == "docker_list"
        if kind == "attestations_only":
            return self._index([self._attestation(digest_of(self.salt.encode()))])["digest"]
        other = {**self._image(docker, own=False, architecture="arm64"), "platform": arm64}
        if kind == "foreign_only":
            return self._index([other, {**self._image(own=False), "platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1"}}])["digest"]
        own = self._image(docker)
        if self.values["content"] == "child_size_wrong":
            own["size"] += 3
        if kind == "child_missing":
            self.withheld.add(own["digest"])
        own["platform"] = amd64
        entries = [other, own]
        if kind == "no_platform":
            entries = [{key: value for key, value in own.items() if key != "platform"}]
        elif kind == "attested":
            entries = [own, other, self._attestation(own["digest"]), self._attestation(other["digest"])]
        elif kind == "variants":
            entries = [{**own, "platform": {**amd64, "variant": "v1"}}, other]
        elif kind == "variant_only":
            entries = [other, {**own, "platform": {**amd64, "variant": "v3"}}]
        elif kind == "nested_index":
            inner = self._index([own, other])
            entries = [{**inner, "platform": amd64}]
        return self._index(entries, docker)["digest"]
