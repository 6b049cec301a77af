//! The commands that the documents show: each command can be given, each file and folder is there, each piece of
//! a configuration is taken. What needs only this machine is run, in an empty network namespace.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::netns::Netns;
use lab::process::run;
use serde_json::Value;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of helm and kustomize.
fn renderers() -> PathBuf {
    PathBuf::from(run(&mut Command::new(root().join("tests/manifests/tools"))).trim())
}

fn tools() -> PathBuf {
    PathBuf::from(run(&mut Command::new(root().join("tests/shipped/tools"))).trim())
}

/// README.md, CONTRIBUTING.md and docs/*.md, with their paths from the root.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let found = fs::read_dir(root().join("docs")).unwrap();
    let found = found.map(|entry| entry.unwrap().path());
    paths.extend(found.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    paths.sort();
    let named = paths.into_iter().map(|path| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(path).unwrap();
        (name, text)
    });
    named.collect()
}

/// A fenced block: where it is, of what kind, and its lines.
struct Fence {
    place: String,
    kind: String,
    lines: Vec<String>,
}

fn fences() -> Vec<Fence> {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let mut open: Option<Fence> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(kind), None) => {
                    open = Some(Fence {
                        place: format!("{name}:{}", number + 1),
                        kind: kind.to_owned(),
                        lines: Vec::new(),
                    });
                }
                (Some(_), Some(_)) => found.extend(open.take()),
                (None, Some(fence)) => fence.lines.push(line.to_owned()),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a fence does not end");
    }
    found
}

/// Programs that documents may call; another one is a line here.
const PROGRAMS: &[&str] = &[
    "buildah",
    "cargo",
    "cat",
    "chmod",
    "cp",
    "curl",
    "deploy/image",
    "deploy/monitoring/generate",
    "helm",
    "kubectl",
    "kustomize",
    "ln",
    "podman",
    "pullpath",
    "./pullpath",
    "scp",
    "sed",
    "skopeo",
    "ssh",
    "tests/bench/ceiling",
    "tests/bench/daemon",
    "tests/bench/fleet",
    "tests/bench/run",
    "tests/oracle/run",
    "tests/run",
];

impl Fence {
    /// Commands as they would be typed: what goes on in further lines is one. Where there is a prompt, the
    /// others are output.
    fn commands(&self) -> Vec<String> {
        if self.kind != "console" {
            return Vec::new();
        }
        let has_prompts = self.lines.iter().any(|line| line.starts_with("$ "));
        let mut lines = self.lines.iter();
        let mut found = Vec::new();
        while let Some(line) = lines.next() {
            let line = match line.strip_prefix("$ ") {
                Some(line) => line,
                None if has_prompts => continue,
                None => line,
            };
            let program = line.split(' ').next().unwrap();
            if !PROGRAMS.contains(&program) {
                assert!(!has_prompts, "{}: what is {program}?", self.place);
                continue;
            }
            let mut command = line.to_owned();
            while command.ends_with('\\') || command.ends_with('|') {
                let more = lines.next().unwrap();
                command = format!("{} {}", command.trim_end_matches('\\'), more.trim());
            }
            if let Some((_, word)) = command.split_once("<<") {
                let end = word.trim().trim_matches('\'').to_owned();
                for more in lines.by_ref() {
                    command = format!("{command}\n{more}");
                    if *more == end {
                        break;
                    }
                }
            }
            found.push(command);
        }
        found
    }
}

/// The words of each program of a pipeline, as a shell has them; redirections and comments left away.
fn pipeline(command: &str) -> Vec<Vec<String>> {
    let line = command.lines().next().unwrap();
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            (_, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            ('|' | '&' | ';', None) => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (' ', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
    for words in &mut all {
        if let Some(at) = words.iter().position(|word| word.starts_with(['<', '>'])) {
            words.truncate(at);
        }
    }
    all.retain(|words| !words.is_empty());
    all
}

/// A placeholder is replaced, as the reader would replace it.
fn filled(word: &str) -> String {
    match word {
        "IMAGE" | "REFERENCE" => "registry.example.com/team/app:1.2".to_owned(),
        "CODE" => "tls_expired".to_owned(),
        "NODE" | "NAME" | "POD" => "n1".to_owned(),
        "FILE" => "pullpath.yaml".to_owned(),
        "URL" => "https://files.example.com/large".to_owned(),
        _ => word.to_owned(),
    }
}

/// The program takes these arguments if it is called by this name.
fn understood(name: &str, rest: &[&str], place: &str) {
    let args = std::iter::once(name).chain(rest.iter().copied());
    let parsed = pullpath::cli::understands(args.map(OsString::from));
    assert_eq!(parsed, Ok(()), "{place}");
}

#[test]
fn each_command_can_be_given() {
    let kubectl = tools().join("kubectl");
    let (mut ours, mut theirs) = (0, 0);
    for fence in fences() {
        for command in fence.commands() {
            for words in pipeline(&command) {
                let place = format!("{}: {command}", fence.place);
                let words: Vec<String> = words.iter().map(|word| filled(word)).collect();
                let rest: Vec<&str> = words[1..].iter().map(String::as_str).collect();
                match (words[0].as_str(), rest.as_slice()) {
                    ("pullpath" | "./pullpath", rest) => {
                        understood("pullpath", rest, &place);
                        ours += 1;
                    }
                    ("kubectl", ["pullpath", rest @ ..]) => {
                        understood("kubectl-pullpath", rest, &place);
                        ours += 1;
                    }
                    ("kubectl", rest) => {
                        // What is called in a pod, and kubectl's own part.
                        let mut parts = rest.splitn(2, |word| *word == "--");
                        let rest = parts.next().unwrap();
                        if let Some([program, inside @ ..]) = parts.next() {
                            assert_eq!(*program, "/usr/bin/pullpath", "{place}");
                            understood("pullpath", inside, &place);
                            ours += 1;
                        }
                        // It checks its own options; nothing is requested.
                        run(Command::new(&kubectl).args(rest).arg("--help"));
                        kubectl_s_files(&kubectl, rest, &place);
                        theirs += 1;
                    }
                    ("cargo", ["run", rest @ ..]) => {
                        let mut words = rest.iter().skip_while(|word| **word != "--example");
                        let example = words.nth(1).unwrap();
                        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
                        assert!(
                            manifest.contains(&format!("[[example]]\nname = \"{example}\"")),
                            "{place}"
                        );
                    }
                    (program, _) if program.contains('/') => {
                        assert!(root().join(program).is_file(), "{place}");
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(ours >= 20 && theirs >= 8, "{ours}, {theirs}");
}

/// What is in this tree is there, and is made; other files are the reader's own.
fn kubectl_s_files(kubectl: &Path, words: &[&str], place: &str) {
    let folder = match words {
        ["kustomize", folder, ..] => Some(*folder),
        _ => words
            .windows(2)
            .find(|pair| pair[0] == "-k")
            .map(|pair| pair[1]),
    };
    // The reader's own is made below.
    if let Some(folder) = folder.filter(|folder| *folder != "pullpath-install") {
        let made = run(Command::new(kubectl)
            .arg("kustomize")
            .arg(root().join(folder)));
        assert!(made.contains("kind:"), "{place}");
    }
    for pair in words.windows(2) {
        if pair[0] == "-f" && pair[1].contains('/') {
            let text = fs::read_to_string(root().join(pair[1]));
            let text = text.unwrap_or_else(|error| panic!("{place}: {error}"));
            for one in text.split("\n---\n") {
                let value: Value = serde_saphyr::from_str(one).unwrap();
                assert!(value["kind"].is_string(), "{place}");
            }
        }
    }
}

/// The text around the fences.
fn paragraphs() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let (mut is_fence, mut paragraph) = (false, String::new());
        for line in text.lines().chain([""]) {
            let is_mark = line.trim_start().starts_with("```");
            is_fence ^= is_mark;
            if is_mark || is_fence || line.is_empty() {
                found.push((name.clone(), std::mem::take(&mut paragraph)));
            } else {
                paragraph.extend([line, "\n"]);
            }
        }
    }
    found
}

/// Each link leads to a file of this tree, and to a heading of it where it names one.
#[test]
fn each_link_leads_somewhere() {
    let mut followed = 0;
    for (name, text) in documents() {
        let folder = root().join(&name);
        let folder = folder.parent().unwrap();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() {
                root().join(&name)
            } else {
                folder.join(path)
            };
            assert!(file.exists(), "{name}: {target}");
            if !heading.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                assert!(
                    headings(&there).iter().any(|known| known == heading),
                    "{name}: {target}"
                );
            }
            followed += 1;
        }
    }
    assert!(followed >= 50, "{followed}");
}

/// Headings as GitHub names them in addresses.
fn headings(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    let titles = lines.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let known = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let named = titles.map(|title| title.chars().filter(known).collect::<String>());
    named.map(|title| title.replace(' ', "-")).collect()
}

/// In the text as well: what is named of the program is there.
#[test]
fn each_command_that_the_text_names_is_there() {
    let mut named = 0;
    for (name, paragraph) in paragraphs() {
        for code in paragraph.split('`').skip(1).step_by(2) {
            let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(rest) = code.strip_prefix("pullpath ") else {
                continue;
            };
            // The one that is no command: what is hashed for a turn.
            if rest == "turns 1" {
                continue;
            }
            // One program; with what belongs to it.
            let words = pipeline(rest).swap_remove(0);
            let args = words.iter().filter(|word| *word != "…");
            let args: Vec<String> = args.map(|word| filled(word)).collect();
            let mut command = Command::new(env!("CARGO_BIN_EXE_pullpath"));
            let help = command.args(&args).arg("--help").output().unwrap();
            assert!(
                help.status.success(),
                "{name}: {code}\n{}",
                String::from_utf8_lossy(&help.stderr)
            );
            named += 1;
        }
    }
    assert!(named >= 20, "{named}");
}

/// The table of options of `pullpath probe`.
#[test]
fn each_option_of_the_table_is_there() {
    let text = fs::read_to_string(root().join("docs/probe.md")).unwrap();
    let help = run(Command::new(env!("CARGO_BIN_EXE_pullpath")).args(["probe", "--help"]));
    let (_, table) = text.split_once("| To | Option |").unwrap();
    let mut checked = 0;
    for line in table
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with('|'))
    {
        for code in line.split('`').skip(1).step_by(2) {
            for word in code.split(' ').filter(|word| word.starts_with('-')) {
                let there = help.split(|c: char| c.is_whitespace() || ",=[".contains(c));
                assert!(there.into_iter().any(|known| known == word), "{line}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 20, "{checked}");
}

const KEYS: &[&str] = &[
    "listen",
    "admin_listen",
    "state_dir",
    "log",
    "vantage",
    "network",
    "kubernetes",
    "spread",
    "cluster",
    "targets",
    "schedule",
    "budgets",
    "history",
    "on_demand",
];

#[test]
fn each_piece_of_a_configuration_is_taken_and_each_object_is_valid() {
    let folder = TempDir::new().unwrap();
    let (mut configs, mut objects, mut kustomizations, mut pods) = (0, 0, 0, 0);
    for fence in fences().iter().filter(|fence| fence.kind == "yaml") {
        let text = fence.lines.join("\n");
        for one in text.split("\n---\n") {
            let value: Value = serde_saphyr::from_str(one)
                .unwrap_or_else(|error| panic!("{}: {error}", fence.place));
            let Value::Object(map) = &value else {
                continue;
            };
            if map.contains_key("initContainers") {
                a_part_of_a_pod(&value, &fence.place);
                pods += 1;
            }
            let file = folder.path().join("piece.yaml");
            if value["kind"] == "Kustomization" {
                of_the_reader(one, &fence.place);
                kustomizations += 1;
            } else if map.get("apiVersion").is_some_and(Value::is_string) {
                // (A number is the version of a file of Grafana's.)
                fs::write(&file, value.to_string()).unwrap();
                run(Command::new(tools().join("kubernetes-validate"))
                    .args(["--strict", "--quiet"])
                    .arg(&file));
                objects += 1;
            } else if map.keys().any(|key| KEYS.contains(&key.as_str())) {
                fs::write(&file, one).unwrap();
                run(Command::new(env!("CARGO_BIN_EXE_pullpath"))
                    .args(["config", "check"])
                    .arg(&file));
                configs += 1;
            }
        }
    }
    assert!(configs >= 5 && objects >= 5, "{configs}, {objects}");
    assert_eq!((kustomizations, pods), (1, 1));
}

/// Its program understands its arguments, and finds the files that they name in volumes that are there.
fn a_part_of_a_pod(pod: &Value, place: &str) {
    let volumes = pod["volumes"].as_array().unwrap();
    for container in pod["initContainers"].as_array().unwrap() {
        let args = container["args"].as_array().unwrap().iter();
        let args: Vec<&str> = args.map(|arg| arg.as_str().unwrap()).collect();
        let whole = std::iter::once("pullpath").chain(args.iter().copied());
        let parsed = pullpath::cli::understands(whole.map(OsString::from));
        assert_eq!(parsed, Ok(()), "{place}");
        let mounts = container["volumeMounts"].as_array().unwrap();
        for mount in mounts {
            let is_there = volumes.iter().any(|one| one["name"] == mount["name"]);
            assert!(is_there, "{place}: {mount}");
        }
        let paths = args.iter().map(|arg| arg.rsplit('=').next().unwrap());
        for path in paths.filter(|path| path.starts_with('/')) {
            let is_mounted = mounts
                .iter()
                .any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()));
            assert!(is_mounted, "{place}: {path}");
        }
    }
}

/// The folder `here` beside `deploy`, with each overlay that its text names. It is the one of the examples.
fn of_the_reader(text: &str, place: &str) {
    let folder = TempDir::new().unwrap();
    let at = folder.path().canonicalize().unwrap();
    // kustomize takes no absolute paths.
    let up = "../".repeat(at.components().count() - 1);
    let deploy = format!("{up}{}/deploy", root().strip_prefix("/").unwrap().display());
    let example = root().join("deploy/examples/cluster/kustomization.yaml");
    // As the document's `sed` changes it.
    let example = fs::read_to_string(example).unwrap();
    let example = example.replace("../../", "../deploy/");
    let parsed = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
    assert_eq!(parsed(text), parsed(&example), "{place}");
    let own = "# mine\ntargets: []\n";
    fs::write(at.join("pullpath.yaml"), own).unwrap();
    let components = "components:\n";
    let with = |overlay: &str, components_now: &str, more: &str| {
        let text = text.replace("overlays/any ", &format!("overlays/{overlay} "));
        let text = text.replace(components, components_now);
        let text = format!("{text}\n{more}\n").replace("../deploy", &deploy);
        fs::write(at.join("kustomization.yaml"), text).unwrap();
        let made = run(Command::new(tools().join("kubectl"))
            .arg("kustomize")
            .arg(&at));
        let mut images = 0;
        for line in made
            .lines()
            .filter(|line| line.trim_start().starts_with("image:"))
        {
            let mine = "registry.example.com/platform/pullpath:0.2.0";
            assert!(line.ends_with(mine), "{line}");
            images += 1;
        }
        assert!(images >= 2, "{overlay}");
        assert!(made.contains("# mine"), "{overlay}");
        made
    };
    let first = "components:\n  # - ";
    assert!(
        text.contains(first) && text.contains("overlays/any "),
        "{place}"
    );
    for overlay in ["any", "cce-standard", "cce-turbo"] {
        for name in ["pod-events", "image-pull-secret"] {
            let one = format!("components:\n  - ../deploy/components/{name}\n");
            let made = with(overlay, &one, "");
            let is_pulled_with = made.contains("name: pullpath-image");
            assert_eq!(is_pulled_with, name == "image-pull-secret", "{overlay}");
        }
    }
    // Autopilot's own parts of it, with another image.
    let mut blocks = 0;
    for fence in fences() {
        let block = fence.lines.join("\n");
        if !block.contains("components/autopilot-") {
            continue;
        }
        let mine = block.replace(
            "www.example.com/janedoe/awesomeapp:v1",
            "mine.example.com/app:2",
        );
        let made = with("cce-autopilot", "", &mine);
        assert!(made.contains("- mine.example.com/app:2"), "{made}");
        let buys = block.contains("autopilot-by-eip");
        assert_eq!(made.contains("pod-with-eip"), buys, "{made}");
        assert_eq!(made.contains("name: pullpath-by-snat"), !buys, "{made}");
        blocks += 1;
    }
    assert_eq!(blocks, 2, "by SNAT, and by EIP");
}

#[test]
fn the_examples_of_deploy_are_taken() {
    let folder = TempDir::new().unwrap();
    let read = |name: &str| {
        let path = root().join("deploy/examples").join(name);
        fs::read_to_string(path).unwrap()
    };
    let config = read("pullpath.yaml");
    let file = folder.path().join("pullpath.yaml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        run(Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .args(["config", "check"])
            .arg(&file));
    };
    check(&config);
    check(&read("cluster/pullpath.yaml"));
    // What stands behind a comment sign is taken, too, in place of what it replaces.
    let mut other: Vec<String> = Vec::new();
    for line in config.lines() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let key = |text: &str| text.split(':').next().unwrap().to_owned();
        match rest.strip_prefix("# ") {
            Some(code) if is_code(code) => {
                let key = format!("{indent}{}:", key(code));
                other.retain(|before| !before.starts_with(&key));
                other.push(format!("{indent}{code}"));
            }
            Some(_) => {}
            None => other.push(line.to_owned()),
        }
    }
    let other = other.join("\n");
    for key in [
        "named_secrets",
        "host_root",
        "docker_config",
        "spread",
        "events",
    ] {
        assert!(other.contains(&format!("{key}:")), "{key}\n{other}");
    }
    check(&other);

    // The Secret is one that a kubelet reads, and opens the image of both Deployments.
    for name in ["foo-by-eip.yaml", "foo-by-snat.yaml"] {
        let foo: Value = serde_saphyr::from_str(&read(name)).unwrap();
        let pod = &foo["spec"]["template"]["spec"];
        let image = pod["containers"][0]["image"].as_str().unwrap();
        assert_eq!(pod["imagePullSecrets"][0]["name"], "test");
        let matched = run(Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .args(["secret", "check", "--image", image])
            .arg(root().join("deploy/examples/secret.yaml")));
        assert!(matched.contains(&format!("matches {image}")), "{matched}");
        for container in pod["initContainers"].as_array().into_iter().flatten() {
            let args = container["args"].as_array().unwrap().iter();
            let args = args.map(|arg| arg.as_str().unwrap());
            let args = std::iter::once("pullpath").chain(args);
            let parsed = pullpath::cli::understands(args.map(OsString::from));
            assert_eq!(parsed, Ok(()), "{name}");
            assert_eq!(container["args"][1], image, "{name}");
        }
    }
}

/// `key: value` or a line of a list, and no sentence.
fn is_code(text: &str) -> bool {
    let text = text.trim_start();
    if text.starts_with("- {") {
        return true;
    }
    let key = text.split(':').next().unwrap();
    text.contains(':') && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// A place like that of a reader: the files that commands name, the program in the path, no network.
struct Place {
    netns: Netns,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let at = folder.path();
        let data = root().join("tests/data");
        let secret = fs::read_to_string(data.join("cce-secret.yaml")).unwrap();
        fs::write(at.join("secret.yaml"), &secret).unwrap();
        fs::write(at.join("secrets.yaml"), &secret).unwrap();
        fs::create_dir(at.join("pullpath-install")).unwrap();
        for name in ["pullpath.yaml", "pullpath-install/pullpath.yaml"] {
            fs::write(at.join(name), "targets: []\n").unwrap();
        }
        let bin = at.join("bin");
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pullpath"), bin.join("pullpath")).unwrap();
        for name in ["helm", "kustomize"] {
            std::os::unix::fs::symlink(renderers().join(name), bin.join(name)).unwrap();
        }
        a_chart_and_an_overlay(at);
        // The cluster's answers.
        let kubectl = format!(
            "#!/bin/sh\ncase \"$2\" in secret) cat {0}/cce-secret.yaml;; deployment) cat {0}/cce-deployment.yaml;; *) exit 9;; esac\n",
            data.display()
        );
        fs::write(bin.join("kubectl"), kubectl).unwrap();
        run(Command::new("chmod").arg("+x").arg(bin.join("kubectl")));
        Self {
            netns: Netns::new(),
            folder,
        }
    }

    fn run(&self, script: &str) -> Output {
        let bin = self.folder.path().join("bin");
        let path = std::env::var("PATH").unwrap();
        let mut command = self.netns.command("timeout");
        command.args(["60", "sh", "-c", script]);
        command.current_dir(self.folder.path());
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.env("PULLPATH_LISTEN", "127.0.0.1:9797");
        command.env("HOME", self.folder.path());
        command.env_remove("KUBECONFIG");
        command.output().unwrap()
    }
}

/// `chart` and `overlays/prod`, each with a Deployment, a Secret for it, and an object without pods.
fn a_chart_and_an_overlay(at: &Path) {
    let data = root().join("tests/data");
    let deployment = fs::read_to_string(data.join("cce-deployment.yaml")).unwrap();
    let secret = fs::read_to_string(data.join("cce-secret.yaml")).unwrap();
    let image = "www.example.com/janedoe/awesomeapp:v1";
    assert!(deployment.contains(image));
    let file = |path: &str, text: &str| {
        let path = at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file(
        "chart/Chart.yaml",
        "apiVersion: v2\nname: web\nversion: 1.0.0\n",
    );
    file("chart/values.yaml", "image: www.example.com/of/helm:1\n");
    file(
        "chart/templates/web.yaml",
        &deployment.replace(image, "{{ .Values.image }}"),
    );
    file("chart/templates/secret.yaml", &secret);
    file(
        "chart/templates/service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: {{ .Release.Name }}}\n",
    );
    file(
        "overlays/prod/kustomization.yaml",
        "resources: [web.yaml, secret.yaml]\nimages:\n\
         - {name: www.example.com/janedoe/awesomeapp, newName: www.example.com/of/kustomize, newTag: '1'}\n",
    );
    file("overlays/prod/web.yaml", &deployment);
    file("overlays/prod/secret.yaml", &secret);
}

#[test]
fn what_helm_and_kustomize_print_is_checked() {
    let place = Place::new();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (command, image) in [
        (
            "helm template web ./chart | pullpath probe -f -",
            "www.example.com/of/helm:1",
        ),
        (
            "kustomize build overlays/prod | pullpath probe -f -",
            "www.example.com/of/kustomize:1",
        ),
    ] {
        assert!(readme.contains(&format!("$ {command}\n")), "{command}");
        let output = place.run(&format!("{command} -o json"));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let reports = document["reports"].as_array().unwrap();
        assert_eq!(reports.len(), 1, "{document}");
        let evidence = &reports[0]["evidence"];
        assert_eq!(evidence["reference"], image);
        // The Secret of the same output is the one that the pod names.
        assert_eq!(
            evidence["pods"][0]["secrets"][0]["found"], "here",
            "{document}"
        );
        assert_eq!(document.get("notes"), None, "{document}");
    }
    // Not rendered, the chart's template is named as what it is.
    let output = place.run("pullpath probe -f chart/templates/web.yaml");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("pass what `helm template` prints"),
        "{error}"
    );
}

/// Those that want a cluster or a daemon, or wait for ever.
const NOT_HERE: &[&str] = &[
    "kubectl pullpath",
    "kubectl describe",
    "pullpath why",
    "pullpath lint",
    "pullpath run",
    "pullpath cluster",
    "pullpath wait",
    "pullpath node-check",
    "--secret ",
    "--service-account",
    "--node",
    "--all-nodes",
    "./pullpath",
];

#[test]
fn what_needs_only_this_machine_is_run() {
    let place = Place::new();
    let mut ran = 0;
    for fence in fences() {
        for command in fence.commands() {
            let is_ours = command.starts_with("pullpath ")
                || command.contains("| pullpath ")
                || command.starts_with("cat > pullpath.yaml");
            let not_here = NOT_HERE.iter().any(|part| command.contains(part));
            if !is_ours || not_here {
                continue;
            }
            let output = place.run(&command);
            let (out, error) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            let context = format!("{}: {command}\n{out}{error}", fence.place);
            if command.contains("jq ") {
                assert!(output.status.success(), "{context}");
                assert!(out.lines().count() > 0, "{context}");
                for line in out.lines() {
                    assert_eq!(line.split('\t').count(), 5, "{context}");
                }
            } else if command.contains("probe") {
                // No server answers here, and that is what it reports.
                assert!(
                    out.contains("a pull would FAIL") || out.contains("UNKNOWN whether"),
                    "{context}"
                );
                assert!(!error.contains("error:"), "{context}");
            } else if command.contains("secret check") {
                // The Secret of the test is for another registry than some documents name.
                assert!(matches!(output.status.code(), Some(0 | 1)), "{context}");
                assert!(out.contains("secret default/test"), "{context}");
            } else {
                assert!(output.status.success(), "{context}");
            }
            ran += 1;
        }
    }
    assert!(ran >= 7, "{ran}");

    // The README's first daemon: of its own file, until it gets a signal to end.
    let section = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(section.contains("$ pullpath run --config pullpath.yaml"));
    let output = place.run(
        "pullpath run --config pullpath.yaml --log-format json 2>log & pid=$!\n\
         for i in $(seq 100); do grep -q '\"started\"' log && break; sleep 0.1; done\n\
         curl --silent --fail --noproxy '*' http://127.0.0.1:9797/metrics | grep pullpath_target_info\n\
         kill $pid; wait $pid",
    );
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(out.contains("registry.example.com"), "{out}");
}
