//! `cargo run --example demo`: a registry, its token service and its object store in one
//! process, first well and then broken in three ways, each checked by the probe.
//!
//! Nothing leaves this machine: all hosts are on 127.0.0.1, under names that only the demo's own
//! name server knows. `-- --stay` keeps all of them up for a quarter of an hour, so that the
//! commands shown can be run by hand.

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use support::pki::Flaw;
use support::registry::Redirect;
use support::tcp::Closed;
use support::{AUTH, PASSWORD, REGISTRY, USER, World};

/// How long `--stay` stays.
const STAY: Duration = Duration::from_mins(15);

/// One thing to show.
struct Case {
    heading: &'static str,
    introduction: &'static str,
    world: World,
    /// The imagePullSecret to probe with.
    secret: PathBuf,
    /// A port that must stay closed as long as the world lasts.
    _closed: Option<Closed>,
}

#[tokio::main]
async fn main() {
    say(INTRODUCTION);
    let cases = [
        healthy().await,
        blob_host_refuses().await,
        key_without_port().await,
        expired_certificate().await,
    ];
    for (number, case) in cases.iter().enumerate() {
        say(&format!("\n=== {}. {}\n", number + 1, case.heading));
        say(&format!("{}\n", case.introduction));
        let args = case.args();
        say(&format!("$ pullpath {}\n", args.join(" ")));
        // The probe has a runtime of its own, and blocks the thread that calls it.
        let code = tokio::task::spawn_blocking(move || run_probe(&args)).await;
        match code {
            Ok(code) => say(&format!("\n(exit code {code})")),
            Err(error) => say(&format!("\n(the probe broke down: {error})")),
        }
    }
    say(&format!("\n{BY_HAND}"));
    if std::env::args().any(|arg| arg == "--stay") {
        say("\nEverything stays up for 15 minutes; Ctrl-C ends it.");
        let _ = tokio::time::timeout(STAY, tokio::signal::ctrl_c()).await;
    }
}

/// Runs the command line on these arguments, and gives its exit status.
fn run_probe(args: &[String]) -> u8 {
    let program = "pullpath".to_owned();
    pullpath::cli::main(std::iter::once(&program).chain(args).map(Into::into))
}

/// A line for the reader; one who left (`| head`) is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

impl Case {
    fn args(&self) -> Vec<String> {
        let world = &self.world;
        [
            "probe",
            &world.reference(),
            "--nameserver",
            &world.nameserver(),
            "--ca-file",
            &world.ca.file().to_string_lossy(),
            "--secret-file",
            &self.secret.to_string_lossy(),
            "--timeout",
            "2s",
        ]
        .map(str::to_owned)
        .into()
    }
}

async fn healthy() -> Case {
    let world = World::healthy().await;
    Case {
        heading: "A healthy pull",
        introduction: "\
A pull needs three servers, not one. The registry asks for a token and names a token service. The\n\
token service accepts the password of the imagePullSecret and issues a token. With the token, the\n\
registry serves the manifest and redirects the client to blob storage for the layers.\n\
Here all three work.",
        secret: world.secret_file(),
        world,
        _closed: None,
    }
}

async fn blob_host_refuses() -> Case {
    let world = World::healthy().await;
    let closed = Closed::new();
    world.registry.knobs().redirect =
        Redirect::Signed(format!("https://blobs.test:{}", closed.addr.port()));
    Case {
        heading: "The layers are on another server, which can't be reached",
        introduction: "\
The registry redirects layer downloads to a port where nothing listens. The login works, the\n\
manifest is served, and `curl https://registry/v2/` looks fine, but the pull fails at the first\n\
layer.",
        secret: world.secret_file(),
        world,
        _closed: Some(closed),
    }
}

async fn key_without_port() -> Case {
    let world = World::healthy().await;
    world.tokens.knobs().anonymous = false;
    let secret = World::secret(REGISTRY, USER, PASSWORD);
    Case {
        heading: "The pull secret has the right password, but for another server",
        introduction: "\
The registry has a port, and the Secret's server key lacks it. The kubelet uses a key only if the\n\
ports are equal. So it pulls without a password, and the Event on the pod reads \"unauthorized\",\n\
as if the password were wrong.",
        secret: world.write("secret.yaml", &secret),
        world,
        _closed: None,
    }
}

async fn expired_certificate() -> Case {
    let world = World::healthy().await;
    let expired = world.config(AUTH, Flaw::Expired);
    world.tokens.server.set_tls(Some(expired));
    Case {
        heading: "The token service's certificate has expired, not the registry's",
        introduction: "\
The registry's certificate, which one checks first, is valid. The certificate of the token service\n\
expired yesterday. No client sends it a password, so there is no token and no pull.",
        secret: world.secret_file(),
        world,
        _closed: None,
    }
}

const INTRODUCTION: &str = "\
Pullpath makes the requests that a node makes to pull an image, without pulling it, and reports\n\
what works, what fails, and how to fix it. This demo starts four registries on 127.0.0.1: one is\n\
healthy, three are not. The image is team/app:1.0; its password is in a Kubernetes Secret.";

const BY_HAND: &str = "\
To run it by hand: `cargo run --example demo -- --stay` in one terminal, then in another\n\
`cargo run --` and the arguments after `$ pullpath` above. For your own registry, omit\n\
--nameserver and --ca-file, unless it has its own name server or CA.";
