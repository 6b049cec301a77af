//! What a browser makes of a page.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A picture of it, and what the browser said. It speaks to the page's server alone.
pub fn picture(url: &str, [width, height]: [u16; 2], to: &Path) -> String {
    let profile = TempDir::new().unwrap();
    let output = Command::new("timeout")
        .args(["60", "chromium", "--headless", "--no-sandbox"])
        .args(["--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"])
        .args(["--disable-background-networking", "--disable-sync"])
        .args(["--disable-component-update", "--no-first-run"])
        .args(["--no-proxy-server", "--hide-scrollbars"])
        .arg("--enable-logging=stderr")
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", to.display()))
        .arg(url)
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{url}: {console}");
    console
}
