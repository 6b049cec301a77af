//! Runs `tests/edges.rs`, without privileges, in a network namespace.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::lab::netns::Netns;

/// What `edges ARGS…` prints. It is a user without rights (`nobody`), has no capability and can't get
/// one.
pub(crate) fn run(netns: &Netns, args: &[&str]) -> String {
    // By its descriptor: the folder it is in need not be one that this user may look into.
    let program = File::open(&*PROGRAM).unwrap();
    let mut command = unprivileged(netns, "/proc/self/fd/0");
    let output = command
        .args(args)
        .stdin(Stdio::from(program))
        .output()
        .unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{args:?}: {}\n{err}",
        output.status
    );
    String::from_utf8(out).unwrap()
}

/// A command of such a user.
pub(crate) fn unprivileged(netns: &Netns, program: &str) -> Command {
    let mut command = netns.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.args(["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(program);
    command
}

/// Beside this test, where cargo builds examples; built now if it is not there or older than the
/// sources, as with `cargo test --test NAME`.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--example", "edges"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    super::lab::process::run(&mut build);
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/edges")
});
