//! Reads Secret files, docker configs and credential helpers into the sources of a keyring.
//!
//! This module does only the I/O; the content is parsed and judged in [`crate::pull_secret`].

pub mod node;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::files;
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{Found, PodUse, SecretLookup};
use crate::net::host_root::is_absent;
use crate::own;
use crate::pull_secret::docker_config::{self, ConfigFormat, DockerConfig};
use crate::pull_secret::entry::Entry;
use crate::pull_secret::keyring::LoadedSource;
use crate::pull_secret::secret;
use crate::redact::Secret;

/// Where to read credentials from.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--username` with the password from standard input or from a password file.
    pub login: Option<LoadedSource>,
    /// `--secret-file`, in order.
    pub secret_files: Vec<PathBuf>,
    /// `--docker-config`: a file, or the folder of a `config.json`.
    pub docker_config: Option<PathBuf>,
    /// The credentials are for pods: a user's default files are not read, as a kubelet does not read them.
    pub for_pods: bool,
}

/// Why a credential that was given can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file that was given can't be read.
    #[error("cannot read {path}, given with {flag}: {}", files::reason(source))]
    Read {
        /// The flag that gave it.
        flag: &'static str,
        /// Its path, printable.
        path: String,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read the password from standard input: {}", files::reason(.0))]
    Stdin(#[source] io::Error),
    /// Nothing, or only a newline, was read.
    #[error("the password is empty")]
    EmptyPassword,
    /// It is not text.
    #[error("the password is not UTF-8")]
    PasswordEncoding,
    /// More than 64 KiB, so it can't be a password or token.
    #[error("the password is longer than {MAX_PASSWORD} bytes")]
    PasswordTooLong,
}

/// Reads all sources that the request gives; if it gives none and is not for pods, the default files of docker and
/// podman. `environment` is that of the process. Credential helpers are run for the registry of `reference`.
///
/// # Errors
/// If a file that was given can't be read. Invalid content is no error: it is the `problem` of its source.
pub async fn load(
    request: &Request,
    reference: &Reference,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<LoadedSource>, CredentialsError> {
    let mut sources = Vec::from_iter(request.login.clone());
    for path in &request.secret_files {
        let (_, bytes) = read_named("--secret-file", path).await?;
        sources.extend(secret::read(&bytes, &path.to_string_lossy()));
    }
    if let Some(path) = &request.docker_config {
        let (path, bytes) = read_named("--docker-config", path).await?;
        add_docker_config(&bytes, &path, reference, &mut sources).await;
    } else if request.login.is_none() && request.secret_files.is_empty() && !request.for_pods {
        for path in default_files(environment) {
            match read_file(&path).await.1 {
                Ok(bytes) => add_docker_config(&bytes, &path, reference, &mut sources).await,
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    let reason = format!("it can't be read: {}", error.kind());
                    let problem = SourceProblem::Malformed { reason };
                    sources.push(LoadedSource::failed(docker_config_at(&path), problem));
                }
            }
        }
        for source in &mut sources {
            source.at_usual_path = true;
        }
    }
    Ok(sources)
}

/// The sources that apply to a pod: the Secrets that it names, in its order and from its namespace, then all sources
/// that are not Secrets. A pod that names none gets all Secrets of its namespace: those of its service account are
/// copied into it when it is created (kubernetes `plugin/pkg/admission/serviceaccount`).
///
/// Also returns the result of the lookup for each name.
pub fn for_pod(sources: &[LoadedSource], pod: &PodUse) -> (Vec<LoadedSource>, Vec<SecretLookup>) {
    if pod.pull_secrets.is_empty() {
        let is_elsewhere = |source: &&LoadedSource| match (&source.source, &pod.namespace) {
            (
                CredentialSource::SecretFile {
                    namespace: Some(theirs),
                    ..
                },
                Some(ours),
            ) => theirs != ours,
            _ => false,
        };
        let near = sources
            .iter()
            .filter(|source| !is_elsewhere(source) && !source.is_for_others);
        return (near.cloned().collect(), Vec::new());
    }
    let secret_of = |source: &LoadedSource| match &source.source {
        CredentialSource::SecretFile {
            namespace, name, ..
        } if !name.is_empty() => Some((namespace.clone(), name.clone())),
        _ => None,
    };
    let given = sources
        .iter()
        .filter(|source| secret_of(source).is_some() && !source.is_for_others)
        .count();
    let mut chosen = Vec::new();
    let mut lookups = Vec::new();
    for name in &pod.pull_secrets {
        let mut elsewhere = Vec::new();
        let before = chosen.len();
        for source in sources {
            let Some((namespace, found)) = secret_of(source) else {
                continue;
            };
            if found != *name {
                continue;
            }
            match (namespace, &pod.namespace) {
                (Some(theirs), Some(ours)) if theirs != *ours => elsewhere.push(theirs),
                _ => chosen.push(LoadedSource {
                    is_for_others: false,
                    ..source.clone()
                }),
            }
        }
        let found = if chosen.len() > before {
            Found::Here
        } else if elsewhere.is_empty() {
            Found::NotGiven { given }
        } else {
            Found::Elsewhere {
                namespaces: elsewhere,
            }
        };
        lookups.push(SecretLookup {
            name: name.clone(),
            found,
        });
    }
    let others = sources.iter().filter(|s| secret_of(s).is_none());
    chosen.extend(others.cloned());
    (chosen, lookups)
}

/// Reads a password as `docker login --password-stdin` does: one newline at its end is removed.
///
/// # Errors
/// If reading fails, or if the password is empty, not UTF-8, or longer than 64 KiB.
pub fn password_from(reader: impl Read) -> Result<Secret, CredentialsError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = u64::try_from(MAX_PASSWORD).unwrap_or(u64::MAX);
    reader
        .take(limit + 2)
        .read_to_end(&mut bytes)
        .map_err(CredentialsError::Stdin)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| CredentialsError::PasswordEncoding)?;
    let text = text
        .strip_suffix("\r\n")
        .or_else(|| text.strip_suffix('\n'))
        .unwrap_or(text);
    match text.len() {
        0 => Err(CredentialsError::EmptyPassword),
        1..=MAX_PASSWORD => Ok(Secret::new(text)),
        _ => Err(CredentialsError::PasswordTooLong),
    }
}

/// The config of the docker CLI, and that of podman, skopeo and buildah. If a variable gives a path, the defaults that
/// follow it are not read.
fn default_files(environment: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let variable = |name: &str| {
        environment(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let home = variable("HOME");
    let under = |base: &Option<PathBuf>, path: &str| base.as_ref().map(|b| b.join(path));
    let docker = variable("DOCKER_CONFIG")
        .map(|folder| folder.join("config.json"))
        .or_else(|| under(&home, ".docker/config.json"));
    let containers = match variable("REGISTRY_AUTH_FILE") {
        Some(file) => vec![Some(file)],
        None => vec![
            under(&variable("XDG_RUNTIME_DIR"), "containers/auth.json"),
            under(&home, ".config/containers/auth.json"),
        ],
    };
    std::iter::once(docker)
        .chain(containers)
        .flatten()
        .collect()
}

async fn read_named(
    flag: &'static str,
    path: &Path,
) -> Result<(PathBuf, Vec<u8>), CredentialsError> {
    let (path, read) = read_file(path).await;
    match read {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => Err(CredentialsError::Read {
            flag,
            path: printable(&path.to_string_lossy()),
            source,
        }),
    }
}

/// Reads a file, or the `config.json` of a folder; returns its path, too. Uses one blocking task for all calls, since
/// a daemon does this for each check.
async fn read_file(path: &Path) -> (PathBuf, io::Result<Vec<u8>>) {
    let named = path.to_owned();
    let read = own::blocking(move || files::read_in(&named, "config.json", MAX_FILE));
    read.await
        .unwrap_or_else(|error| (path.to_owned(), Err(io::Error::other(error))))
}

/// Reads a file of credentials.
///
/// # Errors
/// Those of [`files::read`].
pub async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    let read = own::blocking(move || read_to_limit(&path));
    read.await.map_err(io::Error::other)?
}

fn read_to_limit(path: &Path) -> io::Result<Vec<u8>> {
    files::read(path, MAX_FILE)
}

async fn add_docker_config(
    bytes: &[u8],
    path: &Path,
    reference: &Reference,
    sources: &mut Vec<LoadedSource>,
) {
    let source = docker_config_at(path);
    let config = match docker_config::parse(bytes, ConfigFormat::File) {
        Ok(config) => config,
        Err(reason) => {
            let problem = SourceProblem::Malformed { reason };
            sources.push(LoadedSource::failed(source, problem));
            return;
        }
    };
    // The docker CLI runs a helper before it uses the entries of the file.
    if let Some((name, server)) = helper_for(&config, reference) {
        sources.push(ask_source(name, server, path).await);
    }
    sources.push(LoadedSource {
        entries: config.entries,
        lint: config.lint,
        ..LoadedSource::new(source)
    });
}

fn docker_config_at(path: &Path) -> CredentialSource {
    CredentialSource::DockerConfig {
        path: printable(&path.to_string_lossy()),
    }
}

/// The helper that has the registry's credential, and the server to pass to it: the entry of `credHelpers` for exactly
/// this host, else `credsStore`.
fn helper_for<'a>(
    config: &'a DockerConfig,
    reference: &'a Reference,
) -> Option<(&'a str, &'a str)> {
    let servers = match reference.domain() {
        "docker.io" => vec![
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
        ],
        domain => vec![domain],
    };
    let exact = servers.iter().find_map(|server| {
        let (_, helper) = config.helpers.iter().find(|(host, _)| host == server)?;
        Some((helper.as_str(), *server))
    });
    exact
        .or_else(|| Some((config.store.as_deref()?, servers[0])))
        .filter(|(helper, _)| !helper.is_empty())
}

async fn ask_source(name: &str, server: &str, path: &Path) -> LoadedSource {
    let source = CredentialSource::Helper {
        name: printable(name),
        path: printable(&path.to_string_lossy()),
    };
    match ask(name, server).await {
        Ok(entry) => LoadedSource {
            entries: entry.into_iter().collect(),
            ..LoadedSource::new(source)
        },
        Err(reason) => LoadedSource::failed(source, SourceProblem::HelperFailed { reason }),
    }
}

/// Runs `docker-credential-NAME get` (docker-credential-helpers, README): the server on stdin, JSON on stdout. A helper
/// that fails may print credentials, so its output is never repeated.
async fn ask(name: &str, server: &str) -> Result<Option<Entry>, String> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err("the helper's name is empty or has invalid characters".to_owned());
    }
    let program = format!("docker-credential-{name}");
    run(Command::new(&program), &program, server, HELPER_TIME).await
}

async fn run(
    mut command: Command,
    program: &str,
    server: &str,
    time: Duration,
) -> Result<Option<Entry>, String> {
    command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let child = own::spawn(&mut command);
    let mut child = child.map_err(|(error, limit)| match limit {
        Some(limit) => format!("{program} can't be run: {limit}"),
        None => format!("{program} can't be run: {}", error.kind()),
    })?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut output = Zeroizing::new(Vec::new());
    let talk = async {
        // A helper that fails early may not read its input.
        let _ = stdin.write_all(server.as_bytes()).await;
        drop(stdin);
        stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output).await?;
        if u64::try_from(output.len()).is_ok_and(|n| n > MAX_OUTPUT) {
            return Ok(None);
        }
        child.wait().await.map(Some)
    };
    let status = match own::within(time, talk).await {
        Err(elapsed) => {
            return Err(match elapsed.limit() {
                Some(limit) => format!("{program} was not observed: {limit}"),
                None => format!("{program} did not answer in {} s", time.as_secs()),
            });
        }
        Ok(Err(error)) => return Err(format!("{program} can't be read: {}", error.kind())),
        Ok(Ok(None)) => return Err(format!("{program} printed more than {MAX_OUTPUT} bytes")),
        Ok(Ok(Some(status))) => status,
    };
    read_answer(program, server, status.success(), &output).map_err(|reason| match status.code() {
        Some(code) if code != 0 => format!("{reason} (exit status {code})"),
        _ => reason,
    })
}

fn read_answer(
    program: &str,
    server: &str,
    success: bool,
    output: &[u8],
) -> Result<Option<Entry>, String> {
    if !success {
        // The protocol's message for "nothing stored" also comes with a failure.
        let not_found = String::from_utf8_lossy(output).contains("credentials not found");
        return if not_found {
            Ok(None)
        } else {
            Err(format!("{program} failed"))
        };
    }
    let answer: Value = serde_json::from_slice(output)
        .map_err(|_| format!("the output of {program} is not JSON"))?;
    let text = |name| answer.get(name).and_then(Value::as_str);
    let (Some(username), Some(secret)) = (text("Username"), text("Secret")) else {
        return Err(format!("the output of {program} lacks Username or Secret"));
    };
    let secret = Secret::new(secret);
    // The docker CLI marks an identity token with this user.
    Ok(Some(if username == "<token>" {
        Entry::new(server, "", Secret::default(), Some(secret))
    } else {
        Entry::new(server, username, secret, None)
    }))
}

/// Upper bound of a file, in bytes. A Secret holds at most 1 MiB, and a file may have several.
const MAX_FILE: u64 = 8 << 20;

/// Upper bound of a password, in bytes; tokens of cloud registries are shorter.
const MAX_PASSWORD: usize = 64 << 10;

/// Upper bound of a helper's output, in bytes.
const MAX_OUTPUT: u64 = 64 << 10;

/// Timeout of a helper. Those of clouds request a token from a server.
const HELPER_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pull_secret::keyring::Keyring;

    const CONFIG: &str = r#"{"auths":{"reg.example.com":{"auth":"dTpodW50ZXIy"}}}"#;

    #[test]
    fn a_pod_without_names_gets_the_secrets_of_its_namespace_only() {
        let of = |namespace: Option<&str>| LoadedSource {
            at_usual_path: false,
            source: CredentialSource::SecretFile {
                path: "s.yaml".to_owned(),
                namespace: namespace.map(str::to_owned),
                name: "regcred".to_owned(),
            },
            entries: Vec::new(),
            problem: None,
            lint: Vec::new(),
            expiries: Vec::new(),
            is_for_others: false,
        };
        let text = "kind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {containers: [{name: c, image: a}]}\n";
        let mut found = crate::workload::read(text.as_bytes(), "w.yaml").unwrap();
        let (_, pod) = found.uses.remove(0);
        let sources = [of(Some("shop")), of(Some("till")), of(None)];
        let (chosen, sought) = for_pod(&sources, &pod);
        let chosen: Vec<_> = chosen.into_iter().map(|s| s.source).collect();
        assert_eq!(
            chosen,
            [sources[0].source.clone(), sources[2].source.clone()]
        );
        assert!(sought.is_empty());
    }

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[tokio::test]
    async fn a_named_file_that_is_missing_is_an_error_with_flag_and_path() {
        let request = Request {
            secret_files: vec![PathBuf::from("no/such.yaml")],
            ..Request::default()
        };
        let error = load(&request, &reference("nginx"), nothing)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read no/such.yaml, given with --secret-file: entity not found"
        );
        let request = Request {
            docker_config: Some(PathBuf::from("no/such.json")),
            ..Request::default()
        };
        let error = load(&request, &reference("nginx"), nothing)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("given with --docker-config: "));
    }

    #[tokio::test]
    async fn the_usual_places_are_for_when_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_owned();
        write(&home, ".docker/config.json", CONFIG);
        write(&home, ".config/containers/auth.json", "{");
        let secret = write(&home, "s.yaml", "kind: Pod");
        let environment = |name: &str| (name == "HOME").then(|| home.clone().into_os_string());
        let usual = load(&Request::default(), &reference("nginx"), environment)
            .await
            .unwrap();
        assert_eq!(usual.len(), 2);
        assert_eq!(
            (usual[0].entries.len(), usual[1].problem.is_some()),
            (1, true)
        );

        let named = Request {
            secret_files: vec![secret],
            ..Request::default()
        };
        assert_eq!(
            load(&named, &reference("nginx"), environment)
                .await
                .unwrap()
                .len(),
            1
        );
        let login = Request {
            login: Some(LoadedSource::login(
                CredentialSource::CommandLine,
                "me",
                Secret::new("hunter2"),
            )),
            ..Request::default()
        };
        let sources = load(&login, &reference("nginx"), environment)
            .await
            .unwrap();
        assert_eq!(sources.len(), 1);
        let (found, evidence) = Keyring::new(sources).lookup(&reference("quay.io/a"));
        assert_eq!((found[0].username.as_str(), found.len()), ("me", 1));
        assert!(!format!("{login:?} {found:?} {evidence:?}").contains("hunter2"));
        assert_eq!(
            load(&Request::default(), &reference("x"), nothing)
                .await
                .unwrap()
                .len(),
            0
        );
    }

    #[tokio::test]
    async fn a_folder_stands_for_its_config_json() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "config.json", CONFIG);
        let request = Request {
            docker_config: Some(folder.path().to_owned()),
            ..Request::default()
        };
        let sources = load(&request, &reference("reg.example.com/a"), nothing)
            .await
            .unwrap();
        let (found, _) = Keyring::new(sources).lookup(&reference("reg.example.com/a"));
        assert_eq!(found[0].password.expose(), "hunter2");
    }

    #[test]
    fn variables_name_the_places() {
        let places = |set: &[(&str, &str)]| -> Vec<String> {
            default_files(|name| {
                let (_, value) = set.iter().find(|(n, _)| *n == name)?;
                Some(OsString::from(value))
            })
            .into_iter()
            .map(|p| p.display().to_string())
            .collect()
        };
        assert_eq!(
            places(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            [
                "/h/.docker/config.json",
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json"
            ]
        );
        assert_eq!(
            places(&[
                ("HOME", "/h"),
                ("DOCKER_CONFIG", "/d"),
                ("REGISTRY_AUTH_FILE", "/a.json")
            ]),
            ["/d/config.json", "/a.json"]
        );
        assert_eq!(places(&[("HOME", "")]), Vec::<String>::new());
    }

    #[test]
    fn the_helper_for_exactly_the_host_comes_before_the_store() {
        let config = docker_config::parse(
            br#"{"credsStore":"pass","credHelpers":{"a.example.com":"ecr","off.example.com":"","https://index.docker.io/v1/":"hub"}}"#,
            ConfigFormat::File,
        )
        .unwrap();
        for (image, helper) in [
            ("a.example.com/x", Some(("ecr", "a.example.com"))),
            ("a.example.com:5000/x", Some(("pass", "a.example.com:5000"))),
            ("b.a.example.com/x", Some(("pass", "b.a.example.com"))),
            ("off.example.com/x", None),
            ("nginx", Some(("hub", "https://index.docker.io/v1/"))),
        ] {
            assert_eq!(helper_for(&config, &reference(image)), helper, "{image}");
        }
    }

    #[test]
    fn answers_of_helpers_are_read() {
        let read = |success, output: &str| {
            read_answer("docker-credential-x", "reg", success, output.as_bytes())
        };
        let login = read(
            true,
            r#"{"ServerURL":"reg","Username":"u","Secret":"hunter2"}"#,
        );
        let login = login.unwrap().unwrap();
        assert_eq!(
            (login.username.as_str(), login.password.expose()),
            ("u", "hunter2")
        );
        let token = read(true, r#"{"Username":"<token>","Secret":"hunter2"}"#)
            .unwrap()
            .unwrap();
        assert_eq!(token.identity_token.as_ref().unwrap().expose(), "hunter2");
        assert!(
            read(false, "credentials not found in native keychain\n")
                .unwrap()
                .is_none()
        );
        for (success, output) in [
            (false, "hunter2"),
            (true, "hunter2"),
            (true, r#"{"Username":"hunter2"}"#),
        ] {
            let reason = read(success, output).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_or_has_no_name_is_a_problem_of_its_source() {
        for (name, part) in [
            ("pullpath-test-absent", "can't be run: entity not found"),
            ("../../bin/sh", "invalid characters"),
            ("", "invalid characters"),
        ] {
            let source = ask_source(name, "reg", Path::new("config.json")).await;
            let problem = source.problem.unwrap().to_string();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_helper_is_given_the_server_and_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let ask = async |script: &str, time| {
            let path = write(folder.path(), "helper.sh", script);
            let mut shell = Command::new("sh");
            shell.arg(path);
            run(shell, "helper", "reg:5000", time).await
        };
        let long = Duration::from_secs(20);
        let echo = r#"[ "$1" = get ] || exit 9
            printf '{"ServerURL":"%s","Username":"u","Secret":"hunter2"}' "$(cat)""#;
        let entry = ask(echo, long).await.unwrap().unwrap();
        assert_eq!(
            (entry.key.as_str(), entry.password.expose()),
            ("reg:5000", "hunter2")
        );
        let none = "echo credentials not found in native keychain; exit 1";
        assert!(ask(none, long).await.unwrap().is_none());
        for (script, time, reason) in [
            (
                "echo hunter2; exit 3",
                long,
                "helper failed (exit status 3)",
            ),
            (
                "exec sleep 60",
                Duration::from_millis(50),
                "helper did not answer in 0 s",
            ),
            (
                "head -c 70000 /dev/zero",
                long,
                "helper printed more than 65536 bytes",
            ),
        ] {
            assert_eq!(ask(script, time).await.unwrap_err(), reason);
        }
    }

    #[test]
    fn one_newline_behind_a_password_is_not_of_it() {
        for (input, password) in [
            ("pw", "pw"),
            ("pw\n", "pw"),
            ("pw\r\n", "pw"),
            ("pw\n\n", "pw\n"),
            (" pw ", " pw "),
        ] {
            assert_eq!(password_from(input.as_bytes()).unwrap().expose(), password);
        }
        assert!(matches!(
            password_from(&b"\n"[..]),
            Err(CredentialsError::EmptyPassword)
        ));
        assert!(matches!(
            password_from(&b"\xff"[..]),
            Err(CredentialsError::PasswordEncoding)
        ));
        let long = vec![b'x'; MAX_PASSWORD + 1];
        assert!(matches!(
            password_from(&long[..]),
            Err(CredentialsError::PasswordTooLong)
        ));
        assert!(password_from(&long[1..]).is_ok());
    }
}
