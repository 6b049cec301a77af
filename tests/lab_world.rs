//! The world of network namespaces itself, by the word of ping, curl, dig and coturn's client alone,
//! without the program under test.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "real/stack.rs"]
mod stack;
mod support;
#[path = "lab/world.rs"]
mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use world::World;

#[test]
fn a_world_is_up_in_a_second_and_goes_altogether() {
    let first = World::new();
    let start = Instant::now();
    let second = World::new();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let name = second.vpc.name.clone();
    drop((first, second));
    assert!(!Path::new("/run/netns").join(name).exists());
}
