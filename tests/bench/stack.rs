//! Starts the real stack of the tests (docker-registry, nginx, token service, dnsmasq, image), says
//! in one line of JSON where it is, and ends when its standard input does. For the benchmark, and
//! for trying things by hand.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../real/stack.rs"]
mod stack;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};

use stack::{PASSWORD, Stack, USER};
use support::World;

fn main() {
    let port = std::env::args()
        .skip_while(|arg| arg != "--dns-port")
        .nth(1)
        .map(|port| port.parse().unwrap());
    let stack = Stack::with_dns_port("abc", port);
    let domain = format!("registry.test:{}", stack.nginx.registry);
    let config = stack.folder.path().join("config.json");
    std::fs::write(&config, World::docker_config(&domain, USER, PASSWORD)).unwrap();
    let facts = serde_json::json!({
        "reference": stack.reference(),
        "nameserver": stack.dns.server,
        "ca_file": stack.pki.ca_file,
        "docker_config": config,
    });
    let mut out = std::io::stdout();
    writeln!(out, "{facts}").unwrap();
    out.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
