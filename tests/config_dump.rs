//! Beside `containerd config dump` of three real releases: what is read of a `config.toml` is what they read,
//! and what they refuse to start with is refused.
//!
//! `cargo test --test config_dump -- --nocapture` prints the table.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "this is test code"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use pullpath::containerd::behaviour::{Behaviour, Release};
use pullpath::containerd::config_files::ConfigFiles;
use pullpath::containerd::config_toml::{Auth, CriSettings, Stop, decode};
use pullpath::model::runtime::Runtime;
use pullpath::redact::Secret;
use serde_json::{Value, json};

/// A configuration: its name, the main file, and the files beside it.
type Config = (String, String, Vec<(&'static str, String)>);

const V1: &str = "plugins.cri";
const V2: &str = "plugins.'io.containerd.grpc.v1.cri'";
const V3: &str = "plugins.'io.containerd.cri.v1.images'";

/// Bodies that are put under each section, in a file of each version.
const BODIES: &[(&str, &str)] = &[
    (
        "path",
        "[S.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
    ),
    (
        "list",
        "[S.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
    ),
    (
        "mirrors",
        "[S.registry.mirrors.'docker.io']\nendpoint = ['https://a.example.com', 'b.example.com']\n\
         [S.registry.mirrors.'*']\nendpoint = []\n[S.registry.mirrors.none]\n",
    ),
    (
        "k3s",
        "[S]\nmax_concurrent_downloads = 3\n[S.registry]\nconfig_path = '/c'\n\
         [S.registry.configs.'r.example.com:5000'.auth]\nusername = 'ann'\npassword = 'pw'\n\
         [S.registry.configs.'r.example.com:5000'.tls]\nca_file = '/ca.pem'\ninsecure_skip_verify = true\n",
    ),
    (
        "auths",
        "[S.registry.auths.'https://r.example.com']\nauth = 'YTpi'\nidentitytoken = 'i'\n\
         [S.registry.headers]\nX-Meta-Source-Client = ['containerd', 'two']\n",
    ),
];

/// Files of a kind of their own.
const SINGLE: &[(&str, &str)] = &[
    ("empty", ""),
    ("version only", "version = 2\n"),
    (
        "version 4",
        "version = 4\n[S2.registry]\nconfig_path = '/a'\n",
    ),
    ("version as text", "version = '2'\n"),
    (
        "version 0",
        "version = 0\n[S1.registry]\nconfig_path = '/a'\n",
    ),
    (
        "two names in version 2",
        "version = 2\n[S2.registry]\nconfig_path = '/a'\n[S3.registry]\nconfig_path = '/b'\n",
    ),
    (
        "two names in version 3",
        "version = 3\n[S2.registry]\nconfig_path = '/a'\n[S3.registry]\nconfig_path = '/b'\n",
    ),
    (
        "two names in version 1",
        "[S1.registry]\nconfig_path = '/a'\n[S3.registry]\nconfig_path = '/b'\n",
    ),
    ("no table", "version = 2\nplugins = 5\n"),
    (
        "path is no text",
        "version = 2\n[S2.registry]\nconfig_path = 5\n",
    ),
    (
        "path is no text in version 3",
        "version = 3\n[S3.registry]\nconfig_path = ['a']\n",
    ),
    (
        "endpoint is no list",
        "version = 2\n[S2.registry.mirrors.x]\nendpoint = 'https://a'\n",
    ),
    (
        "password is a number",
        "version = 2\n[S2.registry.configs.x.auth]\npassword = 5\n",
    ),
    (
        "header is no list",
        "version = 2\n[S2.registry.headers]\nX = 'a'\n",
    ),
    (
        "registry is no table",
        "version = 2\n[S2]\nregistry = 'a'\n",
    ),
    (
        "unknown keys",
        "version = 2\nnothing = 1\n[S2]\nnone = 2\n[S2.registry]\nconfig_paht = '/a'\n[S2.registry.mirrors.x]\nrewrite = {a = 'b'}\n",
    ),
    (
        "inline",
        "version = 2\n[S2]\nregistry = {config_path = '/a', configs = {h = {auth = {username = 'u'}}}}\n",
    ),
    (
        "dotted",
        "version = 2\nS2.registry.config_path = '/a'\nS2.registry.mirrors.x.endpoint = ['https://a']\n",
    ),
    (
        "timeout",
        "version = 2\n[S2]\nimage_pull_progress_timeout = '1m30s'\n",
    ),
    (
        "timeout is empty",
        "version = 2\n[S2]\nimage_pull_progress_timeout = ''\n",
    ),
    (
        "timeout is none",
        "version = 2\n[S2]\nimage_pull_progress_timeout = 'soon'\n",
    ),
    (
        "timeout is a number",
        "version = 2\n[S2]\nimage_pull_progress_timeout = 5\n",
    ),
    (
        "downloads",
        "version = 2\n[S2]\nmax_concurrent_downloads = 10\n",
    ),
    (
        "annotations",
        "version = 2\n[S2.containerd]\ndisable_snapshot_annotations = false\n",
    ),
    (
        "annotations beside runtimes",
        "version = 2\n[S2.containerd]\ndisable_snapshot_annotations = false\n[S2.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n",
    ),
    (
        "annotations in version 3",
        "version = 3\n[S3]\ndisable_snapshot_annotations = false\n",
    ),
    (
        "local pull",
        "version = 3\n[S3]\nuse_local_image_pull = true\n[S3.registry]\nconfig_path = '/a:/b'\n",
    ),
    (
        "local pull in version 2",
        "version = 2\n[S2]\nuse_local_image_pull = true\n",
    ),
    (
        "transfer service",
        "version = 3\n[plugins.'io.containerd.transfer.v1.local']\nconfig_path = '/a'\n",
    ),
    ("docker's file", "disabled_plugins = ['cri']\n"),
    (
        "disabled in version 2",
        "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n[S2.registry]\nconfig_path = '/a'\n",
    ),
    (
        "disabled in version 3",
        "version = 3\ndisabled_plugins = ['io.containerd.cri.v1.images']\n",
    ),
    (
        "disabled by its old name",
        "version = 2\ndisabled_plugins = ['cri']\n",
    ),
    (
        "disabled is no list",
        "version = 2\ndisabled_plugins = 'cri'\n",
    ),
    ("no toml", "version = 2\n[plugins\n"),
    (
        "twice",
        "version = 2\n[S2.registry]\nconfig_path = '/a'\n[S2.registry]\nconfig_path = '/b'\n",
    ),
    ("imports is no list", "version = 2\nimports = 'a.toml'\n"),
];

/// The main file, and the others.
type Imports = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);
const IMPORTS: &[Imports] = &[
    (
        "one beside",
        "version = 2\nimports = ['a.toml']\n[S2.registry]\nconfig_path = '/main'\n",
        &[(
            "a.toml",
            "version = 2\n[S2.registry.configs.h.auth]\nusername = 'u'\n",
        )],
    ),
    (
        "without a version",
        "version = 2\nimports = ['a.toml']\n[S2.registry]\nconfig_path = '/main'\n",
        &[("a.toml", "[S2.registry]\nconfig_path = '/a'\n")],
    ),
    (
        "of version 1",
        "version = 2\nimports = ['a.toml']\n",
        &[("a.toml", "version = 1\n[S1.registry]\nconfig_path = '/a'\n")],
    ),
    (
        "of version 2 into version 3",
        "version = 3\nimports = ['a.toml']\n[S3.registry]\nconfig_path = '/main'\n",
        &[("a.toml", "version = 2\n[S2.registry]\nconfig_path = '/a'\n")],
    ),
    (
        "of version 3 into version 2",
        "version = 2\nimports = ['a.toml']\n[S2.registry]\nconfig_path = '/main'\n",
        &[("a.toml", "version = 3\n[S3.registry]\nconfig_path = '/a'\n")],
    ),
    (
        "of version 2 into none",
        "imports = ['a.toml']\n[S1.registry]\nconfig_path = '/main'\n",
        &[("a.toml", "version = 2\n[S2.registry]\nconfig_path = '/a'\n")],
    ),
    (
        "emptied",
        "version = 2\nimports = ['a.toml']\n[S2]\nimage_pull_progress_timeout = '7m'\n[S2.registry]\nconfig_path = '/main'\n\
         [S2.registry.mirrors.x]\nendpoint = ['https://a']\n[S2.registry.headers]\nX = ['1']\n",
        &[(
            "a.toml",
            "version = 2\n[S2]\nmax_concurrent_downloads = 5\n[S2.registry]\nconfig_path = ''\n\
            [S2.registry.mirrors.x]\nendpoint = ['https://b']\n[S2.registry.mirrors.y]\nendpoint = ['https://c']\n[S2.registry.headers]\nX = ['2']\n",
        )],
    ),
    (
        "a chain and a circle",
        "version = 2\nimports = ['a.toml', 'ROOT/b.toml']\n",
        &[
            (
                "a.toml",
                "version = 2\nimports = ['sub/c.toml']\n[S2.registry]\nconfig_path = '/a'\n",
            ),
            (
                "sub/c.toml",
                "version = 2\nimports = ['../a.toml']\n[S2.registry]\nconfig_path = '/c'\n",
            ),
            ("b.toml", "version = 2\n[S2.registry]\nconfig_path = '/b'\n"),
        ],
    ),
    (
        "a pattern",
        "version = 2\nimports = ['ROOT/conf.d/*.toml']\n[S2.registry]\nconfig_path = '/main'\n",
        &[
            (
                "conf.d/20.toml",
                "version = 2\n[S2.registry]\nconfig_path = '/20'\n",
            ),
            (
                "conf.d/10.toml",
                "version = 2\n[S2.registry]\nconfig_path = '/10'\n[S2.registry.headers]\nX = ['1']\n",
            ),
            (
                "conf.d/x.conf",
                "version = 2\n[S2.registry]\nconfig_path = '/x'\n",
            ),
        ],
    ),
    (
        "a relative pattern",
        "version = 2\nimports = ['conf.d/*.toml']\n[S2.registry]\nconfig_path = '/main'\n",
        &[(
            "conf.d/a.toml",
            "version = 2\n[S2.registry]\nconfig_path = '/a'\n",
        )],
    ),
    (
        "a pattern without files",
        "version = 2\nimports = ['none/*.toml']\n[S2.registry]\nconfig_path = '/main'\n",
        &[],
    ),
    (
        "which is no toml",
        "version = 2\nimports = ['a.toml']\n",
        &[("a.toml", "version = \n")],
    ),
    (
        "which disables",
        "version = 2\nimports = ['a.toml']\n",
        &[(
            "a.toml",
            "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n",
        )],
    ),
    (
        "which is missing",
        "version = 2\nimports = ['none.toml']\n",
        &[],
    ),
];

fn configs() -> Vec<Config> {
    let named = |text: &str| text.replace("S1", V1).replace("S2", V2).replace("S3", V3);
    let mut configs: Vec<Config> = Vec::new();
    for version in ["", "version = 1\n", "version = 2\n", "version = 3\n"] {
        for (number, section) in (1..).zip([V1, V2, V3]) {
            for (name, body) in BODIES {
                let text = body.replace("[S", &format!("[{section}"));
                let name = format!("{name}, section {number}, {}", version.trim());
                configs.push((name, format!("{version}{text}"), Vec::new()));
            }
        }
    }
    for (name, text) in SINGLE {
        configs.push(((*name).to_owned(), named(text), Vec::new()));
    }
    for (name, text, others) in IMPORTS {
        let others = others.iter().map(|(path, text)| (*path, named(text)));
        configs.push((format!("import {name}"), named(text), others.collect()));
    }
    configs
}

/// One real containerd.
struct Real {
    binary: String,
    behaviour: Behaviour,
}

fn reals() -> Vec<Real> {
    let output = Command::new("tests/oracle/runtimes").output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| {
            let facts: Value = serde_json::from_str(line).unwrap();
            let version = facts["version"].as_str().unwrap();
            let runtime: Runtime = format!("containerd://{version}").parse().unwrap();
            Real {
                binary: format!("{}/usr/bin/containerd", facts["root"].as_str().unwrap()),
                behaviour: Behaviour::candidates(Some(&runtime))[0],
            }
        })
        .collect()
}

impl Real {
    /// What it prints of the settings; `None`: it refuses the file.
    fn dump(&self, file: &Path) -> Option<Value> {
        let output = Command::new(&self.binary)
            .args(["--config", file.to_str().unwrap(), "config", "dump"])
            .current_dir("/")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| {
            let document: toml_edit::DocumentMut = text.parse().unwrap();
            dumped(&json_of(document.as_item()), self.behaviour.release)
        })
    }

    fn ours(&self, file: &Path) -> Result<Value, Stop> {
        let files = ConfigFiles::load(file, &fs::read(file).unwrap())
            .map_err(|line| Stop::Refused(format!("line {line}")))?;
        decode(&files, self.behaviour).map(|settings| shown(&settings, self.behaviour.release))
    }
}

fn json_of(item: &toml_edit::Item) -> Value {
    use toml_edit::{Item, Value as Toml};
    fn of_value(value: &Toml) -> Value {
        match value {
            Toml::String(text) => json!(text.value()),
            Toml::Integer(number) => json!(number.value()),
            Toml::Boolean(flag) => json!(flag.value()),
            Toml::Array(values) => values.iter().map(of_value).collect(),
            Toml::InlineTable(table) => Value::Object(
                table
                    .iter()
                    .map(|(k, v)| (k.to_owned(), of_value(v)))
                    .collect(),
            ),
            Toml::Float(_) | Toml::Datetime(_) => json!("other"),
        }
    }
    match item {
        Item::Value(value) => of_value(value),
        Item::Table(table) => Value::Object(
            table
                .iter()
                .map(|(k, v)| (k.to_owned(), json_of(v)))
                .collect(),
        ),
        _ => Value::Null,
    }
}

/// The dump's settings in the form of [`shown`].
fn dumped(dump: &Value, release: Release) -> Value {
    let plugins = &dump["plugins"];
    let is_2 = release >= Release::V2_0;
    let names: &[&str] = if is_2 {
        &[
            "io.containerd.grpc.v1.cri",
            "io.containerd.cri.v1.images",
            "io.containerd.cri.v1.runtime",
        ]
    } else {
        &["io.containerd.grpc.v1.cri"]
    };
    let disabled = dump["disabled_plugins"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if disabled
        .iter()
        .any(|name| names.contains(&name.as_str().unwrap()) || name == "cri")
    {
        return json!("disabled");
    }
    let section = &plugins[if is_2 {
        "io.containerd.cri.v1.images"
    } else {
        "io.containerd.grpc.v1.cri"
    }];
    let registry = &section["registry"];
    let part = |key: &str| match &registry[key] {
        Value::Null => json!({}),
        value => value.clone(),
    };
    let mut mirrors = part("mirrors");
    for mirror in mirrors.as_object_mut().unwrap().values_mut() {
        if mirror["endpoint"].is_null() {
            mirror["endpoint"] = json!([]);
        }
    }
    let needs_local = release >= Release::V2_1
        && (section["disable_snapshot_annotations"] == false
            || section["discard_unpacked_layers"] == true
            || section["image_pull_with_sync_fs"] == true
            || section["max_concurrent_downloads"] != 3
            || ["mirrors", "configs", "auths"]
                .iter()
                .any(|key| !part(key).as_object().unwrap().is_empty()));
    json!({
        "config_path": registry["config_path"],
        "mirrors": mirrors,
        "configs": part("configs"),
        "auths": part("auths"),
        "headers": part("headers"),
        "image_pull_progress_timeout": section["image_pull_progress_timeout"],
        "use_local_image_pull": section["use_local_image_pull"] == true,
        "needs_local_pull": needs_local,
    })
}

fn shown(settings: &CriSettings, release: Release) -> Value {
    if settings.is_disabled {
        return json!("disabled");
    }
    let auth = |auth: &Auth| {
        json!({
            "username": auth.username,
            "password": auth.password.expose(),
            "auth": auth.auth.expose(),
            "identitytoken": auth.identity_token.expose(),
        })
    };
    let configs: BTreeMap<_, _> = settings
        .configs
        .iter()
        .map(|(name, host)| {
            let mut one = serde_json::Map::new();
            if let Some(login) = &host.auth {
                one.insert("auth".to_owned(), auth(login));
            }
            if let Some(tls) = &host.tls {
                one.insert(
                    "tls".to_owned(),
                    json!({
                        "insecure_skip_verify": tls.insecure_skip_verify,
                        "ca_file": tls.ca_file,
                        "cert_file": tls.cert_file,
                        "key_file": tls.key_file,
                    }),
                );
            }
            (name, one)
        })
        .collect();
    let mirrors: BTreeMap<_, _> = settings
        .mirrors
        .iter()
        .map(|(name, endpoints)| {
            let endpoints: Vec<_> = endpoints.iter().map(Secret::expose).collect();
            (name, json!({ "endpoint": endpoints }))
        })
        .collect();
    let auths: BTreeMap<_, _> = settings
        .auths
        .iter()
        .map(|(name, one)| (name, auth(one)))
        .collect();
    let headers: BTreeMap<_, Vec<_>> = settings
        .headers
        .iter()
        .map(|(name, values)| (name, values.iter().map(Secret::expose).collect()))
        .collect();
    // The dump fills in the default.
    let timeout = match &settings.image_pull_progress_timeout {
        Some(text) => json!(text),
        None if release >= Release::V1_7 => json!("5m0s"),
        None => Value::Null,
    };
    json!({
        "config_path": settings.config_path,
        "mirrors": mirrors,
        "configs": configs,
        "auths": auths,
        "headers": headers,
        "image_pull_progress_timeout": timeout,
        "use_local_image_pull": settings.use_local_image_pull,
        "needs_local_pull": settings.needs_local_pull,
    })
}

#[test]
fn settings_are_read_as_containerd_dumps_them() {
    let reals = reals();
    let configs = configs();
    assert!(configs.len() >= 60, "{}", configs.len());
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = configs
            .chunks(configs.len().div_ceil(4))
            .zip(0..)
            .map(|(chunk, number)| {
                let (reals, folder) = (&reals, folder.path().join(format!("{number}")));
                scope.spawn(move || {
                    chunk
                        .iter()
                        .zip(0..)
                        .flat_map(|(config, at)| {
                            compare(config, &folder.join(format!("{at}")), reals)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        runs.into_iter()
            .flat_map(|run| run.join().unwrap())
            .collect()
    });
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for row in &rows {
        eprintln!("{row}");
        refused += usize::from(row.contains("refused"));
        if row.contains("DIFFERS") {
            wrong.push(row.as_str());
        }
    }
    assert_eq!(rows.len(), configs.len() * reals.len());
    // Not all of them are alike.
    assert!(refused >= 20, "{refused}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One row for each release.
fn compare(config: &Config, folder: &Path, reals: &[Real]) -> Vec<String> {
    let (name, text, others) = config;
    let root = |text: &str| text.replace("ROOT", folder.to_str().unwrap());
    let main = folder.join("config.toml");
    let files = others.iter().map(|(path, text)| (folder.join(path), text));
    for (path, text) in files.chain([(main.clone(), text)]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, root(text)).unwrap();
    }
    reals
        .iter()
        .map(|real| {
            let release = real.behaviour.release.name();
            match (real.dump(&main), real.ours(&main)) {
                (Some(theirs), Ok(ours)) if theirs == ours => format!("{name} | {release} | same"),
                (None, Err(Stop::Refused(_))) => format!("{name} | {release} | refused"),
                // A file that is missing here may be there on the node. What dumps goes on without it, what
                // starts does not.
                (_, Err(Stop::Unseen(_))) if name.ends_with("missing") => {
                    format!("{name} | {release} | unseen")
                }
                (theirs, ours) => format!("{name} | {release} | DIFFERS: {theirs:?}, but {ours:?}"),
            }
        })
        .collect()
}
