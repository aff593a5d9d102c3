//! One and the same two-way TCP relay on five engines: what moving bytes costs before a gateway does anything with them.
//!
//! `relay ENGINE PORT UPSTREAM_PORT`, both ports on 127.0.0.1; one thread. `run.py` beside this file measures it.

mod glommio;
mod monoio;
mod own;
mod tokio;

use std::net::{Ipv4Addr, SocketAddr};

use dataplane::buffer::SLOT_BYTES;
use dataplane::io::driver::Kind;

/// Bytes of a buffer, one for each direction of a connection: as the product's.
const BUFFER_BYTES: usize = SLOT_BYTES;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, port, upstream] = &arguments[..] else { return usage() };
    let (Ok(port), Ok(upstream)) = (port.parse(), upstream.parse()) else { return usage() };
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match &engine[..] {
        "io_uring" => own::run(Kind::Uring, at(port), at(upstream)),
        "epoll" => own::run(Kind::Epoll, at(port), at(upstream)),
        "tokio" => tokio::run(at(port), at(upstream)),
        "monoio" => monoio::run(at(port), at(upstream)),
        "glommio" => glommio::run(at(port), at(upstream)),
        _ => usage(),
    }
}

fn usage() {
    eprintln!("relay io_uring|epoll|tokio|monoio|glommio PORT UPSTREAM_PORT");
    std::process::exit(2);
}
