//! One edge of `src/net`, run on its own; what it saw is printed as JSON. Tests start it in network
//! namespaces, where it has no privileges.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::print_stdout, reason = "this is its output")]

use std::net::SocketAddr;

use pullpath::model::hops::Trace;
use pullpath::net::hops::{self, Bounds};

const USAGE: &str = "edges hops ADDRESS:PORT [MAX_HOPS]";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let json = match args[..] {
        ["hops", to] => serde_json::to_string(&trace(to, Bounds::default()).await),
        ["hops", to, max_hops] => {
            let bounds = Bounds {
                max_hops: max_hops.parse().unwrap(),
                ..Bounds::default()
            };
            serde_json::to_string(&trace(to, bounds).await)
        }
        _ => panic!("{USAGE}"),
    };
    println!("{}", json.unwrap());
}

async fn trace(to: &str, bounds: Bounds) -> Trace {
    hops::trace(at(to), &bounds).await
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}
