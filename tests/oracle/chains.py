"""Certificates of every shape, written byte by byte, because no tool makes the wrong ones.

`KINDS` says for each value of the dimension "tls" what a server shows and how it speaks; what a node
has to trust for it is in `Kind.trusted`. Keys and signatures come from openssl.
"""

import dataclasses
import functools
import hashlib
import os
import ssl
import tempfile

from room import IPS, LOCAL_NAMES, NAMED, NAMES, ZONE, sh

HOUR = 3600
DAY = 24 * HOUR
OIDS = {
    "CN": "2.5.4.3", "O": "2.5.4.10", "san": "2.5.29.17", "basic": "2.5.29.19", "usage": "2.5.29.15", "purpose": "2.5.29.37",
    "names": "2.5.29.30", "subject": "2.5.29.14", "issuer": "2.5.29.35", "odd": "1.3.6.1.4.1.55555.1.1",
}
PURPOSES = {"server": "1.3.6.1.5.5.7.3.1", "client": "1.3.6.1.5.5.7.3.2", "any": "2.5.29.37.0", "code": "1.3.6.1.5.5.7.3.3"}
# The algorithm of a signature: object identifier, parameters, and the option of openssl for it.
NULL = b"\x05\x00"
SIGNATURES = {
    ("rsa", "sha256"): ("1.2.840.113549.1.1.11", NULL), ("rsa", "sha384"): ("1.2.840.113549.1.1.12", NULL),
    ("rsa", "sha512"): ("1.2.840.113549.1.1.13", NULL), ("rsa", "sha1"): ("1.2.840.113549.1.1.5", NULL),
    ("rsa", "md5"): ("1.2.840.113549.1.1.4", NULL),
    ("ec", "sha256"): ("1.2.840.10045.4.3.2", b""), ("ec", "sha384"): ("1.2.840.10045.4.3.3", b""),
    ("ec", "sha512"): ("1.2.840.10045.4.3.4", b""), ("ec", "sha1"): ("1.2.840.10045.4.1", b""), ("ed", "sha256"): ("1.3.101.112", b""),
}


# --- DER ---

def tlv(tag, *parts):
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(size)]) + size + body


def seq(*parts):
    return tlv(0x30, *parts)


def oid(text):
    first, second, *rest = map(int, text.split("."))
    out = bytearray()
    for arc in (first * 40 + second, *rest):
        packed = [arc & 127]
        while arc := arc >> 7:
            packed.append(arc & 127 | 128)
        out += bytes(reversed(packed))
    return tlv(6, bytes(out))


def integer(number):
    return tlv(2, number.to_bytes((number.bit_length() if number >= 0 else (number + 1).bit_length()) // 8 + 1, "big", signed=True))


def moment(seconds):
    import time
    return tlv(0x17, time.strftime("%y%m%d%H%M%SZ", time.gmtime(seconds)).encode())


def name(text, tag=0x0C, organisation="Oracle Lab"):
    parts = [("O", organisation)] if organisation else []
    parts += [("CN", text)] if text else []
    return seq(*(tlv(0x31, seq(oid(OIDS[kind]), tlv(tag, value.encode()))) for kind, value in parts))


def extension(kind, body, critical=False):
    return seq(oid(OIDS[kind]), b"\x01\x01\xff" if critical else b"", tlv(4, body))


def alternative(entry):
    import ipaddress
    kind, _, value = entry.partition(":")
    if kind == "IP":
        return tlv(0x87, ipaddress.ip_address(value).packed)
    return tlv({"DNS": 0x82, "email": 0x81, "URI": 0x86}[kind], value.encode())


def constraint(entry):
    """One base of a name constraint."""
    import ipaddress
    kind, _, value = entry.partition(":")
    if kind == "IP":
        net = ipaddress.ip_network(value)
        return seq(tlv(0x87, net.network_address.packed + net.netmask.packed))
    return seq(tlv({"DNS": 0x82, "email": 0x81}[kind], value.encode()))


def usage_bits(kinds):
    bits = {"digital": 0x80, "encipher": 0x20, "cert": 0x04, "crl": 0x02}
    byte = sum(bits[kind] for kind in kinds)
    unused = (byte & -byte).bit_length() - 1
    return tlv(3, bytes([unused, byte]))


def pem(der, label="CERTIFICATE"):
    import base64
    text = base64.b64encode(der).decode()
    return f"-----BEGIN {label}-----\n" + "\n".join(text[at:at + 64] for at in range(0, len(text), 64)) + f"\n-----END {label}-----\n"


# --- keys ---

def kept_keys():
    """Where keys are kept from run to run, for long ones take their time."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", "/root"), ".cache")
    path = os.path.join(os.environ.get("PULLPATH_CACHE") or os.path.join(base, "pullpath"), "oracle-keys")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


class Key:
    """A private key of openssl, made at its first use of all runs."""

    SPECS = {"p256": ("EC", "ec_paramgen_curve:P-256"), "p384": ("EC", "ec_paramgen_curve:P-384"), "p521": ("EC", "ec_paramgen_curve:P-521"),
             "p224": ("EC", "ec_paramgen_curve:P-224"), "k1": ("EC", "ec_paramgen_curve:secp256k1"), "ed25519": ("ED25519", None), "ed448": ("ED448", None),
             **{f"rsa{bits}": ("RSA", f"rsa_keygen_bits:{bits}") for bits in (768, 1023, 1024, 1536, 2048, 4096)},
             "pss2048": ("RSA-PSS", "rsa_keygen_bits:2048")}

    def __init__(self, kind, number):
        self.kind, self.path = kind, os.path.join(kept_keys(), f"{kind}-{number}.key")
        algorithm, option = self.SPECS[kind]
        if not os.path.exists(self.path):
            own = f"{self.path}.{os.getpid()}"
            sh("openssl", "genpkey", "-algorithm", algorithm, *(["-pkeyopt", option] if option else []), "-out", own, timeout=600)
            os.rename(own, self.path)
        self.public = sh("openssl", "pkey", "-in", self.path, "-pubout", "-outform", "DER").stdout
        self.identifier = hashlib.sha1(self.public).digest()

    @property
    def family(self):
        return {"p": "ec", "k": "ec", "e": "ed", "r": "rsa"}[self.kind[0]] if self.kind != "pss2048" else "rsa"

    def algorithm(self, digest, pss):
        if pss or self.kind == "pss2048":
            hashed = seq(oid("2.16.840.1.101.3.4.2.1"), NULL)
            return seq(oid("1.2.840.113549.1.1.10"), seq(tlv(0xA0, hashed), tlv(0xA1, seq(oid("1.2.840.113549.1.1.8"), hashed)), tlv(0xA2, integer(32))))
        number, parameters = SIGNATURES[self.family, digest]
        if self.kind == "ed448":
            number = "1.3.101.113"
        return seq(oid(number), parameters)

    def sign(self, data, digest, pss):
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            if self.family == "ed":
                command = ["pkeyutl", "-sign", "-rawin", "-inkey", self.path, "-in", file.name]
            else:
                more = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"] if pss or self.kind == "pss2048" else []
                command = ["dgst", "-" + digest, *more, "-sign", self.path, file.name]
            return sh("openssl", *command).stdout


@dataclasses.dataclass
class Certificate:
    """A certificate and its key."""

    der: bytes
    key: Key
    subject: bytes

    @property
    def pem(self):
        return pem(self.der)


class Workshop:
    """Makes the certificates of one room; each kind at its first use."""

    def __init__(self, folder):
        import time
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.now = int(time.time())
        self.serial = self.now

    @functools.cache
    def key(self, kind="p256", number=0):
        return Key(kind, number)

    def certificate(self, subject, issuer=None, *, key="p256", number=0, ca=False, basic=True, path=None, usage=None, purposes=None, san=None,
                    start=-DAY, end=365 * DAY, digest="sha256", pss=False, serial=None, constraints=None, version=3, odd=False,
                    tag=0x0C, issuer_name=None, critical_basic=True, identifiers=True, spoilt=False, organisation="Oracle Lab"):
        """A certificate; by itself signed where there is no issuer."""
        own = self.key(key, number)
        signer = issuer.key if issuer else own
        if serial is None:
            self.serial += 1
            serial = self.serial
        subject_der = subject if isinstance(subject, bytes) else name(subject, tag, organisation)
        extensions = []
        if basic and (ca or basic == "always"):
            extensions.append(extension("basic", seq(b"\x01\x01\xff" if ca else b"", integer(path) if path is not None else b""), critical_basic))
        usage = (("cert", "crl") if ca else ("digital", "encipher")) if usage is None else usage
        if usage:
            extensions.append(extension("usage", usage_bits(usage), True))
        purposes = (() if ca else ("server",)) if purposes is None else purposes
        if purposes:
            extensions.append(extension("purpose", seq(*(oid(PURPOSES[one]) for one in purposes))))
        if san:
            extensions.append(extension("san", seq(*map(alternative, san))))
        if constraints:
            permitted, excluded = constraints
            extensions.append(extension("names", seq(tlv(0xA0, *map(constraint, permitted)) if permitted else b"",
                                                     tlv(0xA1, *map(constraint, excluded)) if excluded else b""), True))
        if identifiers:
            extensions.append(extension("subject", tlv(4, own.identifier)))
            if issuer:
                extensions.append(extension("issuer", seq(tlv(0x80, signer.identifier))))
        if odd:
            extensions.append(extension("odd", tlv(4, b"what is this"), True))
        algorithm = signer.algorithm(digest, pss)
        body = seq(tlv(0xA0, integer(2)) if version == 3 else b"", integer(serial), algorithm,
                   issuer_name or (issuer.subject if issuer else subject_der), seq(moment(self.now + start), moment(self.now + end)),
                   subject_der, own.public, tlv(0xA3, seq(*extensions)) if version == 3 and extensions else b"")
        signature = signer.sign(body, digest, pss)
        if spoilt:
            signature = signature[:-4] + bytes(byte ^ 0x21 for byte in signature[-4:])
        return Certificate(seq(body, algorithm, tlv(3, b"\0", signature)), own, subject_der)

    @functools.cache
    def kind(self, value):
        """What a server of this kind shows, and what is to be trusted for it."""
        return KINDS[value](self)

    def root(self, value, **more):
        return self.certificate(titled("root", value), ca=True, number=1, **more)

    def leaf(self, issuer, **more):
        more.setdefault("san", SAN)
        return self.certificate(f"registry.{ZONE}", issuer, number=3, **more)

    @functools.cache
    def client_root(self):
        return self.certificate("oracle client authority", ca=True, number=8)

    @functools.cache
    def client_files(self):
        """Certificate and key of a client, as client.pem and client.key; its authority as clients.pem."""
        made = self.certificate("a node", self.client_root(), number=9, purposes=("client",))
        for name, text in (("client.pem", made.pem), ("clients.pem", self.client_root().pem)):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        with open(made.key.path, "rb") as source, open(os.path.join(self.folder, "client.key"), "wb") as file:
            file.write(source.read())

    def save(self, value):
        """Writes what servers of this kind need into the folder, for `context`; the PEM of what is to be trusted."""
        if value in RAW:
            return ""
        made = self.kind(value)
        stem = os.path.join(self.folder, value)
        with open(stem + ".pem", "w", encoding="utf-8") as file:
            file.write("".join(one.pem for one in made.served))
        with open(made.served[0].key.path, "rb") as source, open(stem + ".key", "wb") as file:
            file.write(source.read())
        authority = made.trusted or made.authority
        with open(stem + ".ca", "w", encoding="utf-8") as file:
            file.write("".join(one.pem for one in authority))
        return "".join(one.pem for one in made.trusted)


ZONE_NAMES = tuple("DNS:" + one for one in sorted(NAMES))
SAN = tuple("DNS:" + one for one in (*sorted(NAMES), *LOCAL_NAMES, NAMED, "named")) + tuple("IP:" + one for one in IPS)


def titled(kind, value):
    """The common name of an authority."""
    return f"oracle {kind} for {value.replace('_', ' ')}"


class Raw:
    """A server that speaks no TLS of its own: sends `data` at the first bytes of a client, then ends so."""

    def __init__(self, data=b"", ending="end", at_once=False):
        self.data, self.ending, self.at_once = data, ending, at_once


@dataclasses.dataclass
class Kind:
    """`served` in this order, the key is that of the first; `trusted` goes into the bundle, `authority` only into a `ca` file."""

    served: list
    trusted: list
    authority: list = dataclasses.field(default_factory=list)


def context(folder, value):
    """The ssl.SSLContext of a saved kind, or its Raw."""
    if value in RAW:
        return RAW[value]
    special = HANDSHAKES.get(value, {})
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_ciphers(special.get("ciphers", "ALL") + ":@SECLEVEL=0")
    made.load_cert_chain(os.path.join(folder, value + ".pem"), os.path.join(folder, value + ".key"))
    made.minimum_version = special.get("least", V.TLSv1_2)
    made.maximum_version = special.get("most", V.MAXIMUM_SUPPORTED)
    if "curves" in special:
        made.set_ecdh_curve(special["curves"])
    if value.startswith("client_wanted"):
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(os.path.join(folder, "clients.pem"))
    return made


V = ssl.TLSVersion
# --- the kinds ---

KINDS = {}


def kind(*names):
    def add(function):
        for one in names:
            KINDS[one] = functools.partial(function, value=one)
        return function
    return add


def through(shop, value, leaf=None, middle=None, root=None, send_middle=True):
    """Root, intermediate and leaf, with what is special about each."""
    top = shop.root(value, **(root or {}))
    between = shop.certificate(titled("intermediate", value), top, ca=True, number=2, **(middle or {}))
    end = shop.leaf(between, **(leaf or {}))
    return Kind([end, between] if send_middle else [end], [top])


def direct(shop, value, leaf=None, root=None):
    top = shop.root(value, **(root or {}))
    return Kind([shop.leaf(top, **(leaf or {}))], [top])


LEAVES = {
    "key_rsa2048": {"key": "rsa2048"}, "key_rsa4096": {"key": "rsa4096"}, "key_p384": {"key": "p384"}, "key_p521": {"key": "p521"},
    "key_ed25519": {"key": "ed25519"}, "key_rsa1024": {"key": "rsa1024"}, "key_rsa768": {"key": "rsa768"}, "key_rsa1023": {"key": "rsa1023"}, "key_rsa1536": {"key": "rsa1536"},
    "key_p224": {"key": "p224"},
    "key_secp256k1": {"key": "k1"}, "key_pss": {"key": "pss2048"}, "key_ed448": {"key": "ed448"},
    "expired": {"start": -90 * DAY, "end": -3 * DAY}, "not_yet_valid": {"start": 3 * DAY},
    "wrong_name": {"san": ("DNS:elsewhere.example",)}, "cn_only": {"san": ()}, "wildcard": {"san": (f"DNS:*.{ZONE}", f"DNS:*.registry.{ZONE}")},
    "wildcard_too_high": {"san": ("DNS:*.test",)}, "wildcard_partial": {"san": (f"DNS:*egistry.{ZONE}", f"DNS:mirror*.{ZONE}", f"DNS:*.{ZONE.upper()}x")},
    "wildcard_second_label": {"san": ("DNS:registry.*.test", "DNS:mirror-a.*.test")}, "wildcard_alone": {"san": ("DNS:*",)},
    "upper_case_name": {"san": tuple(one.replace("DNS:registry", "DNS:REGISTRY").replace("DNS:mirror", "DNS:Mirror") for one in SAN)},
    "trailing_dot_name": {"san": tuple(f"DNS:{one}." for one in sorted(NAMES))},
    "ip_as_dns": {"san": tuple("DNS:" + one for one in (*IPS, *(address for addresses in NAMES.values() for address in addresses)))},
    "address_only": {"san": tuple("IP:" + one for one in IPS)},
    "purpose_client": {"purposes": ("client",)}, "purpose_none": {"purposes": ()}, "purpose_any": {"purposes": ("any",)},
    "no_usage": {"usage": ()}, "usage_encipher_only": {"usage": ("encipher",), "key": "rsa2048"},
    "unknown_critical": {"odd": True}, "negative_serial": {"serial": -5}, "serial_zero": {"serial": 0}, "serial_long": {"serial": 1 << 190},
    "bad_signature": {"spoilt": True}, "other_issuer_bytes": {"issuer_name": "printable"}, "invalid_issuer": {"issuer_name": "invalid"},
    "version_1_leaf": {"version": 1},
    "no_identifiers": {"identifiers": False}, "leaf_is_ca": {"ca": True, "usage": ("digital", "cert"), "purposes": ("server",)},
    "long_life": {"end": 3000 * DAY}, "email_name": {"san": (*SAN, "email:someone@oracle.test", "URI:https://oracle.test/x")},
}
MIDDLES = {
    "intermediate_sent": {}, "intermediate_missing": {}, "intermediate_expired": {"start": -90 * DAY, "end": -2 * DAY},
    "intermediate_not_ca": {"basic": "always", "ca": False, "purposes": (), "usage": ("digital", "cert")},
    "intermediate_no_basic": {"basic": False}, "intermediate_no_certsign": {"usage": ("crl", "digital")},
    "intermediate_purpose_client": {"purposes": ("client",)}, "intermediate_purpose_server": {"purposes": ("server", "client")},
    "intermediate_sha1": {"digest": "sha1"}, "intermediate_rsa1024": {"key": "rsa1024"}, "intermediate_future": {"start": 2 * DAY},
    "intermediate_unknown_critical": {"odd": True}, "intermediate_bad_signature": {"spoilt": True},
    "constraints_permit": {"constraints": (["DNS:" + ZONE], [])},
    "constraints_forbid": {"constraints": ([], ["DNS:" + ZONE])}, "constraints_permit_other": {"constraints": (["DNS:example.com"], [])},
    "constraints_dot": {"constraints": (["DNS:." + ZONE], [])},
    "constraints_other_kind": {"constraints": (["email:oracle.test"], [])},
    "intermediate_version_1": {"version": 1},
}
ROOTS = {
    "root_expired": {"start": -900 * DAY, "end": -2 * DAY}, "root_no_basic": {"basic": False}, "root_no_certsign": {"usage": ("crl",)},
    "root_no_usage": {"usage": ()}, "root_pathlen_0": {"path": 0}, "root_version_1": {"version": 1}, "root_not_ca": {"ca": False, "basic": "always",
    "usage": ("cert",)},
    "root_constraints_forbid": {"constraints": ([], ["DNS:" + ZONE])}, "root_rsa1024": {"key": "rsa1024"}, "root_sha1_self": {"digest": "sha1"},
    "root_negative_serial": {"serial": -9}, "root_purpose_client": {"purposes": ("client",)}, "root_future": {"start": 2 * DAY},
    "root_p521": {"key": "p521"}, "root_rsa4096": {"key": "rsa4096"},
}


@kind(*LEAVES)
def _leaf(shop, value):
    special = dict(LEAVES[value])
    if special.get("issuer_name") == "printable":
        special["issuer_name"] = name(titled("root", value), 0x13)
    elif special.get("issuer_name") == "invalid":
        special["issuer_name"] = name(titled("root", value).replace(" ", "_"), 0x13)
    return direct(shop, value, leaf=special)


@kind(*MIDDLES)
def _middle(shop, value):
    special = dict(MIDDLES[value])
    leaf = {"san": ZONE_NAMES} if value.startswith("constraints") else {}
    if special.get("ca") is False:
        del special["ca"]
        top = shop.root(value)
        between = shop.certificate(titled("intermediate", value), top, number=2, **special)
        return Kind([shop.leaf(between), between], [top])
    return through(shop, value, leaf=leaf, middle=special, send_middle=value != "intermediate_missing")


@kind(*ROOTS)
def _root(shop, value):
    special = dict(ROOTS[value])
    ca = special.pop("ca", True)
    top = shop.certificate(titled("root", value), ca=ca, number=1, **({"purposes": ()} | special))
    if value == "root_pathlen_0":
        between = shop.certificate(titled("intermediate", value), top, ca=True, number=2)
        return Kind([shop.leaf(between), between], [top])
    return Kind([shop.leaf(top)], [top])


@kind("sig_sha1", "sig_md5", "sig_rsa_sha256", "sig_rsa_sha512", "sig_pss", "sig_p384_sha384", "sig_ecdsa_sha1", "sig_ed25519")
def _signature(shop, value):
    root = {"sig_p384_sha384": "p384", "sig_ecdsa_sha1": "p256", "sig_ed25519": "ed25519"}.get(value, "rsa2048")
    digest = {"sig_sha1": "sha1", "sig_md5": "md5", "sig_rsa_sha512": "sha512", "sig_p384_sha384": "sha384", "sig_ecdsa_sha1": "sha1"}.get(value, "sha256")
    return direct(shop, value, root={"key": root}, leaf={"digest": digest, "pss": value == "sig_pss"})


@kind("untrusted_root", "root_sent_too", "unrelated_sent", "wrong_order", "duplicates_sent", "huge", "too_huge", "other_root_same_name")
def _shape(shop, value):
    made = through(shop, value)
    end, between = made.served
    if value == "untrusted_root":
        made.trusted, made.authority = [], made.trusted
    elif value == "root_sent_too":
        made.served.append(made.trusted[0])
    elif value == "other_root_same_name":
        made.trusted = [shop.certificate(titled("root", value), ca=True, number=7)]
    elif value == "unrelated_sent":
        made.served = [end, shop.certificate("unrelated authority", ca=True, number=6), between]
    elif value == "wrong_order":
        made.served = [end, made.trusted[0], between]
    elif value == "duplicates_sent":
        made.served = [end, end, between, between]
    else:
        count = 20 if value == "huge" else 90
        padding = tuple(f"DNS:padding-{number:03}.{'x' * 50}.example" for number in range(20))
        made.served += [shop.certificate(f"padding {number}", ca=True, number=6, san=padding) for number in range(count)]
    return made


@kind("self_signed", "self_signed_trusted", "self_signed_ca_trusted", "leaf_trusted_itself", "leaf_trusted_expired", "leaf_trusted_wrong_name",
      "ingress_default", "intermediate_trusted_itself")
def _itself(shop, value):
    if value.startswith("self_signed"):
        end = shop.certificate(f"oracle itself for {value}", number=4, san=SAN, **({"ca": True, "purposes": ("server",)} if "_ca_" in value else {}))
        return Kind([end], [] if value == "self_signed" else [end], [end])
    if value == "ingress_default":
        end = shop.certificate("Kubernetes Ingress Controller Fake Certificate", number=4, san=("DNS:ingress.local",), organisation="Acme Co", key="rsa2048")
        return Kind([end], [], [end])
    made = through(shop, value, leaf={"leaf_trusted_expired": {"start": -90 * DAY, "end": -DAY},
                                      "leaf_trusted_wrong_name": {"san": ("DNS:elsewhere.example",)}}.get(value))
    # Its authority is not trusted; the certificate itself is in the bundle.
    made.trusted = [made.served[1 if value.startswith("intermediate") else 0]]
    return made


@kind("cross_signed_new_root", "cross_signed_old_root", "cross_signed_both", "cross_signed_old_expired_first")
def _crossed(shop, value):
    """A new root that an old, expired one has signed too; both certificates have the same name and key."""
    subject = f"oracle new root for {value}"
    old = shop.certificate(f"oracle old root for {value}", ca=True, number=5, start=-3000 * DAY, end=-20 * DAY)
    new = shop.certificate(subject, ca=True, number=1)
    crossed = shop.certificate(subject, old, ca=True, number=1, start=-800 * DAY, end=300 * DAY)
    between = shop.certificate(titled("intermediate", value), new, ca=True, number=2)
    served = [shop.leaf(between), between, crossed]
    if value.endswith("first"):
        served.append(old)
    trusted = {"cross_signed_new_root": [new], "cross_signed_old_root": [old], "cross_signed_both": [old, new]}.get(value, [new, old])
    return Kind(served, trusted)


HANDSHAKES = {
    "client_wanted": {}, "client_wanted_12": {"most": V.TLSv1_2},
    "tls12_only": {"most": V.TLSv1_2}, "tls13_only": {"least": V.TLSv1_3}, "tls11_only": {"least": V.TLSv1_1, "most": V.TLSv1_1},
    "tls10_only": {"least": V.TLSv1, "most": V.TLSv1},
    "cbc_sha_only": {"most": V.TLSv1_2, "ciphers": "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA"},
    "cbc_sha256_only": {"most": V.TLSv1_2, "ciphers": "ECDHE-RSA-AES128-SHA256"},
    "cbc_sha384_only": {"most": V.TLSv1_2, "ciphers": "ECDHE-RSA-AES256-SHA384"},
    "chacha_only": {"most": V.TLSv1_2, "ciphers": "ECDHE-RSA-CHACHA20-POLY1305"},
    "rsa_exchange_only": {"most": V.TLSv1_2, "ciphers": "AES128-GCM-SHA256"},
    "rsa_exchange_cbc_only": {"most": V.TLSv1_2, "ciphers": "AES256-SHA:AES128-SHA"},
    "dhe_only": {"most": V.TLSv1_2, "ciphers": "DHE-RSA-AES128-GCM-SHA256"},
    "ccm_only": {"most": V.TLSv1_2, "ciphers": "AES128-CCM:AES256-CCM"},
    "curve_p521_only": {"curves": "secp521r1"}, "curve_x25519_only": {"curves": "X25519"}, "curve_x448_only": {"curves": "X448"},
    "curve_p256_only": {"curves": "prime256v1"},
}


@kind(*HANDSHAKES)
def _handshake(shop, value):
    return direct(shop, value, leaf={"key": "rsa2048"})


def alert(number):
    return bytes([0x15, 3, 3, 0, 2, 2, number])


def unasked_protocol():
    """A ServerHello of TLS 1.2 that selects h2, which no client offered."""
    selected = b"\x00\x10\x00\x05\x00\x03\x02h2"
    extensions = selected + b"\xff\x01\x00\x01\x00"
    body = b"\x03\x03" + bytes(range(32)) + b"\x00" + b"\xc0\x2f" + b"\x00" + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


RAW = {
    "alpn_h2_unasked": Raw(unasked_protocol(), "stay"), "alpn_refused": Raw(alert(120)), "alert_handshake": Raw(alert(40)),
    "alert_name": Raw(alert(112)), "alert_internal": Raw(alert(80)), "alert_version": Raw(alert(70)), "alert_denied": Raw(alert(49)),
    "closes": Raw(), "resets": Raw(ending="reset"), "hangs": Raw(ending="stay"),
    "plain_http": Raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    "ssh": Raw(b"SSH-2.0-OpenSSH_9.2\r\n", "stay", at_once=True),
    "page_of_port": Raw(b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://portal.example/\r\nContent-Length: 0\r\n\r\n"),
}
