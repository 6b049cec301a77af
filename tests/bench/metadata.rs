//! A cloud's metadata service, until its standard input ends: `metadata --cloud huawei|otc|aws|
//! alibaba|openstack [--listen ADDR:PORT]… [--private-ipv4 ADDR] [--public-ipv4 ADDR]
//! [--vpc-cidr CIDR]… [--subnet-cidr CIDR] [--token] [--ttl N] [--log FILE] [--redirect URL]
//! [--hang]`. Prints `up` when it is.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "../lab/metadata.rs"]
mod metadata;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use metadata::{Cloud, Facts, Metadata};

fn main() {
    let mut facts = Facts::default();
    let (mut listen, mut cidrs) = (Vec::new(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let mut value = || {
            args.next()
                .unwrap_or_else(|| panic!("{name} wants a value"))
        };
        match name.as_str() {
            "--cloud" => facts.cloud = Cloud::parse(&value()),
            "--listen" => listen.push(value()),
            "--private-ipv4" => facts.private_ipv4 = value(),
            "--public-ipv4" => facts.public_ipv4 = Some(value()),
            "--vpc-cidr" => cidrs.push(value()),
            "--subnet-cidr" => facts.subnet_cidr = value(),
            "--token" => facts.token_wanted = true,
            "--ttl" => facts.ttl = Some(value().parse().unwrap()),
            "--log" => facts.log = Some(value().into()),
            "--redirect" => facts.redirect = Some(value()),
            "--hang" => facts.hang = true,
            _ => panic!("{name} is not known"),
        }
    }
    if !cidrs.is_empty() {
        facts.vpc_cidrs = cidrs;
    }
    if listen.is_empty() {
        listen.extend(facts.cloud.addresses().iter().map(|&a| a.to_owned()));
    }
    let listeners = listen
        .iter()
        .map(|at| TcpListener::bind(at).unwrap_or_else(|error| panic!("{at}: {error}")))
        .collect();
    let metadata = Metadata::start(listeners, facts);
    let mut out = std::io::stdout();
    writeln!(out, "up").unwrap();
    out.flush().unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(metadata);
}
