"""hosts.toml as people write it: usual forms, odd ones and broken ones, in classes.

Words between @ are filled in: the URLs of the registry and of its mirror, and paths. A text is the file of
the registry's own folder, or a table of files below certs.d (None: a folder in a file's place).
"""

S = 'server = "@REGISTRY@"\n'
BOTH = '  capabilities = ["pull", "resolve"]\n'
H = '[host."@MIRROR@"]\n' + BOTH
B = '[host."@MIRROR_B@"]\n' + BOTH
NONSENSE_PEM = "-----BEGIN CERTIFICATE-----\\nbm9uc2Vuc2U=\\n-----END CERTIFICATE-----\\n".replace("\\n", "\n")


def at(url, more=""):
    """The mirror's table with another URL."""
    return S + f'[host."{url}"]\n' + BOTH + more


def with_line(line):
    return S + H + f"  {line}\n"


TEXTS = {
    "plain_form": ("mild", {
        "server_and_host": S + H, "host_alone": H, "server_alone": S, "slash_after_server": 'server = "@REGISTRY@/"\n' + H, "slash_after_host": at("@MIRROR@/"),
        "single_quotes": "server = '@REGISTRY@'\n[host.'@MIRROR@']\n  capabilities = ['pull', 'resolve']\n", "commented": "# the mirrors\n" + S + "# first\n" + H + "#[host.x]\n",
        "no_capabilities": S + '[host."@MIRROR@"]\n', "many_lines": S + '[host."@MIRROR@"]\n  capabilities = [\n    "pull",\n    "resolve",\n  ]\n',
        "two_hosts": S + H + B, "upper_case_name": at("https://MIRROR-A.oracle.test:@PORT@"), "push_too": S + '[host."@MIRROR@"]\n  capabilities = ["pull", "resolve", "push"]\n',
        "server_after_nothing": "\n\n" + S + "\n" + H,
    }),
    "dotted": ("mild", {
        "dotted_capabilities": S + 'host."@MIRROR@".capabilities = ["pull", "resolve"]\n', "inline": S + 'host = { "@MIRROR@" = { capabilities = ["pull", "resolve"] } }\n',
        "inline_host": S + '[host]\n"@MIRROR@" = { capabilities = ["pull", "resolve"] }\n', "dotted_below_host": S + '[host]\n"@MIRROR@".capabilities = ["pull", "resolve"]\n',
        "quoted_keys": '"server" = "@REGISTRY@"\n["host"."@MIRROR@"]\n  "capabilities" = ["pull", "resolve"]\n', "blanks_in_header": S + '[ host . "@MIRROR@" ]\n' + BOTH,
        "dotted_two": S + 'host."@MIRROR@".capabilities = ["pull", "resolve"]\nhost."@MIRROR_B@".capabilities = ["pull", "resolve"]\n',
        "dotted_header": S + H + '  header.x-lab = "1"\n',
    }),
    "split": ("harmful", {
        "host_before": S + "[host]\n" + H, "host_after": S + H + "[host]\n", "header_after_other": S + H + B + '[host."@MIRROR@".header]\n  x-lab = "1"\n',
        "header_first": S + '[host."@MIRROR@".header]\n  x-lab = "1"\n' + H, "twice": S + H + H, "server_below_host": H + S, "server_in_host": H + "  " + S,
        "header_only": S + '[host."@MIRROR@".header]\n  x-lab = "1"\n', "other_table_between": S + "[other]\n  x = 1\n" + H,
    }),
    "bad_url": ("harmful", {
        "blank_within": at("https://mirror a:5000"), "bracket": at("https://[::1"), "percent": at("https://%zz"), "port_of_letters": at("https://mirror:port"),
        "no_scheme_name": at(":8080"), "bad_scheme": at("ht!tp://mirror"), "control": at("https://mirror\\u0001:5000"), "bad_then_good": S + '[host."https://%zz"]\n' + BOTH + H,
        "good_then_bad": S + H + '[host."https://mirror a"]\n' + BOTH, "port_too_great": at("https://mirror-a.oracle.test:99999"), "two_colons": at("https://mirror-a.oracle.test:1:2"),
        "tab_within": at("https://mirror\\ta:5000"), "brace": at("https://{mirror}:5000"), "backslash": at("https:\\\\\\\\mirror-a"),
    }),
    "odd_url": ("harmful", {
        "empty": at(""), "no_scheme": at("@MIRROR_HOST@"), "name_only": at("mirror-a.oracle.test"), "slashes_only": at("//@MIRROR_HOST@"), "ftp": at("ftp://@MIRROR_HOST@"),
        "upper_scheme": at("HTTPS://@MIRROR_HOST@"), "user": at("https://ann:pw@@MIRROR_HOST@"), "query": at("@MIRROR@?ns=docker.io"), "fragment": at("@MIRROR@#part"),
        "variable": at("https://${MIRROR}"), "colon_only": at("https://mirror-a.oracle.test:"), "one_slash": at("https:/@MIRROR_HOST@"), "star": at("https://*"),
        "oci": at("oci://@MIRROR_HOST@"), "unicode": at("https://mirrör.oracle.test"), "backslash_n": at("@MIRROR@\\n"), "no_host": at("https://"), "path_only": at("/v2"),
    }),
    "blank_in_url": ("harmful", {
        "after": at("@MIRROR@ "), "before": at(" @MIRROR@"), "tab_after": at("@MIRROR@\\t"), "after_server": 'server = "@REGISTRY@ "\n' + H, "before_server": 'server = " @REGISTRY@"\n' + H,
        "no_break_space": at("@MIRROR@\\u00a0"), "after_slash": at("@MIRROR@/ "),
    }),
    "bad_server": ("harmful", {
        "docker_io": 'server = "https://docker.io"\n' + H, "variable": 'server = "${REGISTRY}"\n' + H, "blank": 'server = " "\n' + H, "empty": 'server = ""\n' + H, "list": 'server = ["@REGISTRY@"]\n' + H,
        "number": "server = 5\n" + H, "no_scheme": 'server = "@AUTHORITY@"\n' + H, "percent": 'server = "https://%zz"\n' + H, "dead": 'server = "@DEAD@"\n' + H, "name_only": 'server = "registry"\n' + H,
        "path": 'server = "@REGISTRY@/v2"\n' + H, "other_path": 'server = "@REGISTRY@/proxy"\n' + H, "mirror_is_server": 'server = "@MIRROR@"\n', "upper": 'Server = "@REGISTRY@"\n' + H,
        "dead_alone": 'server = "@DEAD@"\n', "bool": "server = false\n" + H, "http_of_tls": 'server = "http://@AUTHORITY@"\n' + H,
    }),
    "capabilities": ("harmful", {
        "referrers": with_line('capabilities = ["pull", "resolve", "referrers"]').replace(BOTH, ""), "misspelt": with_line('capabilities = ["pul", "resolve"]').replace(BOTH, ""),
        "none": with_line("capabilities = []").replace(BOTH, ""), "string": with_line('capabilities = "pull"').replace(BOTH, ""), "only_push": with_line('capabilities = ["push"]').replace(BOTH, ""),
        "upper": with_line('capabilities = ["Pull", "Resolve"]').replace(BOTH, ""), "numbers": with_line("capabilities = [1, 2]").replace(BOTH, ""),
        "double": with_line('capabilities = ["pull", "pull", "resolve"]').replace(BOTH, ""), "pull_only": with_line('capabilities = ["pull"]').replace(BOTH, ""),
        "resolve_only": with_line('capabilities = ["resolve"]').replace(BOTH, ""), "empty_word": with_line('capabilities = [""]').replace(BOTH, ""), "capability": with_line('capability = ["pull"]').replace(BOTH, ""),
        "of_server": 'capabilities = ["pull"]\n' + S + H, "of_server_none": "capabilities = []\n" + S + H, "of_server_push": 'capabilities = ["push"]\n' + S,
    }),
    "dial_timeout": ("harmful", {
        "usual": with_line('dial_timeout = "5s"'), "no_unit": with_line('dial_timeout = "5"'), "letters": with_line('dial_timeout = "soon"'), "negative": with_line('dial_timeout = "-1s"'),
        "number": with_line("dial_timeout = 5"), "nought": with_line('dial_timeout = "0s"'), "empty": with_line('dial_timeout = ""'), "tiny": with_line('dial_timeout = "1ns"'),
        "long": with_line('dial_timeout = "1h30m"'), "of_server": 'dial_timeout = "x"\n' + S + H, "blank": with_line('dial_timeout = "5 s"'),
    }),
    "ca": ("harmful", {
        "missing": with_line('ca = "/etc/no/such.pem"'), "missing_of_server": 'ca = "/etc/no/such.pem"\n' + S + H, "given": with_line('ca = "@CA@"'), "given_to_both": 'ca = "@CA@"\n' + with_line('ca = "@CA@"'),
        "list": with_line('ca = ["@CA@"]'), "list_one_missing": with_line('ca = ["@CA@", "/etc/no/such.pem"]'), "nonsense": with_line('ca = "@NONSENSE@"'), "empty_file": with_line('ca = "@EMPTY@"'),
        "folder": with_line('ca = "@FOLDER@"'), "empty": with_line('ca = ""'), "number": with_line("ca = 5"), "relative": with_line('ca = "ca.crt"'), "missing_and_unverified": with_line('ca = "/etc/no/such.pem"\n  skip_verify = true'),
        "missing_of_second": S + H + B + '  ca = "/etc/no/such.pem"\n', "nested_list": with_line('ca = [["@CA@"]]'), "text_itself": with_line('ca = "-----BEGIN CERTIFICATE-----"'), "nonsense_pem": with_line('ca = "@NONSENSE_PEM@"'),
        "relative_beside": {"@AUTHORITY@/hosts.toml": with_line('ca = "beside.crt"'), "@AUTHORITY@/beside.crt": "@CA_TEXT@"},
    }),
    "client": ("harmful", {
        "pair": 'client = [["@CLIENT@", "@KEY@"]]\n' + with_line('client = [["@CLIENT@", "@KEY@"]]'), "pair_flat": 'client = ["@CLIENT@", "@KEY@"]\n' + with_line('client = ["@CLIENT@", "@KEY@"]'),
        "combined": 'client = "@COMBINED@"\n' + with_line('client = "@COMBINED@"'), "missing": with_line('client = [["/etc/no/such.pem", "@KEY@"]]'), "missing_key": with_line('client = [["@CLIENT@", "/etc/no/such.key"]]'),
        "certificate_alone": with_line('client = "@CLIENT@"'), "pair_with_empty": with_line('client = [["@CLIENT@", ""]]'), "three": with_line('client = [["@CLIENT@", "@KEY@", "x"]]'), "empty": with_line('client = ""'),
        "number": with_line("client = 5"), "wrong_key": with_line('client = [["@CLIENT@", "@OTHER_KEY@"]]'), "empty_list": with_line("client = []"),
    }),
    "header": ("harmful", {
        "string": with_line('[host."@MIRROR@".header]\n    x-lab = "1"'), "list": with_line('[host."@MIRROR@".header]\n    x-lab = ["1", "2"]'), "number": with_line('[host."@MIRROR@".header]\n    x-lab = 5'),
        "authorization": with_line('[host."@MIRROR@".header]\n    Authorization = "Basic bm9uZTpub25l"'), "host": with_line('[host."@MIRROR@".header]\n    Host = "elsewhere.example"'),
        "empty": with_line('[host."@MIRROR@".header]'), "bad_name": with_line('[host."@MIRROR@".header]\n    "x lab" = "1"'), "line_break": with_line('[host."@MIRROR@".header]\n    x-lab = "1\\r\\nx: y"'),
        "of_server": S + '[header]\n  x-lab = "1"\n' + H, "not_a_table": with_line('header = "x"'), "accept": with_line('[host."@MIRROR@".header]\n    Accept = "text/plain"'),
        "mixed_list": with_line('[host."@MIRROR@".header]\n    x-lab = ["1", 2]'),
    }),
    "override_path": ("harmful", {
        "with_v2": at("@MIRROR@/v2", "  override_path = true\n"), "without_path": with_line("override_path = true"), "string": with_line('override_path = "true"'), "false_with_v2": at("@MIRROR@/v2", "  override_path = false\n"),
        "of_server": "override_path = true\n" + 'server = "@REGISTRY@/v2"\n' + H, "of_server_without": "override_path = true\n" + S + H, "slash_after": at("@MIRROR@/v2/", "  override_path = true\n"), "number": with_line("override_path = 1"),
        "with_name": at("@MIRROR@/v2/team", "  override_path = true\n"),
    }),
    "skip_verify": ("harmful", {
        "true": with_line("skip_verify = true"), "string": with_line('skip_verify = "true"'), "number": with_line("skip_verify = 1"), "false": with_line("skip_verify = false"), "of_server": "skip_verify = true\n" + S + H,
        "of_both": "skip_verify = true\n" + with_line("skip_verify = true"), "upper": with_line("skip_verify = True"), "with_ca": with_line('skip_verify = true\n  ca = "@CA@"'), "dash": with_line("skip-verify = true"), "insecure": with_line("insecure_skip_verify = true"),
    }),
    "plain_http": ("harmful", {
        "mirror": at("@PLAIN@"), "mirror_unverified": at("@PLAIN@", "  skip_verify = true\n"), "to_tls": at("@PLAIN_TO_TLS@"), "tls_to_plain": at("@TLS_TO_PLAIN@"), "tls_to_plain_unverified": at("@TLS_TO_PLAIN@", "  skip_verify = true\n"),
        "server_to_tls": 'server = "http://@AUTHORITY@"\n', "host_to_tls": S + '[host."http://@AUTHORITY@"]\n' + BOTH, "plain_name_without_port": at("http://mirror-a.oracle.test"), "upper": at("HTTP://@PLAIN_HOST@"),
    }),
    "path": ("harmful", {
        "v2": at("@MIRROR@/v2"), "v2_slash": at("@MIRROR@/v2/"), "double_slash": at("@MIRROR@//"), "v1": at("@MIRROR@/v1"), "deep": at("@MIRROR@/a/b/c"), "v2_within": at("@MIRROR@/x/v2"), "v2_first": at("@MIRROR@/v2/x"), "dots": at("@MIRROR@/../"),
        "escaped": at("@MIRROR@/%2f"), "upper_v2": at("@MIRROR@/V2"), "query_after_v2": at("@MIRROR@/v2?x=1"),
    }),
    "encoding": ("harmful", {
        "bom": "\ufeff" + S + H, "crlf": (S + H).replace("\n", "\r\n"), "cr": (S + H).replace("\n", "\r"), "no_last_line_end": (S + H).rstrip("\n"), "tabs": S + H.replace("  cap", "\tcap"), "nul": S + "\0\n" + H, "no_break": S + "\u00a0\n" + H,
        "typographic": S.replace('"', "\u201d") + H, "unicode_comment": "# Spiegel für Büro 北京\n" + S + H, "form_feed": S + "\f\n" + H, "zero_width": S + "[host.\"\u200b@MIRROR@\"]\n" + BOTH, "long_comment": "# " + "x" * 70_000 + "\n" + S + H,
        "latin_1": {"@AUTHORITY@/hosts.toml": b"# B\xfcro\n" + (S + H).encode()}, "utf_16": {"@AUTHORITY@/hosts.toml": (S + H).encode("utf-16")},
    }),
    "empty": ("mild", {
        "nothing": "", "blank_lines": "\n\n  \n", "comments": "# nothing yet\n# [host.x]\n", "host_alone": "[host]\n", "host_inline": "host = {}\n", "server_of_nothing": 'server = ""\n', "only_blank": " ",
    }),
    "wrong_type": ("harmful", {
        "host_string": S + 'host = "@MIRROR@"\n', "host_list": S + 'host = ["@MIRROR@"]\n', "host_array": S + '[[host]]\n  url = "@MIRROR@"\n', "host_of_string": S + '[host]\n"@MIRROR@" = "pull"\n', "host_of_bool": S + '[host]\n"@MIRROR@" = true\n',
        "unknown_top": 'mirrors = ["@MIRROR@"]\n' + S + H, "unknown_in_host": with_line('priority = 5'), "unknown_table": S + H + "[tls]\n  x = 1\n", "array_of_host": S + '[[host."@MIRROR@"]]\n' + BOTH, "hosts_for_host": S + H.replace("[host.", "[hosts."),
        "number_key": S + "[host.5]\n" + BOTH, "bare_url": S + "[host.@MIRROR@]\n" + BOTH, "bare_name": S + "[host.mirror-a]\n" + BOTH, "table_of_capabilities": S + '[host."@MIRROR@".capabilities]\n  pull = true\n',
    }),
    "syntax": ("harmful", {
        "server_twice": S + S + H, "no_quote": 'server = "@REGISTRY@\n' + H, "no_bracket": S + '[host."@MIRROR@"\n' + BOTH, "no_quotes": "server = @REGISTRY@\n" + H, "merge_marks": S + "<<<<<<< HEAD\n" + H + "=======\n>>>>>>> x\n",
        "json": '{"server": "@REGISTRY@"}\n', "yaml": "server: @REGISTRY@\nhost:\n  - @MIRROR@\n", "words": "this is no configuration\n", "no_comma": S + '[host."@MIRROR@"]\n  capabilities = ["pull" "resolve"]\n', "comma_after": S + '[host."@MIRROR@"]\n  capabilities = ["pull", "resolve",]\n',
        "semicolon": S.rstrip("\n") + ";\n" + H, "bad_escape": 'server = "@REGISTRY@\\d"\n' + H, "key_twice": with_line('capabilities = ["pull"]'), "error_at_end": S + H + "oops\n",
    }),
    # With these a containerd 1.6 ends, and with it every pull of the node.
    "deadly": ("harmful", {"no_value": "server =\n" + H}),
    "folder": ("harmful", {
        "default": {"_default/hosts.toml": H}, "default_with_server": {"_default/hosts.toml": S + H}, "port_in_name": {"@NAME@_@PORT@_/hosts.toml": S + H}, "name_without_port": {"@NAME@/hosts.toml": S + H},
        "both": {"@AUTHORITY@/hosts.toml": S, "_default/hosts.toml": H}, "both_ports": {"@AUTHORITY@/hosts.toml": S, "@NAME@_@PORT@_/hosts.toml": S + H}, "upper_case": {"@UPPER@/hosts.toml": S + H},
        "other_file": {"@AUTHORITY@/Hosts.toml": S + H}, "hosts_is_folder": {"@AUTHORITY@/hosts.toml": None}, "empty_folder": {"@AUTHORITY@/x": None}, "folder_is_file": {"@AUTHORITY@": "x"}, "empty_folder_and_default": {"@AUTHORITY@/x": None, "_default/hosts.toml": H},
        "star": {"*/hosts.toml": H}, "url_as_name": {"https:@AUTHORITY@/hosts.toml": S + H}, "default_of_other": {"_default/hosts.toml": 'server = "@DEAD@"\n'},
    }),
    "crt_beside": ("mild", {
        "ca": {"@AUTHORITY@/ca.crt": "@CA_TEXT@"}, "ca_and_hosts": {"@AUTHORITY@/ca.crt": "@CA_TEXT@", "@AUTHORITY@/hosts.toml": S + H}, "ca_and_broken_hosts": {"@AUTHORITY@/ca.crt": "@CA_TEXT@", "@AUTHORITY@/hosts.toml": S + H + "oops\n"},
        "nonsense": {"@AUTHORITY@/ca.crt": "nonsense"}, "nonsense_pem": {"@AUTHORITY@/ca.crt": NONSENSE_PEM}, "client": {"@AUTHORITY@/client.cert": "@CLIENT_TEXT@", "@AUTHORITY@/client.key": "@KEY_TEXT@"},
        "client_without_key": {"@AUTHORITY@/client.cert": "@CLIENT_TEXT@"}, "key_alone": {"@AUTHORITY@/client.key": "@KEY_TEXT@"}, "ca_and_bad_url": {"@AUTHORITY@/ca.crt": "@CA_TEXT@", "@AUTHORITY@/hosts.toml": at("https://%zz")},
        "ca_pem": {"@AUTHORITY@/ca.pem": "@CA_TEXT@"}, "ca_and_client": {"@AUTHORITY@/ca.crt": "@CA_TEXT@", "@AUTHORITY@/client.cert": "@CLIENT_TEXT@", "@AUTHORITY@/client.key": "@KEY_TEXT@"}, "crt_is_folder": {"@AUTHORITY@/ca.crt": None},
    }),
    "order": ("mild", {
        "second_good": S + '[host."@DEAD@"]\n' + BOTH + H, "registry_first": S + '[host."@REGISTRY@"]\n' + BOTH + H, "registry_resolves": S + '[host."@REGISTRY@"]\n  capabilities = ["resolve"]\n' + H, "same_twice_by_case": S + H + '[host."HTTPS://@MIRROR_HOST@"]\n' + BOTH,
        "b_then_a": S + B + H, "three": S + '[host."@DEAD@"]\n' + BOTH + B + H, "names_backwards": S + '[host."https://z.dead.oracle.test"]\n' + BOTH + H, "slash_makes_two": S + H + '[host."@MIRROR@/"]\n' + BOTH,
    }),
}
