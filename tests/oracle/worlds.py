"""The seeded generator of worlds.

A world is one value for each dimension; everything else follows from those. A value is usual,
mild (a pull should stand it) or harmful (it may break a pull). What a value needs of other dimensions
stands beside it. Values are drawn so that all of them come about equally often.
"""

import random

from node import NODE, NODE_SETTINGS, OWN, WIDE
from values import HARMFUL, MILD, USUAL, harmful, mild, usual

ASKED = ("everything", "head", "get", "config", "layers", "storage", "storage_for_all")
BEARER = ("bearer", "no_scope", "no_service", "lower_case", "bearer_then_basic", "two_bearers", "with_error", "differs_by_request")
WITH_BEARER = {"challenge_on": ASKED, "challenge": BEARER}
WITH_REALM = {**WITH_BEARER, "realm": ("other_host", "same_host", "other_port", "plain_http")}
POSTED = {**WITH_REALM, "secret": ("good",)}
GOTTEN = {**WITH_REALM, "secret": ("none", "other_host")}
GRANTED = {**WITH_REALM, "anonymous": ("allowed",)}
ALL_ASKED = {"challenge_on": ("everything",)}
BASIC = {"challenge_on": ASKED, "secret": ("good",), "anonymous": ("allowed",)}
TOKEN_TAKEN = {"challenge_on": ("everything",), "challenge": ("bearer",), "realm": ("other_host", "same_host"),
               "grant": ("full",), "anonymous": ("allowed",), "secret": ("none", "good")}
INDEX = ("index", "docker_list", "no_platform", "attested", "variants")
OCI = ("index", "single_oci", "attested", "variants", "no_platform")
WITH_LAYERS = {"image": (*OCI, "single_docker", "docker_list", "nested_index", "schema_1", "helm", "wasm", "signature", "artifact_type", "too_large"),
               "content": ("usual", "tar", "zstd", "other_vendor", "config_of_other_platform", "unknown_type", "encrypted", "wrong_diff_ids",
                           "no_archive", "size_above", "size_below", "foreign_urls_good", "duplicate_layer", "child_size_wrong")}
REDIRECTED = ("relative", "other_port", "subdomain", "other_host", "http")
MIRRORED = {"mirrors": ("one", "two"), "faults_at": ("registry",)}
TWO_MIRRORS = {"mirrors": ("two",)}
FIRST_BYTE = {"layer": ("ok",)}

PROTOCOL = {
    # What is requested, and where it is.
    "reference": usual("tag") | mild("digest", "tag_and_digest") | harmful("missing_tag", "missing_digest"),
    "scheme": usual("https") | mild("http", "http_server_line"),
    "addresses": usual("one") | mild("two", "dead_first") | harmful("foreign_first", "all_dead")
    | harmful("silent_first", timed=True),
    # Who asks for a credential, and how.
    "challenge_on": usual("nobody") | mild("ping_only", "everything", "head", "get", "config", "layers")
    | mild("storage", needs={"layer_redirect": ("other_host", "subdomain")})
    | mild("storage_for_all", needs={dimension: ("other_host", "subdomain") for dimension in ("head_redirect", "get_redirect", "layer_redirect")})
    | harmful("hidden"),
    "challenge": usual("bearer")
    | mild("basic", "negotiate_then_basic", needs=BASIC)
    | mild("bearer_then_basic", "basic_then_bearer", "two_bearers", "lower_case", "no_service", "no_scope", "with_error",
           "differs_by_request", needs={"challenge_on": ASKED})
    | harmful("status_403", "negotiate_only", "digest_only", "no_header", "malformed", "no_realm",
              needs={"challenge_on": ASKED})
    | harmful("differs_for_layers", needs={"challenge_on": ("everything",)}),
    "realm": usual("other_host") | mild("same_host", "other_port", "plain_http", needs=WITH_BEARER)
    | harmful("dead", "absent_name", "relative", "malformed", needs=WITH_BEARER)
    | harmful("silent", needs=WITH_BEARER, timed=True),
    "token_post": usual("ok") | mild("access_token_only", "401", "404", "405", "307", "308", needs=POSTED)
    | harmful("token_only", "no_token", "garbage", "page_200", "page_403", "400", "403", "429", "500", "503",
              "301", "302", "303", needs=POSTED),
    "token_get": usual("ok") | mild("token_only", "access_token_only", "301", "302", "307", needs=GOTTEN)
    | harmful("no_token", "garbage", "page_200", "page_403", "400", "401", "403", "404", "429", "500", "503",
              needs=GOTTEN),
    "grant": usual("full") | mild("short_expiry", needs=GRANTED)
    | mild("rejected_once", needs=GRANTED, state=True) | mild("expires_with_error", needs=GRANTED | ALL_ASKED, state=True)
    | harmful("rejected_once_silently", needs=GRANTED, state=True)
    | harmful("expires_silently", needs=GRANTED | ALL_ASKED, state=True)
    | harmful("insufficient", "rejected_always", "denied_403", needs=GRANTED),
    "anonymous": usual("allowed")
    | harmful("refused", "insufficient", needs={**WITH_REALM, "secret": ("none", "other_host", "bad_then_good")}),
    "secret": usual("none") | mild("good", "other_host")
    | mild("bad_then_good", needs={"challenge_on": ASKED})
    | harmful("bad", needs={"challenge_on": ASKED}),
    # The manifests.
    "head": usual("ok") | mild("429_first", "503_first", state=True)
    | harmful("400", "401", "403", "404", "405", "406", "408", "429", "500", "502", "503", "close", "reset",
              "404_until_get", "page")
    | harmful("stall", timed=True),
    "head_redirect": usual("no") | mild(*REDIRECTED) | harmful("dead", "loop", "signed_for_get", "login"),
    "head_type": usual("right") | mild("charset") | harmful("missing", "text", "json", "page", "octets", "other_kind"),
    "head_digest": usual("right") | mild("missing") | harmful("wrong", "malformed"),
    "head_length": usual("right") | mild("missing", "chunked") | harmful("zero", "wrong"),
    "manifest_coding": usual("none") | mild("gzip", "deflate") | harmful("raw-deflate", "zstd", "false_gzip", "gzip_with_head"),
    "get": usual("ok") | mild("429_first", "503_first", state=True)
    | harmful("400", "401", "403", "404", "429", "500", "502", "503", "close", "reset")
    | harmful("stall", timed=True),
    "get_redirect": usual("no") | mild(*REDIRECTED) | harmful("dead", "loop"),
    "get_body": usual("right") | harmful("truncated", "other_bytes", "page", "empty", "json_error", "longer"),
    "get_type": usual("right") | mild("missing", "octets", "page"),
    "get_length": usual("right") | mild("none", "chunked") | harmful("above"),
    "get_at": usual("all") | mild("top", "child", needs={"image": INDEX}),
    # The image.
    "image": usual("index", "single_oci")
    | mild("single_docker", "docker_list", "no_platform", "attested", "variants", "nested_index")
    | harmful("attestations_only", "foreign_only", "child_missing", "variant_only", "schema_1", "helm", "wasm",
              "signature", "artifact_type", "empty_index", "no_json", "too_large"),
    "content": usual("usual")
    | mild("tar", "zstd", "other_vendor", "duplicate_layer", "zero_layers", "config_of_other_platform",
           needs={"image": OCI})
    | mild("foreign_urls_good", "foreign_urls_dead_but_kept", needs={"image": ("single_docker", "docker_list")})
    | harmful("foreign_urls_dead", needs={"image": ("single_docker", "docker_list")})
    | harmful("unknown_type", "encrypted", "wrong_diff_ids", "no_archive", "size_above", "size_below",
              "config_size_wrong", "config_without_rootfs", needs={"image": OCI})
    | harmful("child_size_wrong", needs={"image": ("index", "docker_list", "attested", "variants")}),
    "layers": usual("1", "2", "3", "4", "5"),
    # The blobs.
    "config": usual("ok") | mild("redirected", "gzip", "chunked", "resumable", needs=WITH_LAYERS)
    | harmful("401", "403", "404", "500", "503", "wrong_bytes", "truncated", "page", "empty", "reset",
              needs=WITH_LAYERS),
    "layer": usual("ok") | mild("429_first", "503_first", needs=WITH_LAYERS, state=True) | mild("206", needs=WITH_LAYERS)
    | harmful("400", "401", "403", "404", "416", "429", "500", "503", "close", "reset", needs=WITH_LAYERS)
    | harmful("stall", needs=WITH_LAYERS, timed=True),
    "layer_body": usual("right")
    | mild("resumable", "range_ignored", "piecewise", needs=WITH_LAYERS | FIRST_BYTE)
    | harmful("wrong_bytes", "empty", "page", "json", "shorter", "longer", "nothing_more", "range_refused", "wrong_range",
              "reset", needs=WITH_LAYERS | FIRST_BYTE)
    | harmful("stall", needs=WITH_LAYERS | FIRST_BYTE, timed=True),
    "layer_headers": usual("usual") | mild("no_length", "chunked", "page_type", "range_noise", needs=WITH_LAYERS)
    | harmful("gzip", "deflate", "raw-deflate", "zstd", "false_gzip", needs=WITH_LAYERS),
    "layer_range": usual("honoured") | mild("ignored", "416", "400", "501", needs=WITH_LAYERS),
    "layer_redirect": usual("no") | mild(*REDIRECTED, "nine_hops", needs=WITH_LAYERS)
    | mild("signed_other_host", needs=WITH_LAYERS | TOKEN_TAKEN)
    | harmful("dead", "absent_name", "loop", "eleven_hops", "no_location", needs=WITH_LAYERS)
    | harmful("signed_subdomain", "signed_other_port", needs=WITH_LAYERS | TOKEN_TAKEN),
    "layer_at": usual("all") | mild("first", "middle", "last"),
    "redirect_code": usual("307") | mild("301", "302", "303", "308"),
    "streams": usual("any") | harmful("one_429", "one_503", "one_connection", needs=WITH_LAYERS | {"layers": ("3", "4", "5")}, state=True),
    # The mirrors before the registry.
    "faults_at": usual("registry") | mild("mirror_a", needs={"mirrors": ("one", "two"), "mirror_a": ("good",)}),
    "mirrors": usual("none") | mild("one", "two"),
    "mirror_a": usual("good")
    | mild("unknown_404", "tag_404", "layer_404", "401", "403", "500", "dead", "breaks", needs=MIRRORED)
    | harmful("wrong_bytes", "page", needs=MIRRORED) | harmful("silent", needs=MIRRORED, timed=True),
    "mirror_b": usual("good")
    | mild("unknown_404", "tag_404", "layer_404", "401", "403", "500", "dead", "breaks", needs=TWO_MIRRORS)
    | harmful("wrong_bytes", "page", needs=TWO_MIRRORS) | harmful("silent", needs=TWO_MIRRORS, timed=True),
    "mirror_capabilities": usual("both") | mild("pull", "resolve", needs={"mirrors": ("one", "two")}),
    "mirror_path": usual("plain") | mild("prefix", "override", needs={"mirrors": ("one", "two")})
    | harmful("missing_override", needs={"mirrors": ("one", "two")}),
    "server_line": usual("present") | mild("absent", needs={"mirrors": ("one", "two")}),
}

DIMENSIONS = PROTOCOL | NODE
# What a run may draw from, by name.
GROUPS = {"protocol": PROTOCOL, "all": DIMENSIONS}

# Dimensions that say only where or how another one has its effect.
SETTINGS = ("layers", "layer_at", "get_at", "redirect_code", "faults_at", *NODE_SETTINGS)

# How many worlds of a hundred are without any unusual value, and without any harmful one.
HEALTHY, HARMLESS = 5, 21
# Of a hundred with harmful values, how many have them at a mirror before a good registry.
AT_MIRROR = 64
# How many harmful values a world has, as weights of 1, 2, …
HARM_AT_REGISTRY = (22, 22, 22, 18, 16)
HARM_AT_MIRROR = (6, 8, 10, 13, 19, 22, 22)
MILD_COUNT = (6, 20, 28, 25, 21)
# With the node's side: how many worlds of a hundred are harmless; of a hundred others, how many have a node at fault, and
# how many of the rest have their faults at a mirror.
HARMLESS_WITH_NODE, WIDE_SHARE, AT_MIRROR_WITH_NODE = 17, 39, 83
# How many faults such a node has, as weights of 1, 2 and 3; how many more its world has, and one with faults at a mirror.
WIDE_COUNT, HARM_BESIDE_NODE, HARM_AT_MIRROR_WITH_NODE = (0, 20, 80), (5, 10, 30, 40, 15), (24, 24, 20, 16, 9, 5, 2)
# Of a hundred, how many have a containerd of their own: of those with other faults, and of the harmless ones.
OWN_AMONG_FAULTY, OWN_AMONG_HARMLESS = 20, 90
# How many mild values a node has, as weights of 0, 1, …; of a hundred faulty worlds, how many have a host's TLS or a
# hosts.toml at fault; and of all, how many begin with what came least.
NODE_MILD, AT_HOST, LEAST_FIRST = (6, 24, 36, 34), 78, 70
# How many candidates are compared for the one drawn least so far.
CANDIDATES = 110


def is_usual(dimension, value):
    return DIMENSIONS[dimension][value].kind == USUAL


def unusual(values):
    """The unusual values of a world, without mere settings."""
    return [(dimension, value) for dimension, value in values.items()
            if dimension not in SETTINGS and not is_usual(dimension, value)]


def harmful_values(values):
    return [(dimension, value) for dimension, value in values.items() if DIMENSIONS[dimension][value].kind == HARMFUL]


def is_timed(values):
    return any(DIMENSIONS[dimension][value].timed for dimension, value in values.items())


def has_state(values):
    return any(DIMENSIONS[dimension][value].state for dimension, value in values.items())


def whole(values):
    """The values of a world with the usual ones of dimensions that it does not name."""
    return {dimension: values.get(dimension, next(iter(names))) for dimension, names in DIMENSIONS.items()}


class Draft:
    """A world while it is drawn: values that are fixed, and what they still allow."""

    def __init__(self, rng, dimensions):
        self.rng, self.dimensions, self.fixed, self.allowed = rng, dimensions, {}, {}
        # Dimensions of which no value of a kind is to be drawn.
        self.spared = set()

    def fits(self, dimension, value):
        if dimension in self.fixed:
            return False
        if value not in self.allowed.get(dimension, DIMENSIONS[dimension]):
            return False
        for other, names in DIMENSIONS[dimension][value].needs.items():
            if other in self.fixed:
                if self.fixed[other] not in names:
                    return False
            elif not set(names) & set(self.allowed.get(other, DIMENSIONS[other])):
                return False
        return True

    def fix(self, dimension, value):
        self.fixed[dimension] = value
        for other, names in DIMENSIONS[dimension][value].needs.items():
            before = self.allowed.get(other, list(DIMENSIONS[other]))
            self.allowed[other] = [name for name in before if name in names]

    def choices(self, dimension):
        """What a dimension may still be."""
        return [name for name in self.allowed.get(dimension, DIMENSIONS[dimension])
                if self.fits(dimension, name) and (dimension, DIMENSIONS[dimension][name].kind) not in self.spared]

    def settles(self, dimension, value):
        """Whether what this value needs of the node's dimensions can be had in full."""
        return all(set(names) & set(self.choices(other)) for other, names in DIMENSIONS[dimension][value].needs.items()
                   if other in NODE and other not in self.fixed)

    def settle(self, counts):
        """Fixes the dimensions of the node that may not have their usual value any more."""
        for dimension in NODE:
            if dimension not in self.fixed and dimension in self.allowed and not any(is_usual(dimension, name) for name in self.allowed[dimension]):
                self.fix(dimension, min(self.choices(dimension), key=lambda name: counts[dimension, name]))

    def finish(self, counts=None):
        """Gives every other dimension a value that is allowed: the usual one, or with `counts` often a rare one."""
        for dimension, values in self.dimensions.items():
            if dimension in self.fixed:
                continue
            allowed = [name for name in values if name in self.allowed.get(dimension, values)]
            ordinary = [name for name in allowed if is_usual(dimension, name)]
            choice = ordinary or allowed
            if counts and dimension in self.allowed and self.rng.randrange(2):
                # What another value needs leaves a choice here.
                fitting = [name for name in allowed if DIMENSIONS[dimension][name].kind == MILD and self.fits(dimension, name)]
                if fitting and (dimension, MILD) not in self.spared:
                    self.fix(dimension, min(fitting, key=lambda name: counts[dimension, name]))
                    continue
            if dimension in ("layers", "image") or not ordinary:
                fitting = [name for name in choice if self.fits(dimension, name)] or choice
                self.fix(dimension, self.rng.choice(fitting))
            else:
                self.fixed[dimension] = choice[0]
        return {dimension: self.fixed[dimension] for dimension in self.dimensions}


class Generator:
    """Draws worlds one after the other; the counts of earlier ones steer later ones."""

    def __init__(self, seed, group):
        self.seed, self.dimensions = seed, GROUPS[group]
        self.harmless = HARMLESS if self.dimensions is PROTOCOL else HARMLESS_WITH_NODE
        self.counts = {(dimension, name): 0 for dimension, values in self.dimensions.items() for name in values}
        self.members = {}
        self.pools = {
            kind: [(dimension, name) for dimension, values in self.dimensions.items() for name, value in values.items()
                   if value.kind == kind and dimension not in SETTINGS]
            for kind in (MILD, HARMFUL)
        }

    def _pick(self, draft, kind, dimensions=None):
        """Fixes the least drawn of some values that fit, if there is one."""
        pool = [pair for pair in self.pools[kind] if (dimensions is None or pair[0] in dimensions) and (pair[0], kind) not in draft.spared]
        candidates = draft.rng.sample(pool, min(CANDIDATES, len(pool)))
        taken = is_timed(draft.fixed)
        fitting = [pair for pair in candidates
                   if draft.fits(*pair) and draft.settles(*pair) and not (taken and DIMENSIONS[pair[0]][pair[1]].timed)]
        if fitting:
            draft.fix(*min(fitting, key=lambda pair: self.counts[pair]))
            if self.dimensions is not PROTOCOL:
                draft.settle(self.counts)

    def _values(self, rng):
        draft = Draft(rng, self.dimensions)
        dice = rng.randrange(100)
        if dice >= HEALTHY:
            wide = self.dimensions is not PROTOCOL and self._node(draft, dice)
            milds = rng.choices(range(len(MILD_COUNT)), MILD_COUNT)[0]
            # One of the image may come first, or the harmful ones would leave it no place.
            early = min(milds, rng.randrange(2))
            for _ in range(early):
                self._pick(draft, MILD, ("image", "content", "layer", "layer_body", "config"))
            if dice >= HEALTHY + self.harmless:
                at_mirror = rng.randrange(100) < AT_MIRROR if self.dimensions is PROTOCOL else "faults_at" in draft.fixed
                if at_mirror and draft.fits("faults_at", "mirror_a"):
                    draft.fix("faults_at", "mirror_a")
                mirrored = HARM_AT_MIRROR if self.dimensions is PROTOCOL else HARM_AT_MIRROR_WITH_NODE
                weights = HARM_BESIDE_NODE if wide else mirrored if at_mirror else HARM_AT_REGISTRY
                for _ in range(rng.choices(range(1, len(weights) + 1), weights)[0]):
                    self._pick(draft, HARMFUL)
            for _ in range(milds - early):
                self._pick(draft, MILD)
            for dimension in ("layer_at", "redirect_code", "get_at"):
                names = [name for name in DIMENSIONS[dimension] if draft.fits(dimension, name)]
                if names:
                    draft.fix(dimension, rng.choice(names))
        return draft.finish(self.counts if dice >= HEALTHY else None)

    def _node(self, draft, dice):
        """Fixes some values of the node before those of the protocol; whether harmful ones are among them.

        Most of what is wrong with a node itself ends every pull, whatever stands at the mirrors: so such values come
        together, and other worlds are spared them.
        """
        rng, faulty = draft.rng, dice >= HEALTHY + self.harmless
        wide = faulty and rng.randrange(100) < WIDE_SHARE
        own = wide or rng.randrange(100) < (OWN_AMONG_FAULTY if faulty else OWN_AMONG_HARMLESS)
        draft.spared = {(dimension, kind) for dimension in WIDE for kind in (MILD, HARMFUL)
                        if not wide and kind == HARMFUL or not own and dimension in OWN}
        if faulty and not wide and rng.randrange(100) < AT_MIRROR_WITH_NODE:
            draft.fix("faults_at", "mirror_a")
        # What came least of all, before others take its place.
        if rng.randrange(100) < LEAST_FIRST:
            self._pick(draft, HARMFUL if faulty else MILD)
            self._pick(draft, MILD)
        if wide:
            for _ in range(rng.choices((1, 2, 3), WIDE_COUNT)[0]):
                self._pick(draft, HARMFUL, WIDE)
        for _ in range(rng.choices(range(len(NODE_MILD)), NODE_MILD)[0]):
            self._pick(draft, MILD, NODE)
        if faulty and rng.randrange(100) < AT_HOST:
            self._pick(draft, HARMFUL, ("tls", "hosts_file"))
        if "tls" in draft.fixed:
            places = [name for name in DIMENSIONS["tls_at"] if draft.fits("tls_at", name)]
            draft.fix("tls_at", rng.choice(places))
        return wide

    def _text(self, dimension, value):
        """The member of a class that came least often so far."""
        known = self.members.setdefault((dimension, value), dict.fromkeys(DIMENSIONS[dimension][value].members, 0))
        name = min(known, key=known.get)
        known[name] += 1
        return name

    def draw(self, number):
        """World `number`; worlds are to be drawn in order."""
        rng = random.Random(f"{self.seed}/{number}")
        values = self._values(rng)
        for pair in values.items():
            self.counts[pair] += 1
        world = {"id": f"{self.seed}-{number}", "seed": f"{self.seed}/{number}", "values": values}
        texts = {dimension: self._text(dimension, value) for dimension, value in values.items() if DIMENSIONS[dimension][value].members}
        return {**world, "texts": texts} if texts else world


def generate(count, seed, group="protocol"):
    generator = Generator(seed, group)
    return [generator.draw(number) for number in range(count)]


def alone(group="protocol", fixed=()):
    """A world for each unusual value, or each member of a class, with nothing else unusual but what the value needs.

    `fixed` are values that all of them have beside, where they fit.
    """
    found = []
    for dimension, values in GROUPS[group].items():
        for name, value in values.items():
            if value.kind == USUAL:
                continue
            for member in value.members or (None,):
                draft = Draft(random.Random(f"{dimension}={name}"), GROUPS[group])
                draft.fix("layers", "3")
                draft.fix(dimension, name)
                if not all(draft.fits(*pair) for pair in fixed):
                    continue
                for pair in fixed:
                    draft.fix(*pair)
                world = {"id": f"alone-{dimension}-{name}" + (f"-{member}" if member else ""), "values": draft.finish()}
                texts = {other: chosen.members[0] for other, chosen in ((other, DIMENSIONS[other][drawn]) for other, drawn in world["values"].items()) if chosen.members}
                texts |= {dimension: member} if member else {}
                found.append({**world, "texts": texts} if texts else world)
    return found


def coverage(worlds, group=PROTOCOL):
    """How often each value came, and which shares of the worlds are healthy, manifold and timed."""
    counts = {(dimension, name): 0 for dimension, values in group.items() for name in values}
    members = {(dimension, name, member): 0 for dimension, values in group.items() for name, value in values.items() for member in value.members}
    for world in worlds:
        for pair in world["values"].items():
            if pair in counts:
                counts[pair] += 1
        for dimension, member in world.get("texts", {}).items():
            members[dimension, world["values"][dimension], member] += 1
    total = max(len(worlds), 1)
    return {
        "worlds": len(worlds),
        "values": len(counts),
        "least": sorted(((count, f"{dimension}={name}") for (dimension, name), count in counts.items()))[:12],
        "below_30": sum(count < 30 for count in counts.values()),
        "texts": len(members), "texts_never": sum(not count for count in members.values()),
        "healthy": sum(not unusual(world["values"]) for world in worlds) / total,
        "two_or_more": sum(len(unusual(world["values"])) >= 2 for world in worlds) / total,
        "harmful": sum(bool(harmful_values(world["values"])) for world in worlds) / total,
        "timed": sum(is_timed(world["values"]) for world in worlds) / total,
        "state": sum(has_state(world["values"]) for world in worlds) / total,
        "counts": {f"{dimension}={name}": count for (dimension, name), count in counts.items()},
    }


if __name__ == "__main__":
    import json
    import sys

    group = sys.argv[3] if len(sys.argv) > 3 else "protocol"
    summary = coverage(generate(int(sys.argv[1]), sys.argv[2], group), GROUPS[group])
    if "-v" not in sys.argv:
        del summary["counts"]
    print(json.dumps(summary, indent=1))
