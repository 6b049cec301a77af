//! The world of the tests, for trying things by hand: registries everywhere, a host that says
//! what address it sees, a proxy and Huawei's metadata, until its standard input ends. Prints where
//! things are, as shell variables: `ip netns exec $NODE curl --cacert $CA https://reg.test/v2/`.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../lab/metadata.rs"]
mod metadata;
#[path = "../real/stack.rs"]
mod stack;
#[path = "../support/mod.rs"]
mod support;
#[path = "../lab/world.rs"]
mod world;

use std::io::{Read as _, Write as _};

use metadata::Facts;
use world::{ECHO, ENDPOINT, NEAR, ONPREM, PEER, PUBLIC, REG, SWR, World};

fn main() {
    let world = World::new();
    for host in [NEAR, REG, SWR, ENDPOINT, PEER, PUBLIC, ONPREM] {
        world.registry(&host);
    }
    world.echo(&ECHO);
    world.http_proxy();
    world.metadata(Facts::default());
    let mut out = std::io::stdout();
    for (name, netns) in [
        ("NODE", &world.node),
        ("POD", &world.pod),
        ("TURBO", &world.turbo),
        ("VPC", &world.vpc),
        ("PEER", &world.peer),
        ("PUBLIC", &world.public),
        ("DC", &world.dc),
    ] {
        writeln!(out, "{name}={}", netns.name).unwrap();
    }
    writeln!(out, "CA={}\nup", world.ca_file().display()).unwrap();
    out.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
