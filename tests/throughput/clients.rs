//! Programs run to their end or ours, and the clients beside: curl and skopeo.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::stack::REPOSITORY;
use crate::support::image::Content;
use crate::world::{PUBLIC, Place, World};

/// What a command prints; nothing if it lasts too long. The program may end with any status.
pub(crate) fn bounded(command: &mut Command, longest: Duration) -> Option<String> {
    // A pipe would fill up without a reader.
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs what is needed"));
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > longest {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::read_to_string(file.path()).ok()
}

pub(crate) fn layers(world: &World) -> &[Content] {
    &world.image().platform("amd64").layers
}

fn size(world: &World) -> f64 {
    let bytes: usize = layers(world).iter().map(|layer| layer.bytes.len()).sum();
    f64::from(u32::try_from(bytes).unwrap())
}

/// curl on these layers, at a time or in turn.
pub(crate) fn curl(world: &World, from: Place, layers: &[Content], parallel: bool) -> Command {
    let mut curl = world.at(from).command("curl");
    curl.args(["--silent", "--fail", "--noproxy", "*", "--cacert"]);
    curl.arg(world.ca_file());
    if parallel {
        curl.arg("--parallel");
    }
    for layer in layers {
        let (host, digest) = (PUBLIC.name(), &layer.digest);
        curl.args(["--output", "/dev/null"])
            .arg(format!("https://{host}/v2/{REPOSITORY}/blobs/{digest}"));
    }
    curl
}

/// Bytes per second of a client that has all layers, its start and end included.
fn timed(world: &World, what: &str, command: &mut Command) -> f64 {
    let start = Instant::now();
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = command
        .stdin(Stdio::null())
        .stdout(log.reopen().unwrap())
        .stderr(log.reopen().unwrap())
        .status()
        .unwrap_or_else(|error| panic!("{what}: {error}; tests/run installs what is needed"));
    let text = fs::read_to_string(log.path()).unwrap();
    assert!(status.success(), "{what}: {status} {text}");
    size(world) / start.elapsed().as_secs_f64()
}

/// Ended by itself when it lasts far longer than it should.
fn within(inner: &Command) -> Command {
    let mut command = Command::new("timeout");
    command.arg("90").arg(inner.get_program());
    command.args(inner.get_args());
    command
}

pub(crate) fn by_curl(world: &World) -> f64 {
    let mut curl = within(&curl(world, Place::Node, layers(world), false));
    timed(world, "curl", &mut curl)
}

pub(crate) fn by_skopeo(world: &World) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let authorities = folder.path().join("ca");
    fs::create_dir(&authorities).unwrap();
    fs::copy(world.ca_file(), authorities.join("ca.crt")).unwrap();
    let mut skopeo = world.node.command("skopeo");
    skopeo.args(["--insecure-policy", "--override-os", "linux"]);
    skopeo.args(["--override-arch", "amd64", "copy", "--src-cert-dir"]);
    skopeo.arg(&authorities).arg("--src-no-creds");
    skopeo.arg(format!("docker://{}", PUBLIC.reference()));
    skopeo.arg(format!("dir:{}", folder.path().join("image").display()));
    timed(world, "skopeo", &mut within(&skopeo))
}
