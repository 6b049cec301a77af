"""config.toml of all versions, whole and broken, in classes.

A text is a table of files; the one that containerd is started with is config.toml. Words between @ are
filled in: @BASE@ is where this containerd lives, @CERTS@ its certs.d, and the registry's URLs.
"""

BASE = 'root = "@FOLDER@/root"\nstate = "@FOLDER@/state"\n'
GRPC = '[grpc]\n  address = "@FOLDER@/s.sock"\n'
CRI_1, CRI_2 = "plugins.cri", 'plugins."io.containerd.grpc.v1.cri"'
CRI_3 = 'plugins."io.containerd.cri.v1.images"'
PATH = '  config_path = "@CERTS@"\n'


def file(version, body, more=""):
    """The main file of this version; `more` stands before its first table."""
    line = f"version = {version}\n" if version else ""
    return {"config.toml": line + BASE + more + GRPC + body}


def registry(plugin, lines=PATH):
    return f"[{plugin}.registry]\n{lines}"


def cri(lines):
    """The same settings of the registry for each release, by its own version of the file."""
    return {"1": file(2, registry(CRI_2, lines)), "2": file(3, registry(CRI_3, lines))}


def tables(text, path=""):
    """`[registry.X]` made of the plugin's name, for each release."""
    return {
        release: file(version, registry(plugin, path) + text.replace("[registry.", f"[{plugin}.registry."))
        for release, version, plugin in (("1", 2, CRI_2), ("2", 3, CRI_3))
    }


def imported(main, files, imports):
    """A main file with imports, and the others."""
    return {
        "1": {**file(2, main[0], f"imports = {imports}\n"), **{name: "version = 2\n" + text for name, text in files[0].items()}},
        "2": {**file(3, main[1], f"imports = {imports}\n"), **{name: "version = 3\n" + text for name, text in files[1].items()}},
    }


def both(text):
    """A piece with the plugin's table for each release."""
    return tuple(text.replace("[CRI", f"[{plugin}") for plugin in (CRI_2, CRI_3))


def simple_import(name, imports, text="[CRI.registry]\n" + PATH, main=""):
    first, second = both(text)
    return imported(both(main), ({name: first}, {name: second}), imports)


MIRROR = '[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR@"]\n'
AUTH = '[registry.configs."@AUTHORITY@".auth]\n  username = "ann"\n  password = "pw-good-71"\n'

TEXTS = {
    "no_config_path": (
        "mild",
        {"nothing": {"1": file(2, ""), "2": file(3, "")}, "empty_path": cri('  config_path = ""\n'), "registry_only": cri("")},
    ),
    "odd_form": (
        "mild",
        {
            "dotted": {
                "1": file(2, "", f'{CRI_2}.registry.config_path = "@CERTS@"\n'),
                "2": file(3, "", f'{CRI_3}.registry.config_path = "@CERTS@"\n'),
            },
            "single_quotes": {"1": file(2, registry(CRI_2.replace('"', "'"))), "2": file(3, registry(CRI_3.replace('"', "'")))},
            "commented": cri("# mirrors\n" + PATH + "# end\n"),
            "slash_after": cri('  config_path = "@CERTS@/"\n'),
            "crlf": {key: {"config.toml": text["config.toml"].replace("\n", "\r\n")} for key, text in cri(PATH).items()},
            "upper_case_key": cri('  Config_Path = "@CERTS@"\n'),
            "inline": {
                "1": file(2, f'[{CRI_2}]\n  registry = {{ config_path = "@CERTS@" }}\n'),
                "2": file(3, f'[{CRI_3}]\n  registry = {{ config_path = "@CERTS@" }}\n'),
            },
            "headers": tables('[registry.headers]\n  X-Lab = ["1"]\n', PATH),
            "dots_in_path": cri('  config_path = "@CERTS@/../certs.d"\n'),
        },
    ),
    "other_version": (
        "harmful",
        {
            "version_1": file(1, registry(CRI_1)),
            "version_1_unnamed": file(None, registry(CRI_1)),
            "version_2": file(2, registry(CRI_2)),
            "version_3": file(3, registry(CRI_3)),
            "version_4": file(4, registry(CRI_3)),
            "version_0": file(0, registry(CRI_1)),
            "version_string": {"config.toml": 'version = "2"\n' + BASE + GRPC + registry(CRI_2)},
            "version_negative": file(-1, registry(CRI_2)),
            "version_below": {"config.toml": BASE + GRPC + registry(CRI_2) + "\nversion = 2\n"},
            "version_float": {"config.toml": "version = 2.0\n" + BASE + GRPC + registry(CRI_2)},
        },
    ),
    "names_of_other": (
        "harmful",
        {
            "2_without_version": file(None, registry(CRI_2)),
            "3_without_version": file(None, registry(CRI_3)),
            "1_in_2": file(2, registry(CRI_1)),
            "2_in_3": file(3, registry(CRI_2)),
            "3_in_2": file(2, registry(CRI_3)),
            "1_in_3": file(3, registry(CRI_1)),
            "misspelt": file(2, registry('plugins."io.containerd.grpc.v1.cri-registry"')),
            "below_cri": file(2, f"[{CRI_2}]\n{PATH}"),
            "config_path_of_containerd": file(2, f"[{CRI_2}.containerd]\n{PATH}"),
            "both_2_and_3": file(2, registry(CRI_2) + registry(CRI_3)),
            "3_runtime": file(3, registry('plugins."io.containerd.cri.v1.runtime"')),
            "quoted_whole": file(2, '["plugins.io.containerd.grpc.v1.cri.registry"]\n' + PATH),
        },
    ),
    "imports": (
        "mild",
        {
            "absolute": simple_import("more.toml", '["@FOLDER@/more.toml"]'),
            "relative": simple_import("more.toml", '["more.toml"]'),
            "glob": simple_import("conf.d/a.toml", '["@FOLDER@/conf.d/*.toml"]'),
            "glob_relative": simple_import("conf.d/a.toml", '["conf.d/*.toml"]'),
            "no_match": simple_import("more.toml", '["@FOLDER@/none.d/*.toml", "@FOLDER@/more.toml"]'),
            "overrides": simple_import("more.toml", '["@FOLDER@/more.toml"]', main='[CRI.registry]\n  config_path = "/etc/no/such"\n'),
            "overridden_by_empty": simple_import(
                "more.toml", '["@FOLDER@/more.toml"]', '[CRI.registry]\n  config_path = ""\n', "[CRI.registry]\n" + PATH
            ),
            "unrelated": simple_import("more.toml", '["@FOLDER@/more.toml"]', '[debug]\n  level = "info"\n', "[CRI.registry]\n" + PATH),
            "other_plugin_setting": simple_import(
                "more.toml", '["@FOLDER@/more.toml"]', "[CRI]\n  max_concurrent_downloads = 2\n", "[CRI.registry]\n" + PATH
            ),
        },
    ),
    "imports_broken": (
        "harmful",
        {
            "missing": simple_import("more.toml", '["@FOLDER@/none.toml", "@FOLDER@/more.toml"]'),
            "itself": simple_import("more.toml", '["@FOLDER@/config.toml", "@FOLDER@/more.toml"]'),
            "syntax": simple_import("more.toml", '["@FOLDER@/more.toml"]', "oops\n", "[CRI.registry]\n" + PATH),
            "older_version": {
                "1": {
                    **file(2, registry(CRI_2), 'imports = ["@FOLDER@/more.toml"]\n'),
                    "more.toml": registry(CRI_1, '  config_path = "/etc/no/such"\n'),
                },
                "2": {
                    **file(3, registry(CRI_3), 'imports = ["@FOLDER@/more.toml"]\n'),
                    "more.toml": "version = 2\n" + registry(CRI_2, '  config_path = "/etc/no/such"\n'),
                },
            },
            "without_version": {
                "1": {**file(2, "", 'imports = ["@FOLDER@/more.toml"]\n'), "more.toml": registry(CRI_2)},
                "2": {**file(3, "", 'imports = ["@FOLDER@/more.toml"]\n'), "more.toml": registry(CRI_3)},
            },
            "adds_mirrors": {
                key: {
                    **text,
                    "more.toml": f"version = {2 if key == '1' else 3}\n[{CRI_2 if key == '1' else CRI_3}.registry.mirrors.\"@AUTHORITY@\"]\n  endpoint = [\"@MIRROR@\"]\n",
                }
                for key, text in {
                    "1": file(2, registry(CRI_2), 'imports = ["@FOLDER@/more.toml"]\n'),
                    "2": file(3, registry(CRI_3), 'imports = ["@FOLDER@/more.toml"]\n'),
                }.items()
            },
            "string": simple_import("more.toml", '"@FOLDER@/more.toml"'),
            "folder": simple_import("conf.d/a.toml", '["@FOLDER@/conf.d"]'),
            "newer_version": {
                "1": {**file(2, "", 'imports = ["@FOLDER@/more.toml"]\n'), "more.toml": "version = 3\n" + registry(CRI_3)},
                "2": {**file(2, "", 'imports = ["@FOLDER@/more.toml"]\n'), "more.toml": "version = 3\n" + registry(CRI_3)},
            },
        },
    ),
    "mirrors": (
        "mild",
        {
            "one": tables(MIRROR),
            "with_registry": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR@", "@REGISTRY@"]\n'),
            "two": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@DEAD@", "@MIRROR@"]\n'),
            "star": tables('[registry.mirrors."*"]\n  endpoint = ["@MIRROR@"]\n'),
            "star_and_own": tables('[registry.mirrors."*"]\n  endpoint = ["@DEAD@"]\n' + MIRROR),
            "other_host": tables('[registry.mirrors."docker.io"]\n  endpoint = ["@MIRROR@"]\n'),
            "name_without_port": tables('[registry.mirrors."@NAME@"]\n  endpoint = ["@MIRROR@"]\n'),
            "v2_path": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR@/v2"]\n'),
            "slash_after": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR@/"]\n'),
            "plain": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@PLAIN@"]\n'),
            "no_endpoint": tables('[registry.mirrors."@AUTHORITY@"]\n'),
            "empty_endpoint": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = []\n'),
        },
    ),
    "mirrors_broken": (
        "harmful",
        {
            "bad_url": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["https://%zz"]\n'),
            "bad_then_good": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["https://mirror a", "@MIRROR@"]\n'),
            "no_scheme": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR_HOST@"]\n'),
            "string": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = "@MIRROR@"\n'),
            "endpoints": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoints = ["@MIRROR@"]\n'),
            "url_as_key": tables('[registry.mirrors."@REGISTRY@"]\n  endpoint = ["@MIRROR@"]\n'),
            "registry_plain": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["http://@AUTHORITY@"]\n'),
            "dead_only": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@DEAD@"]\n'),
            "blank_after": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR@ "]\n'),
            "deep_path": tables('[registry.mirrors."@AUTHORITY@"]\n  endpoint = ["@MIRROR@/x/y"]\n'),
            "bare_key": tables('[registry.mirrors.registry]\n  endpoint = ["@MIRROR@"]\n'),
        },
    ),
    "tls_tables": (
        "mild",
        {
            "ca_file": tables('[registry.configs."@AUTHORITY@".tls]\n  ca_file = "@CA@"\n'),
            "unverified": tables('[registry.configs."@AUTHORITY@".tls]\n  insecure_skip_verify = true\n'),
            "client": tables('[registry.configs."@AUTHORITY@".tls]\n  cert_file = "@CLIENT@"\n  key_file = "@KEY@"\n'),
            "of_mirror": tables(MIRROR + '[registry.configs."@MIRROR_HOST@".tls]\n  ca_file = "@CA@"\n'),
            "ca_missing": tables('[registry.configs."@AUTHORITY@".tls]\n  ca_file = "/etc/no/such.pem"\n'),
            "by_name": tables('[registry.configs."@NAME@".tls]\n  insecure_skip_verify = true\n'),
            "ca_nonsense": tables('[registry.configs."@AUTHORITY@".tls]\n  ca_file = "@NONSENSE@"\n'),
            "half_client": tables('[registry.configs."@AUTHORITY@".tls]\n  cert_file = "@CLIENT@"\n'),
        },
    ),
    "beside_config_path": (
        "harmful",
        {
            "mirrors": tables(MIRROR, PATH),
            "tls": tables('[registry.configs."@AUTHORITY@".tls]\n  insecure_skip_verify = true\n', PATH),
            "empty_mirrors": tables("[registry.mirrors]\n", PATH),
            "empty_configs": tables("[registry.configs]\n", PATH),
            "tls_empty": tables('[registry.configs."@AUTHORITY@".tls]\n', PATH),
            "mirrors_of_other": tables('[registry.mirrors."docker.io"]\n  endpoint = ["https://registry-1.docker.io"]\n', PATH),
            "mirrors_and_empty_path": tables(MIRROR, '  config_path = ""\n'),
            "headers": tables('[registry.headers]\n  X-Lab = ["1"]\n', PATH),
            "mirror_without_endpoint": tables('[registry.mirrors."@AUTHORITY@"]\n', PATH),
        },
    ),
    "login": (
        "mild",
        {
            "password": tables(AUTH),
            "password_beside_path": tables(AUTH, PATH),
            "auth": tables('[registry.configs."@AUTHORITY@".auth]\n  auth = "YW5uOnB3LWdvb2QtNzE="\n', PATH),
            "old_auths": tables('[registry.auths."@REGISTRY@"]\n  username = "ann"\n  password = "pw-good-71"\n'),
            "old_auths_beside_path": tables('[registry.auths."@REGISTRY@"]\n  username = "ann"\n  password = "pw-good-71"\n', PATH),
            "with_mirror": tables(MIRROR + AUTH),
            "mirror_has_it": tables(MIRROR + AUTH.replace("@AUTHORITY@", "@MIRROR_HOST@")),
            "k3s": tables(AUTH + '[registry.configs."@MIRROR_HOST@".auth]\n  username = "ann"\n  password = "pw-good-71"\n', PATH),
        },
    ),
    "login_broken": (
        "harmful",
        {
            "wrong": tables(AUTH.replace("pw-good-71", "pw-stale-13"), PATH),
            "by_name": tables(AUTH.replace("@AUTHORITY@", "@NAME@"), PATH),
            "by_url": tables(AUTH.replace("@AUTHORITY@", "@REGISTRY@"), PATH),
            "other_host": tables(AUTH.replace("@AUTHORITY@", "docker.io"), PATH),
            "auth_nonsense": tables('[registry.configs."@AUTHORITY@".auth]\n  auth = "%%%"\n', PATH),
            "auth_without_colon": tables('[registry.configs."@AUTHORITY@".auth]\n  auth = "YW5u"\n', PATH),
            "token": tables('[registry.configs."@AUTHORITY@".auth]\n  identitytoken = "nonsense"\n', PATH),
            "auths_by_name": tables('[registry.auths."@AUTHORITY@"]\n  username = "ann"\n  password = "pw-good-71"\n'),
            "user_alone": tables('[registry.configs."@AUTHORITY@".auth]\n  username = "ann"\n', PATH),
            "auth_and_auths": tables(
                AUTH.replace("pw-good-71", "pw-stale-13") + '[registry.auths."@REGISTRY@"]\n  username = "ann"\n  password = "pw-good-71"\n'
            ),
        },
    ),
    "path_list": (
        "harmful",
        {
            "second_has_it": cri('  config_path = "/etc/no/such:@CERTS@"\n'),
            "first_has_it": cri('  config_path = "@CERTS@:/etc/no/such"\n'),
            "colon_after": cri('  config_path = "@CERTS@:"\n'),
            "colon_before": cri('  config_path = ":@CERTS@"\n'),
            "as_by_default": cri('  config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"\n'),
            "comma": cri('  config_path = "/etc/no/such,@CERTS@"\n'),
            "both": cri('  config_path = "@CERTS@:@CERTS@"\n'),
            "blank_after_colon": cri('  config_path = "/etc/no/such: @CERTS@"\n'),
        },
    ),
    "path_odd": (
        "harmful",
        {
            "absent": cri('  config_path = "/etc/no/such"\n'),
            "relative": cri('  config_path = "certs.d"\n'),
            "tilde": cri('  config_path = "~/certs.d"\n'),
            "variable": cri('  config_path = "$HOME/certs.d"\n'),
            "list": cri('  config_path = ["@CERTS@"]\n'),
            "number": cri("  config_path = 5\n"),
            "file": cri('  config_path = "@FOLDER@/config.toml"\n'),
            "blank_after": cri('  config_path = "@CERTS@ "\n'),
            "of_registry": cri('  config_path = "@CERTS@/@AUTHORITY@"\n'),
            "hosts_toml": cri('  config_path = "@CERTS@/@AUTHORITY@/hosts.toml"\n'),
            "twice": cri(PATH + PATH),
        },
    ),
    "does_not_load": (
        "harmful",
        {
            "syntax": file(2, registry(CRI_2) + "oops\n"),
            "bom": {"config.toml": "\ufeff" + file(2, registry(CRI_2))["config.toml"]},
            "cri_disabled": file(2, registry(CRI_2), 'disabled_plugins = ["cri"]\n'),
            "cri_disabled_by_uri": file(2, registry(CRI_2), 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'),
            "images_disabled": file(2, registry(CRI_2), 'disabled_plugins = ["io.containerd.cri.v1.images"]\n'),
            "unknown_key": file(2, registry(CRI_2), "colour = 5\n"),
            "unknown_in_cri": file(2, f"[{CRI_2}]\n  colour = 5\n" + registry(CRI_2)),
            "wrong_type_in_cri": file(2, f'[{CRI_2}]\n  max_concurrent_downloads = "3"\n' + registry(CRI_2)),
            "table_twice": file(2, registry(CRI_2) + registry(CRI_2)),
            "registry_string": file(2, f'[{CRI_2}]\n  registry = "@CERTS@"\n'),
            "required_absent": file(2, registry(CRI_2), 'required_plugins = ["io.containerd.grpc.v1.none"]\n'),
            "transfer_disabled": file(2, registry(CRI_2), 'disabled_plugins = ["io.containerd.transfer.v1.local"]\n'),
        },
    ),
    "release_settings": (
        "mild",
        {
            "local_pull": {"1": file(2, registry(CRI_2)), "2": file(3, f"[{CRI_3}]\n  use_local_image_pull = true\n" + registry(CRI_3))},
            "downloads": {
                "1": file(2, f"[{CRI_2}]\n  max_concurrent_downloads = 1\n" + registry(CRI_2)),
                "2": file(3, f"[{CRI_3}]\n  max_concurrent_downloads = 1\n" + registry(CRI_3)),
            },
            "local_pull_and_list": {
                "1": cri('  config_path = "/etc/no/such:@CERTS@"\n')["1"],
                "2": file(3, f"[{CRI_3}]\n  use_local_image_pull = true\n" + registry(CRI_3, '  config_path = "/etc/no/such:@CERTS@"\n')),
            },
            "transfer_path": {
                "1": file(2, registry(CRI_2)),
                "2": file(3, registry(CRI_3) + '[plugins."io.containerd.transfer.v1.local"]\n  config_path = "@CERTS@"\n'),
            },
            "transfer_path_only": {
                "1": file(2, registry(CRI_2)),
                "2": file(3, '[plugins."io.containerd.transfer.v1.local"]\n  config_path = "@CERTS@"\n'),
            },
        },
    ),
}
