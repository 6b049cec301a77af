//! A cable between two network namespaces, until its standard input ends:
//! `wire NS:IF:ADDR/P[,ADDR6/P] NS:IF:ADDR/P[,ADDR6/P] [delay=MS] [jitter=MS] [loss=PERCENT]
//! [rate=MBIT] [buf=KB] [mtu=N] [seed=N]`. Prints `up` when it is.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "../lab/mod.rs"]
mod lab;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use lab::wire::{End, Knobs, Wire};

fn end(text: &str) -> End {
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    let [netns, device, addresses] = parts[..] else {
        panic!("{text}: NS:IF:ADDR/P[,ADDR6/P] is wanted");
    };
    End::new(netns, device, &addresses.split(',').collect::<Vec<_>>())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, settings @ ..] = &args[..] else {
        panic!("two ends are wanted");
    };
    let (mut knobs, mut mtu, mut seed) = (Knobs::default(), 1500, 1);
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap();
        let number = || value.parse::<f64>().unwrap();
        let time = || Duration::from_secs_f64(number() / 1000.0);
        match name {
            "delay" => knobs.delay = time(),
            "jitter" => knobs.jitter = time(),
            "loss" => knobs.loss = number(),
            "rate" => knobs.rate = Some(number()),
            "buf" => knobs.buffer = value.parse::<usize>().unwrap() << 10,
            "mtu" => mtu = value.parse().unwrap(),
            "seed" => seed = value.parse().unwrap(),
            _ => panic!("{name} is not known"),
        }
    }
    let wire = Wire::lay(&end(from), &end(to), knobs, mtu, seed);
    let mut out = std::io::stdout();
    writeln!(out, "up").unwrap();
    out.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(wire);
}
