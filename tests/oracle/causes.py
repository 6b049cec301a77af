"""Which causes are right for which injected fault. Written from the faults, not from the product's code.

A fault is "dimension=value". `PROBE` holds the codes that are right in a report of the probe, `TEXT` what is right
beside them for the runtime's own words, which often know less. `check` holds the codes to docs/causes.md.
"""

import os
import re

import config_texts
import hosts_texts
from node import NODE

DEAD = {"tcp_refused", "dns_stale"}
CUT = {"tcp_reset", "unexpected_eof"}
STALL = {"http_timeout", "pull_no_progress", "deadline"}
BYTES = {"digest_mismatch", "unexpected_eof"}
MANIFEST_BYTES = {"digest_mismatch", "manifest_invalid", "unexpected_eof"}
PAGE = {"not_a_registry"}
KIND = {"manifest_unsupported", "manifest_invalid"}
CHALLENGE = {"auth_bad_challenge"}
NO_CREDENTIAL = {"auth_no_cred"}
TOKEN_FORM = {"auth_token_format"}
NOT_ASKED = {"auth_not_asked"}
HEAD_REFUSED = {"head_refused"}
REFUSED = {"request_refused"}
CODED = {"content_encoding"}
# Some releases refuse an artifact; others pull it, and no container starts from it.
ARTIFACT = {"manifest_unsupported", "artifact_not_image"}

PROBE = {
    "reference": {"missing_tag": {"manifest_unknown", "name_unknown"}, "missing_digest": {"manifest_unknown", "name_unknown"}},
    "scheme": {"http_server_line": {"hosts_toml_invalid", "tls_plain_http", "tls_hang", "tls_not_tls"}},
    "addresses": {
        # In plain http nothing shows that the server is another one, which knows no image.
        "foreign_first": {"tls_name", "address_partly_dead", "manifest_unknown"}, "all_dead": DEAD,
        "silent_first": {"tcp_timeout", "address_partly_dead", "deadline"},
    },
    "challenge_on": {"hidden": {"manifest_unknown", "name_unknown", "auth_no_cred", "auth_bad_challenge"}},
    "challenge": {
        "status_403": {"auth_denied", "fw_403", "auth_bad_challenge"}, "negotiate_only": CHALLENGE, "digest_only": CHALLENGE,
        "no_header": CHALLENGE, "malformed": CHALLENGE, "no_realm": CHALLENGE,
        "differs_for_layers": {"auth_bad_challenge", "auth_denied", "blob_denied"},
        "differs_by_request": {"auth_bad_challenge", "auth_denied", "auth_no_cred"}, "two_bearers": CHALLENGE | {"auth_realm_unreachable"},
        "with_error": CHALLENGE | {"auth_denied"}, "basic_then_bearer": CHALLENGE | {"auth_denied", "auth_no_cred"},
    },
    "realm": {
        "dead": DEAD, "absent_name": {"dns_nxdomain"}, "silent": {"auth_realm_unreachable"},
        "relative": CHALLENGE, "malformed": CHALLENGE,
    },
    "token_post": {
        "token_only": TOKEN_FORM, "no_token": TOKEN_FORM, "garbage": TOKEN_FORM, "page_200": TOKEN_FORM | PAGE,
        "page_403": TOKEN_FORM | PAGE | {"fw_403"}, "400": TOKEN_FORM | REFUSED, "403": {"auth_denied"} | REFUSED,
        "429": {"rate_limited"}, "500": {"registry_5xx"}, "503": {"registry_5xx"},
        "301": TOKEN_FORM | {"auth_denied", "auth_bad_challenge"}, "302": TOKEN_FORM | {"auth_denied", "auth_bad_challenge"},
        "303": TOKEN_FORM | {"auth_denied", "auth_bad_challenge"},
    },
    "token_get": {
        "no_token": TOKEN_FORM, "garbage": TOKEN_FORM, "page_200": TOKEN_FORM | PAGE, "page_403": TOKEN_FORM | PAGE | {"fw_403"},
        "400": TOKEN_FORM | REFUSED, "401": {"auth_no_cred"}, "403": {"auth_denied", "auth_no_cred"} | REFUSED,
        "404": TOKEN_FORM | CHALLENGE | REFUSED, "429": {"rate_limited"}, "500": {"registry_5xx"}, "503": {"registry_5xx"},
    },
    "grant": {
        "insufficient": {"auth_denied", "auth_no_cred"}, "rejected_always": {"auth_denied"}, "rejected_once": {"auth_denied", "blob_denied"},
        "rejected_once_silently": {"auth_denied", "blob_denied"}, "denied_403": {"auth_denied"}, "expires_with_error": {"auth_denied", "blob_denied"},
        "expires_silently": {"auth_denied", "blob_denied"},
    },
    "anonymous": {"refused": {"auth_no_cred", "secret_key_mismatch"}, "insufficient": {"auth_no_cred", "auth_denied", "secret_key_mismatch"}},
    "secret": {"none": NO_CREDENTIAL, "other_host": {"auth_no_cred", "secret_key_mismatch"}, "bad": {"auth_bad_cred"}, "bad_then_good": {"auth_bad_cred"}},
    "head": {
        "400": HEAD_REFUSED, "401": HEAD_REFUSED | CHALLENGE, "403": HEAD_REFUSED, "404": HEAD_REFUSED, "405": HEAD_REFUSED,
        "406": HEAD_REFUSED, "408": HEAD_REFUSED | STALL, "429": {"rate_limited"}, "429_first": {"rate_limited"},
        "500": {"registry_5xx"}, "502": {"registry_5xx"}, "503": {"registry_5xx"}, "503_first": {"registry_5xx"},
        "close": CUT, "reset": CUT, "stall": STALL,
        "404_until_get": HEAD_REFUSED, "page": PAGE | {"manifest_unsupported"},
    },
    "head_redirect": {
        "login": PAGE | {"manifest_unsupported"},
        "dead": {"redirect_broken"} | DEAD, "loop": {"redirect_broken"},
        "signed_for_get": HEAD_REFUSED | {"blob_denied"},
    },
    "head_type": {
        "missing": KIND, "text": KIND, "json": KIND, "page": KIND | PAGE, "octets": KIND, "charset": KIND, "other_kind": KIND,
    },
    "head_digest": {"wrong": {"digest_mismatch", "manifest_unknown"}, "malformed": {"digest_mismatch", "manifest_invalid"}},
    "head_length": {value: MANIFEST_BYTES for value in ("zero", "wrong", "missing", "chunked")},
    "manifest_coding": {value: MANIFEST_BYTES | CODED for value in ("gzip", "deflate", "raw-deflate", "zstd", "false_gzip", "gzip_with_head")},
    "get": {
        "400": REFUSED, "401": {"auth_denied"} | CHALLENGE, "403": {"auth_denied", "fw_403"}, "404": {"manifest_unknown"},
        "429": {"rate_limited"}, "429_first": {"rate_limited"}, "500": {"registry_5xx"}, "502": {"registry_5xx"},
        "503": {"registry_5xx"}, "503_first": {"registry_5xx"}, "close": CUT, "reset": CUT, "stall": STALL,
    },
    "get_redirect": {"dead": {"redirect_broken"} | DEAD, "loop": {"redirect_broken"}},
    "get_body": {
        "truncated": MANIFEST_BYTES, "other_bytes": MANIFEST_BYTES, "page": MANIFEST_BYTES | PAGE, "empty": MANIFEST_BYTES,
        "json_error": MANIFEST_BYTES, "longer": MANIFEST_BYTES,
    },
    # Where HEAD is not enough, GET has the media type.
    "get_type": {"missing": KIND, "page": KIND | PAGE, "octets": KIND},
    "get_length": {"above": MANIFEST_BYTES},
    "image": {
        "attestations_only": {"no_platform"}, "foreign_only": {"no_platform"}, "variant_only": {"no_platform"},
        "empty_index": {"no_platform"}, "child_missing": {"manifest_unknown", "blob_unknown"},
        "schema_1": {"manifest_unsupported"}, "helm": ARTIFACT, "wasm": ARTIFACT, "signature": ARTIFACT, "artifact_type": ARTIFACT,
        "no_json": {"manifest_invalid"}, "too_large": {"manifest_invalid", "manifest_unsupported"},
        "nested_index": {"no_platform", "manifest_unsupported"},
    },
    "content": {
        "unknown_type": {"manifest_unsupported"}, "encrypted": {"manifest_unsupported"},
        "wrong_diff_ids": {"digest_mismatch", "layer_invalid"}, "no_archive": {"layer_invalid", "digest_mismatch"},
        "size_above": MANIFEST_BYTES, "size_below": MANIFEST_BYTES, "config_size_wrong": MANIFEST_BYTES,
        "config_without_rootfs": {"manifest_invalid"} | ARTIFACT, "child_size_wrong": MANIFEST_BYTES,
        "zero_layers": {"manifest_invalid"} | ARTIFACT, "config_of_other_platform": {"no_platform"},
        "foreign_urls_dead": {"blob_unknown"} | DEAD, "foreign_urls_dead_but_kept": DEAD, "zstd": {"manifest_unsupported"},
    },
    "config": {
        "401": {"blob_denied", "auth_denied"} | CHALLENGE, "403": {"blob_denied", "auth_denied", "fw_403"}, "404": {"blob_unknown"},
        "500": {"registry_5xx"}, "503": {"registry_5xx"}, "wrong_bytes": BYTES, "truncated": BYTES, "page": BYTES | PAGE,
        "empty": BYTES, "reset": CUT, "gzip": BYTES | CODED,
    },
    "layer": {
        "400": REFUSED | {"blob_denied"}, "401": {"blob_denied", "auth_denied"} | CHALLENGE,
        "403": {"blob_denied", "auth_denied", "fw_403"}, "404": {"blob_unknown"}, "416": REFUSED | {"blob_denied"},
        "429": {"rate_limited"}, "429_first": {"rate_limited"}, "500": {"registry_5xx"}, "503": {"registry_5xx"},
        "503_first": {"registry_5xx"}, "close": CUT, "reset": CUT, "stall": STALL, "206": BYTES,
    },
    "layer_body": {
        "wrong_bytes": BYTES, "empty": BYTES, "page": BYTES | PAGE, "json": BYTES, "shorter": BYTES, "longer": BYTES,
        "nothing_more": {"unexpected_eof"}, "range_refused": {"unexpected_eof", "range_ignored"},
        "range_ignored": {"unexpected_eof", "range_ignored", "digest_mismatch"}, "wrong_range": BYTES, "piecewise": {"unexpected_eof"},
        "resumable": {"unexpected_eof"}, "reset": CUT, "stall": STALL,
    },
    "layer_range": {value: {"unexpected_eof", "range_ignored"} for value in ("ignored", "416", "400", "501")},
    "layer_headers": {
        **{value: BYTES | CODED for value in ("gzip", "deflate", "raw-deflate", "zstd", "false_gzip")},
        **{value: BYTES for value in ("range_noise", "no_length", "chunked")},
    },
    "layer_redirect": {
        "dead": DEAD, "absent_name": {"dns_nxdomain"}, "loop": {"redirect_broken"},
        "eleven_hops": {"redirect_broken"}, "nine_hops": {"redirect_broken"}, "no_location": {"redirect_broken"},
        "signed_subdomain": {"blob_denied"}, "signed_other_port": {"blob_denied"}, "signed_other_host": {"blob_denied"},
    },
    "streams": {"one_429": {"rate_limited"}, "one_503": {"registry_5xx", "rate_limited"}, "one_connection": CUT | {"tls_reset", "tcp_refused"}},
    "mirror_path": {"missing_override": PAGE | {"mirror_order", "hosts_toml_invalid"} | MANIFEST_BYTES | {"manifest_unsupported"}},
}
MIRROR = {
    "unknown_404": {"manifest_unknown", "name_unknown"}, "tag_404": {"manifest_unknown"}, "layer_404": {"blob_unknown"},
    "401": {"auth_no_cred", "auth_bad_cred", "auth_denied"}, "403": {"auth_denied", "fw_403"}, "500": {"registry_5xx"},
    "dead": DEAD, "silent": {"tcp_timeout", "deadline"} | STALL, "breaks": {"unexpected_eof"}, "wrong_bytes": BYTES,
    "page": PAGE | MANIFEST_BYTES | {"manifest_unsupported"},
}
PROBE["mirror_a"] = PROBE["mirror_b"] = {value: codes | {"mirror_order"} for value, codes in MIRROR.items()}

# The node's side. A class has the codes of all its members, unless a member has its own ("class/member").
NAME, AUTHORITY, BAD, SPOKEN = {"tls_name"}, {"tls_unknown_ca"}, {"tls_bad_certificate", "tls_ca_unfit"}, {"tls_incompatible", "tls_alert"}
OF_LINKS = {"tls_intermediate", "tls_unknown_ca"}
FILES = {"hosts_toml_invalid", "mirror_order"}
CONFIG = {"hosts_toml_invalid", "mirror_order"}
PROXY = {"proxy_misconfigured", "proxy_unknown"}
IN_FORCE = {"runtime_settings_unknown"}
PROBE |= {
    "tls": {
        "expired": {"tls_expired"}, "not_yet_valid": {"tls_not_yet_valid", "clock_skew", "tls_intermediate", "tls_ca_unfit"}, "wrong_name": NAME,
        "cn_only": NAME | BAD, "bad_wildcard": NAME, "address_as_name": NAME,
        "untrusted": AUTHORITY, "self_signed": AUTHORITY, "ingress_default": NAME | AUTHORITY | {"tls_default_certificate"}, "intermediate_missing": OF_LINKS,
        "intermediate_expired": OF_LINKS | {"tls_expired"},
        "intermediate_cannot_sign": OF_LINKS | BAD, "intermediate_odd": OF_LINKS | BAD, "root_expired": {"tls_expired", "tls_root_expired", "tls_unknown_ca"},
        "root_cannot_sign": BAD | AUTHORITY, "root_pathlen": BAD,
        "root_odd": BAD | NAME | AUTHORITY, "cross_signed_old_root": {"tls_expired", "tls_root_expired"} | AUTHORITY,
        "constraints_kept": NAME | BAD, "constraints_broken": BAD | NAME | {"tls_intermediate"}, "leaf_trusted_badly": {"tls_expired", "tls_leaf_trusted"} | NAME,
        "client_purpose": BAD, "unknown_critical": BAD, "bad_signature": BAD | AUTHORITY, "sha1": BAD | OF_LINKS, "md5": BAD | AUTHORITY,
        "short_key": BAD | SPOKEN, "shorter_key": BAD | SPOKEN, "odd_key": SPOKEN | BAD,
        "serial": BAD | AUTHORITY, "names_in_other_bytes": BAD | NAME | AUTHORITY, "too_huge": BAD | SPOKEN | {"tls_large_hello"}, "old_version": SPOKEN,
        "cbc": SPOKEN, "cbc_sha2": SPOKEN, "rsa_exchange": SPOKEN, "cipher_unknown_to_go": SPOKEN,
        "client_wanted": {"tls_alert"}, "alpn": SPOKEN, "alert": SPOKEN, "closes": {"tls_reset", "tcp_reset"}, "not_tls": {"tls_not_tls"},
        "not_tls/plain_http": {"tls_plain_http"}, "not_tls/page_of_port": {"tls_plain_http"},
        "hangs": {"tls_hang", "http_timeout", "deadline"}, "ed25519": SPOKEN, "pss_signature": SPOKEN, "huge": SPOKEN | BAD,
    },
    "bundle": {value: {"tls_no_roots"} | AUTHORITY for value in ("absent", "empty", "der", "ssl_cert_file_absent")},
    "hosts_file": {name: FILES for name in hosts_texts.TEXTS} | {
        "bad_server": FILES | DEAD | PAGE | {"tls_plain_http", "tls_not_tls", "tls_name", "manifest_unknown", "name_unknown", "dns_nxdomain", "tls_reset",
        "request_refused"}, "ca": FILES | AUTHORITY, "client": FILES | {"tls_alert"}, "header": FILES | KIND | REFUSED,
        "plain_http": FILES | {"tls_plain_http", "tls_not_tls", "tls_reset", "unexpected_eof", "tcp_reset"}, "folder": FILES | DEAD,
        "path": FILES | PAGE | {"manifest_unknown"}, "crt_beside": FILES | AUTHORITY,
    },
    "config_file": {name: CONFIG for name in config_texts.TEXTS} | {
        "imports_broken": CONFIG | IN_FORCE, "login_broken": CONFIG | NO_CREDENTIAL | {"auth_bad_cred", "auth_unknown", "secret_format"}, "tls_tables": CONFIG | AUTHORITY | {"tls_alert"},
        "mirrors_broken": CONFIG | DEAD | {"tls_not_tls", "tls_reset", "tls_plain_http", "unexpected_eof"},
    },
    "place": {
        **{name: {"tls_plain_http", "tls_not_tls"} for name in ("localhost_plain", "loopback_plain", "named_loopback_plain", "private_plain")},
        **{name: {"request_refused", "tls_reset", "unexpected_eof", "tcp_reset", "tls_not_tls"} for name in ("localhost_tls", "loopback_tls")},
        **{name: {"image_name_invalid", "unexpected_eof", "tls_not_tls", "tls_reset", "tcp_reset"} for name in ("loopback_6_tls", "loopback_6_plain",
        "private_6_tls")},
    },
    "port": {"443": {"tls_plain_http", "tcp_refused"}, "80": {"unexpected_eof", "tls_reset", "tls_not_tls"}},
    "proxy": {value: PROXY for value in ("refuses_403", "wants_407", "wrong_credentials", "answers_502", "answers_page", "closes", "no_such_scheme",
    "malformed", "tls_to_plain")} | {
        "down": PROXY | DEAD, "absent_name": PROXY | {"dns_nxdomain"}, "over_tls_untrusted": PROXY | AUTHORITY, "inspects": AUTHORITY | PROXY,
        "silent": PROXY | {"tcp_timeout", "deadline"},
        **{value: PROXY | {"dns_nxdomain"} for value in ("caret_in_password", "hash_in_password", "slash_in_password", "blank_in_password")},
        **{value: PROXY for value in ("good_encoded", "good_marks", "good_socks", "good_socks_login", "percent_in_password")},
        "good": PROXY, "good_credentials": PROXY, "good_over_tls": PROXY, "good_without_scheme": PROXY,
    },
    "resolver": {
        "nxdomain_first": {"dns_nxdomain", "dns_split_horizon"}, "nodata_first": {"dns_nodata", "dns_split_horizon"}, "all_servfail": {"dns_servfail"},
        "all_nxdomain": {"dns_nxdomain"}, "short_without_search": {"dns_nxdomain"},
        "no_server": {"dns_server_unreachable"}, "empty": {"dns_server_unreachable"},
        "good_is_fourth": {"dns_server_unreachable", "dns_servfail", "dns_refused", "dns_error"}, "wildcard_in_search": {"dns_search_leak"} | DEAD,
        "cname_loop": {"dns_error", "dns_nodata", "dns_nxdomain"}, "edns_refused": {"dns_no_edns"}, "all_silent": {"dns_timeout", "dns_slow"},
        "dead_suffix": {"dns_slow"}, "servfail_suffix": {"dns_slow", "dns_servfail"},
        "silent_first": {"dns_timeout", "dns_slow_5s", "dns_slow"}, "aaaa_silent": {"dns_timeout", "dns_slow_5s", "dns_slow"},
        "aaaa_servfail": {"dns_servfail"}, "lame": {"dns_error", "dns_servfail", "dns_nodata"}, "rotate_dead": {"dns_server_unreachable", "dns_servfail"},
        "wrong_identification": {"dns_timeout", "dns_error"},
        "dead_first": {"dns_server_unreachable"}, "servfail_first": {"dns_servfail"}, "refused_first": {"dns_refused"},
    },
    "edited": {
        "hosts_broken_after": DEAD | FILES, "hosts_mended_after": DEAD | FILES, "resolver_broken_after": {"dns_servfail"},
        "resolver_mended_after": {"dns_servfail"}, "config_mended_after": CONFIG | IN_FORCE,
        "config_broken_after": CONFIG | IN_FORCE, "path_added_after": CONFIG | IN_FORCE, "ca_added_after": AUTHORITY | IN_FORCE,
        "ca_removed_after": AUTHORITY | IN_FORCE, "ca_added_unused": AUTHORITY | IN_FORCE, "proxy_added_after": PROXY | IN_FORCE,
        "proxy_removed_after": PROXY | IN_FORCE,
    },
}
# A chain's fault has its turn where the proxy's does not; either may be reported for the other's host.
PROBE["no_proxy"] = {name: PROXY for name in NODE["no_proxy"]}
PROBE["proxy_vars"] = {name: PROXY for name in NODE["proxy_vars"]}
# A bare status in the runtime's words does not show what was behind it.
STATUS_401 = {"auth_no_cred", "auth_bad_cred", "auth_denied", "auth_unknown"}
STATUS_403 = {"auth_denied", "fw_403", "blob_denied"}
TEXT = {
    "challenge": {"status_403": STATUS_403,
                  **{form: STATUS_401 for form in ("negotiate_only", "digest_only", "no_header", "malformed", "no_realm", "differs_for_layers",
                                                   "differs_by_request", "two_bearers", "with_error", "basic_then_bearer")}},
    "realm": {"relative": {"auth_realm_unreachable"}, "malformed": {"auth_realm_unreachable"}},
    "token_post": {"400": STATUS_401, "page_403": STATUS_401 | STATUS_403, "403": STATUS_401 | STATUS_403},
    "token_get": {"400": STATUS_401, "page_403": STATUS_401 | STATUS_403, "403": STATUS_401 | STATUS_403, "401": STATUS_401},
    "grant": {value: STATUS_401 for value in ("insufficient", "rejected_always", "rejected_once", "rejected_once_silently", "expires_with_error",
    "expires_silently")} | {"denied_403": STATUS_403},
    "anonymous": {"refused": STATUS_401, "insufficient": STATUS_401},
    "secret": {"bad": STATUS_401, "none": STATUS_401, "other_host": STATUS_401},
    # What GET would have been answered, no pull asks after it.
    "head": {"400": REFUSED, "401": STATUS_401, "403": STATUS_403, "404": {"manifest_unknown", "name_unknown"}, "405": REFUSED,
             "406": REFUSED, "408": REFUSED, "404_until_get": {"manifest_unknown", "name_unknown"}, "page": MANIFEST_BYTES},
    # Of a page in the manifest's place the runtime sees bytes, their number and their digest.
    "head_redirect": {"signed_for_get": STATUS_403, "login": MANIFEST_BYTES},
    "get": {"401": STATUS_401, "403": STATUS_403},
    "config": {"401": STATUS_401, "403": STATUS_403},
    "layer": {"401": STATUS_401, "403": STATUS_403},
    "image": {"child_missing": {"blob_unknown"}},
    # Where HEAD reports no length, the digest is that of the coded bytes, which no registry has.
    "manifest_coding": {value: {"manifest_unknown"} for value in ("deflate", "raw-deflate", "zstd")},
    # The words have the registry's URL, and the status of the storage behind it.
    "layer_redirect": {value: REFUSED for value in ("signed_subdomain", "signed_other_port", "signed_other_host")},
}
# "server misbehaving" and "no such host" are all that Go says of name servers; a proxy's end is only an end.
TEXT["resolver"] = {value: {"dns_error"} for value in ("all_servfail", "edns_refused", "good_is_fourth", "rotate_dead")} | {
    "nodata_first": {"dns_nxdomain"}, "cname_loop": {"dns_nxdomain"}}
TEXT["edited"] = {"resolver_broken_after": {"dns_error"}}
TEXT["proxy"] = {value: CUT for value in ("answers_page", "closes")}
# A mirror that knows nothing has no layers either.
TEXT["mirror_a"] = TEXT["mirror_b"] = {"401": STATUS_401, "403": STATUS_403, "unknown_404": {"blob_unknown"}}

# Right only where a credential was there and no challenge asked for it.
WITH_SECRET = {"challenge_on": {"hidden": NOT_ASKED}, "challenge": {"status_403": NOT_ASKED}}

# What never counts as a cause.
GENERIC = {None, "unexplained"}
# These have no request of their own in the servers' log; they count wherever they are drawn.
WITHOUT_REQUEST = {"scheme", "addresses", "realm", "image", "content", "reference", *NODE}


def faults(values, fired, is_usual, texts):
    """The faults that may have been behind a failure: those that had their turn, and those without a request.

    `texts` has the members of the classes among the values; such a fault is "dimension=class/member".
    """
    found = [fault for fault in fired if fault.partition("=")[0] not in WITHOUT_REQUEST or fault.partition("=")[0] not in NODE]
    for dimension, value in values.items():
        fault = f"{dimension}={value}"
        silent = dimension in ("mirror_a", "mirror_b") and value in ("dead", "silent")
        credential = dimension == "secret" and value in ("none", "other_host") and "challenge=basic" in fired
        if (dimension in WITHOUT_REQUEST or silent) and not is_usual(dimension, value) or credential:
            found.append(fault + (f"/{texts[dimension]}" if dimension in texts else ""))
    return list(dict.fromkeys(found))


def right(found, values, text=False):
    """The codes that are right for these faults in a world of these values."""
    tables = [PROBE] + [TEXT] * text + [WITH_SECRET] * (values["secret"] in ("good", "bad", "bad_then_good"))
    pairs = [fault.partition("=")[::2] for fault in found]
    codes = set().union(*(_codes(table.get(dimension, {}), value) for table in tables for dimension, value in pairs))
    # Where the storage asks for the login, it is the storage that denies.
    if "auth_denied" in codes and values["challenge_on"].startswith("storage"):
        codes.add("blob_denied")
    return codes


def _codes(table, value):
    """The codes of a member, or those of its class."""
    return table.get(value, table.get(value.partition("/")[0], set()))


def all_codes():
    """Every code of the tables."""
    return set().union(*(codes for table in (PROBE, TEXT, WITH_SECRET) for values in table.values() for codes in values.values()))


def check():
    """Ends the program where a code of the tables is none of docs/causes.md."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/causes.md")
    with open(path, encoding="utf-8") as file:
        known = set(re.findall(r"^### (\w+)$", file.read(), re.MULTILINE))
    unknown = sorted(all_codes() - known)
    if unknown:
        raise SystemExit(f"causes.py has codes that are not in docs/causes.md: {', '.join(unknown)}")
