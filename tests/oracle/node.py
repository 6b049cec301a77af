"""The node's side of a world: trust, containerd's configuration, where the registry stands, proxies, names.

These dimensions join those of the protocol (worlds.py). Where a value is a class, its members are texts or
certificates, and a world has one of them.
"""

import config_texts
import hosts_texts
from values import HARMFUL, MILD, Value, harmful, mild, usual

ASKED = ("everything", "head", "get", "config", "layers")
BEARER = ("bearer", "no_scope", "no_service", "lower_case", "with_error")
AT_NAME = {"place": ("name",)}
TLS = {"scheme": ("https",), "addresses": ("one", "two"), "place": ("name", "localhost_tls", "loopback_tls", "loopback_6_tls", "private_tls", "named_loopback_tls")}
TLS_AT_NAME = TLS | AT_NAME
# No mirror of the protocol's dimensions but the first, plain one, which the text names.
OF_A_TEXT = {"mirrors": ("one",), "mirror_path": ("plain",), "mirror_capabilities": ("both",), "server_line": ("present",), "scheme": ("https",),
             "addresses": ("one", "two")} | AT_NAME
OF_A_CONFIG = {"scheme": ("https",), "addresses": ("one", "two"), "mirror_path": ("plain",), "mirror_capabilities": ("both",), "server_line": ("present",)}
WITH_LOGIN = {"challenge_on": ("everything",), "challenge": ("bearer", "no_service"), "secret": ("none",), "realm": ("other_host", "same_host"),
"anonymous": ("refused",)}
# Below an address there are no subdomains.
NO_SUBDOMAIN = {
    "head_redirect": ("no", "relative", "other_port", "other_host", "http", "dead", "loop", "signed_for_get", "login"),
    "get_redirect": ("no", "relative", "other_port", "other_host", "http", "dead", "loop"),
    "layer_redirect": ("no", "relative", "other_port", "other_host", "http", "nine_hops", "signed_other_host", "dead", "absent_name", "loop", "eleven_hops",
                       "no_location", "signed_other_port"),
}
PLACED = {"scheme": ("https",), "addresses": ("one",), "mirrors": ("none",), "faults_at": ("registry",)} | NO_SUBDOMAIN
PROXIED = {"proxy": ("good", "good_credentials", "good_over_tls", "good_without_scheme", "refuses_403", "wants_407", "down", "answers_502", "inspects")}
OF_EDITED_NAMES = {"addresses": ("one",), "place": ("name",), "mirrors": ("none",), "resolver": ("hosts_file",)} | NO_SUBDOMAIN
OF_NAMES = {"addresses": ("one",), "place": ("name",), "mirrors": ("none", "one"), "server_line": ("present",)} | NO_SUBDOMAIN


def classes(kind, table, **more):
    """A value for each class of a table."""
    return {name: Value(kind, members=members, **more) for name, members in table.items()}


def sorted_by_kind(table, needs):
    """Values of a table of (kind, members) or (kind, members, needs)."""
    return {name: Value({"mild": MILD, "harmful": HARMFUL}[kind], members=members, needs=needs | (more[0] if more else {}))
            for name, (kind, members, *more) in table.items()}


CHAINS = {
    # What a pull stands.
    "strong_key": ("mild", ("key_rsa2048", "key_rsa4096", "key_p384", "key_p521", "key_rsa1536")),
    "ed25519": ("mild", ("key_ed25519", "sig_ed25519")),
    "strong_signature": ("mild", ("sig_rsa_sha256", "sig_rsa_sha512", "sig_p384_sha384", "root_p521", "root_rsa4096")),
    "pss_signature": ("mild", ("sig_pss",)),
    "intermediate_sent": ("mild", ("intermediate_sent", "intermediate_purpose_server")),
    "odd_order": ("mild", ("root_sent_too", "unrelated_sent", "wrong_order", "duplicates_sent")),
    "huge": ("mild", ("huge",)),
    "wildcard": ("mild", ("wildcard", "upper_case_name"), AT_NAME),
    "odd_leaf": ("mild", ("purpose_none", "purpose_any", "no_usage", "no_identifiers", "leaf_is_ca", "long_life", "email_name", "usage_encipher_only")),
    "odd_root": ("mild", ("root_no_usage", "root_version_1", "root_sha1_self")),
    "trusted_itself": ("mild", ("self_signed_trusted", "self_signed_ca_trusted", "leaf_trusted_itself", "intermediate_trusted_itself")),
    "cross_signed": ("mild", ("cross_signed_new_root", "cross_signed_both", "cross_signed_old_expired_first")),
    "constraints_kept": ("mild", ("constraints_permit", "constraints_dot", "constraints_other_kind"), AT_NAME),
    "tls_1_2": ("mild", ("tls12_only", "chacha_only")),
    "tls_1_3": ("mild", ("tls13_only",)),
    "one_curve": ("mild", ("curve_p521_only", "curve_x25519_only", "curve_p256_only")),
    # What may break it.
    "expired": ("harmful", ("expired",)),
    "not_yet_valid": ("harmful", ("not_yet_valid", "intermediate_future", "root_future")),
    "wrong_name": ("harmful", ("wrong_name", "address_only", "trailing_dot_name"), AT_NAME),
    "cn_only": ("harmful", ("cn_only",)),
    "bad_wildcard": ("harmful", ("wildcard_too_high", "wildcard_partial", "wildcard_second_label", "wildcard_alone"), AT_NAME),
    "address_as_name": ("harmful", ("ip_as_dns",), {"place": ("private_tls", "loopback_tls")}),
    "untrusted": ("harmful", ("untrusted_root", "other_root_same_name")),
    "self_signed": ("harmful", ("self_signed",)),
    "ingress_default": ("harmful", ("ingress_default",)),
    "intermediate_missing": ("harmful", ("intermediate_missing",)),
    "intermediate_expired": ("harmful", ("intermediate_expired",)),
    "intermediate_cannot_sign": ("harmful", ("intermediate_not_ca", "intermediate_no_basic", "intermediate_no_certsign", "intermediate_version_1")),
    "intermediate_odd": ("harmful", ("intermediate_purpose_client", "intermediate_unknown_critical", "intermediate_bad_signature")),
    "root_expired": ("harmful", ("root_expired",)),
    "root_cannot_sign": ("harmful", ("root_no_basic", "root_no_certsign", "root_not_ca")),
    "root_pathlen": ("harmful", ("root_pathlen_0",)),
    "root_odd": ("harmful", ("root_constraints_forbid", "root_purpose_client", "root_rsa1024"), AT_NAME),
    "cross_signed_old_root": ("harmful", ("cross_signed_old_root",)),
    "constraints_broken": ("harmful", ("constraints_forbid", "constraints_permit_other"), AT_NAME),
    "leaf_trusted_badly": ("harmful", ("leaf_trusted_expired", "leaf_trusted_wrong_name"), AT_NAME),
    "client_purpose": ("harmful", ("purpose_client",)),
    "unknown_critical": ("harmful", ("unknown_critical",)),
    "bad_signature": ("harmful", ("bad_signature",)),
    "sha1": ("harmful", ("sig_sha1", "sig_ecdsa_sha1", "intermediate_sha1")),
    "md5": ("harmful", ("sig_md5",)),
    "short_key": ("harmful", ("key_rsa1024", "intermediate_rsa1024")),
    "shorter_key": ("harmful", ("key_rsa768", "key_rsa1023")),
    "odd_key": ("harmful", ("key_p224", "key_secp256k1", "key_pss", "key_ed448")),
    "serial": ("harmful", ("negative_serial", "serial_zero", "serial_long", "root_negative_serial")),
    "names_in_other_bytes": ("harmful", ("other_issuer_bytes", "invalid_issuer", "version_1_leaf")),
    "too_huge": ("harmful", ("too_huge",)),
    # How the handshake goes.
    "old_version": ("harmful", ("tls11_only", "tls10_only")),
    "cbc": ("harmful", ("cbc_sha_only",)),
    "cbc_sha2": ("harmful", ("cbc_sha256_only", "cbc_sha384_only")),
    "rsa_exchange": ("harmful", ("rsa_exchange_only", "rsa_exchange_cbc_only")),
    "cipher_unknown_to_go": ("harmful", ("dhe_only", "ccm_only", "curve_x448_only")),
    "client_wanted": ("harmful", ("client_wanted", "client_wanted_12")),
    "alpn": ("harmful", ("alpn_h2_unasked", "alpn_refused")),
    "alert": ("harmful", ("alert_handshake", "alert_name", "alert_internal", "alert_version", "alert_denied")),
    "closes": ("harmful", ("closes", "resets")),
    "not_tls": ("harmful", ("plain_http", "ssh", "page_of_port")),
}

NODE = {
    "tls": usual("good") | sorted_by_kind(CHAINS, TLS) | harmful("hangs", needs=TLS, timed=True),
    # Whose TLS it is: of the host that the faults are at, of the token service, or of the storage behind a redirect.
    "tls_at": usual("host") | mild("realm", needs={"challenge_on": ASKED, "challenge": BEARER, "realm": ("other_host",)})
    | mild("storage", needs={"layer_redirect": ("other_host",)}),
    "bundle": usual("file") | mild("in_folder", "with_noise", "crlf", "by_ssl_cert_file", "by_ssl_cert_dir")
    | harmful("absent", "empty", "der", "ssl_cert_file_absent"),
    "hosts_file": usual("drawn") | sorted_by_kind({name: (kind, tuple(texts)) for name, (kind, texts) in hosts_texts.TEXTS.items()}, OF_A_TEXT),
    "config_file": usual("own_version")
    | {name: Value({"mild": MILD, "harmful": HARMFUL}[kind], members=tuple(texts), needs=OF_A_CONFIG | (WITH_LOGIN if name.startswith("login") else {}))
       for name, (kind, texts) in config_texts.TEXTS.items()},
    "place": usual("name") | mild("localhost_tls", "localhost_plain", "loopback_tls", "loopback_plain", "loopback_6_tls", "loopback_6_plain",
                                  "named_loopback_tls", "private_tls", needs=PLACED)
    | harmful("private_plain", "named_loopback_plain", "private_6_tls", needs=PLACED),
    "port": usual("other") | mild("443", "80", needs={"place": ("loopback_tls", "loopback_plain", "private_tls", "private_plain"),
    "realm": ("other_host", "same_host")}),
    "proxy": usual("none") | mild("good", "good_credentials", "good_over_tls", "good_without_scheme", "good_encoded", "good_marks", "good_socks",
                                    "good_socks_login", "percent_in_password", needs=OF_A_CONFIG)
    | harmful("caret_in_password", "hash_in_password", "slash_in_password", "blank_in_password", "refuses_403", "wants_407", "wrong_credentials", "down", "absent_name", "over_tls_untrusted", "tls_to_plain", "malformed", "answers_502",
              "answers_page", "closes", "inspects", "no_such_scheme", needs=OF_A_CONFIG)
    | harmful("silent", needs=OF_A_CONFIG, timed=True),
    "proxy_vars": usual("both_upper") | mild("lower", "https_only", "http_only", "all_proxy", "upper_before_lower", "empty_upper", needs=PROXIED),
    "no_proxy": usual("absent") | mild("host", "host_port", "other_port", "dot_suffix", "suffix", "star_suffix", "star", "cidr_of_address", "address_of_name",
                                       "upper_case", "blanks", "semicolons", "with_scheme", "trailing_dot", "quoted", "partial_label", "lower_variable",
                                       "other_host", "empty_entries", "with_path", "only_blanks", "below_it", "pattern", needs=PROXIED),
    "resolver": usual("hosts_file")
    | mild("one_server", "search", "search_short", "ndots_0", "rotate", "dead_second", "truncated", "trust_ad", "use_vc", "slow", "three_servers",
           "comments", "domain_line", "single_request", "upper_case_answer", "cname", "server_of_ipv6", "dead_first", "servfail_first", "refused_first",
           "garbage", "unknown_option", "aaaa_servfail", "wrong_identification", "lame", "ndots_15", "twice_the_same", "rotate_one", needs=OF_NAMES)
    | mild("silent_first", "aaaa_silent", "dead_suffix", "servfail_suffix", needs=OF_NAMES, timed=True)
    | harmful("nxdomain_first", "nodata_first", "edns_refused", "all_servfail", "all_nxdomain", "short_without_search", "no_server",
              "empty", "good_is_fourth", "wildcard_in_search", "cname_loop", needs=OF_NAMES)
    | harmful("rotate_dead", needs=OF_NAMES, state=True)
    | harmful("all_silent", needs=OF_NAMES, timed=True),
    "edited": usual("before") | mild("hosts_mended_after", "hosts_broken_after", needs=OF_A_TEXT) | mild("resolver_mended_after", needs=OF_EDITED_NAMES)
    | harmful("resolver_broken_after", needs=OF_EDITED_NAMES) | harmful("config_mended_after", "config_broken_after", "path_added_after", "ca_added_after",
    "ca_removed_after", "ca_added_unused",
              "proxy_added_after", "proxy_removed_after",
              needs=OF_A_TEXT | {"config_file": ("own_version",), "proxy": ("none",), "bundle": ("file",)}),
}
# Dimensions that need a containerd of one's own, and with them all that concern each of its pulls.
OWN = ("bundle", "config_file", "proxy", "proxy_vars", "no_proxy", "resolver", "edited")
WIDE = (*OWN, "place", "port")
# Dimensions that say only where another one has its effect.
NODE_SETTINGS = ("tls_at",)
# Worlds with unusual values of these are pulled by the upstream build's defaults too; of the resolver's only those
# that its rules differ in.
BUILD_DECIDES = {"tls": None, "hosts_file": None, "place": None, "resolver": ("edns_refused", "truncated", "trust_ad")}
# What containerd reads when it starts: such a world is pulled by one that was started after the change, too.
HELD_FROM_START = tuple(name for name in NODE["edited"] if name.startswith(("config_", "path_", "ca_", "proxy_")))
