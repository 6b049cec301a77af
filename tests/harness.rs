//! Runs the built program against a [`World`], as a user would, and looks for secrets in all it prints.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::Severity;
use pullpath::report::text::{self, Style};
use pullpath::report::{Document, Report};
use tokio::process::Command;

use super::support::{PASSWORD, REPOSITORY, TAG, USER, World};

/// One run of `pullpath probe -o json`, to be made.
pub struct Probe<'a> {
    world: &'a World,
    reference: String,
    authenticated: bool,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    trusts_ca: bool,
    nameservers: Vec<String>,
}

/// The result of a run.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub document: Document,
}

/// Checks the world's image with the world's secret.
pub async fn probe(world: &World) -> Outcome {
    Probe::of(world).run().await
}

impl<'a> Probe<'a> {
    pub fn of(world: &'a World) -> Self {
        Self {
            world,
            reference: world.reference(),
            authenticated: true,
            args: Vec::new(),
            environment: Vec::new(),
            trusts_ca: true,
            nameservers: vec![world.nameserver()],
        }
    }

    pub fn reference(mut self, reference: &str) -> Self {
        reference.clone_into(&mut self.reference);
        self
    }

    /// The same image, asked of another port of the registry's name.
    pub fn port(self, port: u16) -> Self {
        self.reference(&format!(
            "{}:{port}/{REPOSITORY}:{TAG}",
            super::support::REGISTRY
        ))
    }

    /// Without the world's secret.
    pub fn anonymous(mut self) -> Self {
        self.authenticated = false;
        self
    }

    /// These name servers instead of the world's.
    pub fn nameservers<const N: usize>(mut self, servers: [String; N]) -> Self {
        self.nameservers = servers.into();
        self
    }

    /// Without `--ca-file`.
    pub fn without_ca(mut self) -> Self {
        self.trusts_ca = false;
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.args.extend(args);
        self
    }

    /// The image of this manifest instead, which may say `IMAGE` for it.
    pub fn manifest(self, text: &str) -> Self {
        let text = text.replace("IMAGE", &self.reference);
        let path = self.world.write("workload.yaml", &text);
        self.args(["--filename", path.to_str().unwrap()])
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it, and fails the test when a secret is anywhere in what it prints.
    pub async fn run(self) -> Outcome {
        let world = self.world;
        let home = world.write("empty-home", "");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pullpath"));
        command.env_clear().env("HOME", home).arg("probe");
        if !self.args.iter().any(|arg| arg == "--filename") {
            command.arg(&self.reference);
        }
        command.args(["-o", "json", "-vv"]);
        for server in &self.nameservers {
            command.args(["--nameserver", server]);
        }
        let has = |flag: &str| self.args.iter().any(|arg| arg == flag);
        if !has("--hosts-file") {
            command
                .arg("--hosts-file")
                .arg(world.write("hosts-empty", ""));
        }
        if !has("--resolv-conf") {
            command
                .arg("--resolv-conf")
                .arg(world.write("resolv-plain", "nameserver 127.0.0.1\n"));
        }
        // This machine's own containerd plays no part.
        if !has("--hosts-dir") && !has("--containerd-config") {
            command
                .arg("--containerd-config")
                .arg(world.write("containerd-empty.toml", ""));
        }
        if !has("--timeout") {
            command.args(["--timeout", "1s"]);
        }
        // Who asks for it measures; the others count requests.
        if !has("--transfer") {
            command.args(["--transfer", "off"]);
        }
        if !has("--platform") {
            command.args(["--platform", "linux/amd64"]);
        }
        if self.trusts_ca {
            command.arg("--ca-file").arg(world.ca.file());
        }
        if self.authenticated {
            command.arg("--secret-file").arg(world.secret_file());
        }
        command.args(&self.args).envs(self.environment.clone());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_mins(1), command.output())
            .await
            .expect("a probe ends within a minute")
            .expect("the program runs");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().expect("it was not killed");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let document: Document = serde_json::from_str(&stdout)
            .unwrap_or_else(|e| panic!("{e}\nstdout: {stdout}\nstderr: {stderr}"));
        let outcome = Outcome {
            code,
            stdout,
            stderr,
            document,
        };
        outcome.holds_no_secret(world);
        outcome
    }
}

impl Outcome {
    pub fn report(&self) -> &Report {
        &self.document.reports[0]
    }

    /// The text that the same run would have printed for a person.
    pub fn text(&self) -> String {
        text::render(self.report(), Style { color: false }, false)
    }

    /// The cause is a finding that the reader sees, of this severity, under this verdict.
    pub fn shows(&self, code: &str, severity: Severity, pull: Pull) {
        let text = self.text();
        let verdict = &self.report().verdict;
        let finding = verdict.findings.iter().find(|f| f.cause.code() == code);
        let finding = finding.unwrap_or_else(|| panic!("no finding {code}:\n{text}"));
        assert_eq!(finding.severity, severity, "{text}");
        assert_eq!(verdict.pull, pull, "{text}");
        assert!(!finding.evidence.is_empty(), "{text}");
        assert!(!finding.hint.is_empty(), "{text}");
        let others: Vec<&str> = verdict
            .findings
            .iter()
            .map(|f| f.cause.code())
            .filter(|other| *other != code)
            .collect();
        assert!(
            others.is_empty(),
            "besides {code} there is {others:?}:\n{text}"
        );
        let code = match pull {
            Pull::WouldSucceed => 0,
            Pull::WouldFail => 1,
            Pull::Unknown => 2,
        };
        assert_eq!(self.code, code, "{text}");
    }

    /// A pull would succeed, and there is nothing to say of it.
    pub fn is_quiet(&self) {
        let verdict = &self.report().verdict;
        assert!(
            verdict.findings.is_empty() && verdict.consequences.is_empty(),
            "{}",
            self.text()
        );
        assert_eq!(verdict.pull, Pull::WouldSucceed, "{}", self.text());
        assert_eq!(self.code, 0);
    }

    fn holds_no_secret(&self, world: &World) {
        let mut secrets = vec![
            "canary-7f3a9c".to_owned(),
            STANDARD.encode(format!("{USER}:{PASSWORD}")),
        ];
        secrets.extend(world.tokens.grants.lock().unwrap().keys().cloned());
        let faces = [&self.stdout, &self.stderr, &self.text()];
        for face in faces {
            // The name of the parameter may be shown, by --trace; its value never.
            let masked = face.replace("X-Amz-Signature=***", "");
            assert!(
                !masked.contains("X-Amz-Signature"),
                "a signature got out\n{face}"
            );
        }
        for secret in &secrets {
            for face in faces {
                assert!(
                    !face.contains(secret.as_str()),
                    "a secret got out: {secret}\n{face}"
                );
            }
        }
    }
}
