//! The header of the PROXY protocol, version 2: a trusted proxy says for whom it connects, before any other byte.
//!
//! Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, 2.2. Version 1 is refused. Additional fields (TLVs)
//! are passed over. Whether the peer is a proxy that may say so is checked when its connection is accepted.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Session, State};
use crate::address::Peer;
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// The longest header, bytes. Addresses take 52; the rest is for fields that a proxy may add.
const HEADER_BYTES_MAX: usize = 4096;

const MISSING: &str = "this listener takes connections from a proxy alone, and they begin with a PROXY protocol version 2 \
                       header (haproxy: send-proxy-v2)";
const VERSION_1: &str = "a PROXY protocol version 1 header came; this listener takes version 2 (haproxy: send-proxy-v2 in place of send-proxy)";
const MALFORMED: &str = "the PROXY protocol header is malformed";
const TOO_LONG: &str = "the PROXY protocol header is longer than 4 KiB";
const NO_STREAM: &str = "the PROXY protocol header is not about a TCP or unix stream";

/// Whom a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Client(SocketAddr),
    /// The proxy itself (a health check), or a client whose address it does not tell: the connection's own address counts.
    Nobody,
}

/// Reads the header, when it is whole; with its length in bytes.
fn read(window: &[u8]) -> Result<Option<(Named, usize)>, &'static str> {
    let known = window.len().min(SIGNATURE.len());
    if window[..known] != SIGNATURE[..known] {
        return Err(if window.starts_with(b"PROXY ") { VERSION_1 } else { MISSING });
    }
    let Some(fixed) = window.get(SIGNATURE.len()..FIXED_BYTES) else { return Ok(None) };
    let bytes = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if bytes > HEADER_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let Some(block) = window.get(FIXED_BYTES..bytes) else { return Ok(None) };
    match fixed[0] {
        // LOCAL: whatever else it says is to be passed over.
        0x20 => Ok(Some((Named::Nobody, bytes))),
        0x21 => Ok(Some((client(fixed[1], block)?, bytes))),
        _ => Err(MALFORMED),
    }
}

/// Address and port of the source, which stand before those of the destination.
fn client(family: u8, block: &[u8]) -> Result<Named, &'static str> {
    let port = |at: usize| block.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let named = match family {
        0x11 if block.len() >= 12 => {
            let ip: [u8; 4] = block[..4].try_into().map_err(|_| MALFORMED)?;
            Named::Client(SocketAddr::from((Ipv4Addr::from(ip), port(8).ok_or(MALFORMED)?)))
        }
        0x21 if block.len() >= 36 => {
            let ip: [u8; 16] = block[..16].try_into().map_err(|_| MALFORMED)?;
            Named::Client(SocketAddr::from((Ipv6Addr::from(ip), port(32).ok_or(MALFORMED)?)))
        }
        // Unspecified, and a unix socket of the proxy's machine.
        0x00 => Named::Nobody,
        0x31 if block.len() >= 216 => Named::Nobody,
        0x11 | 0x21 | 0x31 => return Err(MALFORMED),
        _ => return Err(NO_STREAM),
    };
    Ok(named)
}

impl Session {
    /// True when the header has been read: what follows it is the client's.
    pub(super) fn read_proxy_header(&mut self, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        match read(self.relay.requests.window(cx.slab)) {
            Ok(Some((named, bytes))) => {
                self.relay.requests.drop_bytes(bytes);
                self.state = State::Greeting { negotiations: 0 };
                match named {
                    Named::Client(address) => {
                        self.peer = Peer::from(address);
                        cx.counters.proxied_named.add(1);
                    }
                    Named::Nobody => cx.counters.proxied_unnamed.add(1),
                }
                Ok(true)
            }
            Ok(None) if self.relay.requests.ended() => Err(Fault::Gone(Side::Client)),
            Ok(None) => Ok(false),
            Err(why) => {
                cx.counters.proxy_headers_refused.add(1);
                Err(Fault::Protocol(Side::Client, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::Random;

    fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    const V4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0x30, 0x39, 0x15, 0x38];

    fn v6() -> Vec<u8> {
        let mut block = vec![0; 36];
        (block[0], block[15], block[33]) = (0xfd, 9, 80);
        block
    }

    #[test]
    fn each_kind_of_header_is_read_wherever_it_is_cut() {
        let authority = b"\x02\0\x0bexample.com";
        let named = |text: &str| Named::Client(text.parse().expect("an address"));
        for (bytes, expected) in [
            (header(0x21, 0x11, V4), named("203.0.113.7:12345")),
            (header(0x21, 0x11, &[V4, authority].concat()), named("203.0.113.7:12345")),
            (header(0x21, 0x21, &v6()), named("[fd00::9]:80")),
            (header(0x21, 0x00, b""), Named::Nobody),
            (header(0x21, 0x00, b"anything"), Named::Nobody),
            (header(0x21, 0x31, &[0; 216]), Named::Nobody),
            (header(0x20, 0x00, b""), Named::Nobody),
            (header(0x20, 0x11, V4), Named::Nobody),
            (header(0x21, 0x11, &[V4, &[0; 4068]].concat()), named("203.0.113.7:12345")),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
            let followed = [&bytes[..], b"\0\0\0\x08\x04\xd2\x16\x2f"].concat();
            assert_eq!(read(&followed), Ok(Some((expected, bytes.len()))), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_such_header_is_refused_with_what_to_do() {
        for (bytes, why) in [
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(), VERSION_1),
            (b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(), MISSING),
            (b"\x16\x03\x01".to_vec(), MISSING),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), MISSING),
            (header(0x11, 0x11, V4), MALFORMED),
            (header(0x22, 0x11, V4), MALFORMED),
            (header(0x31, 0x11, V4), MALFORMED),
            (header(0x21, 0x11, &V4[..11]), MALFORMED),
            (header(0x21, 0x21, &v6()[..35]), MALFORMED),
            (header(0x21, 0x31, &[0; 215]), MALFORMED),
            (header(0x21, 0x12, V4), NO_STREAM),
            (header(0x21, 0x32, &[0; 216]), NO_STREAM),
            (header(0x21, 0x41, V4), NO_STREAM),
            (header(0x21, 0x10, V4), NO_STREAM),
            (header(0x21, 0x11, &[0; 4081])[..16].to_vec(), TOO_LONG),
        ] {
            assert_eq!(read(&bytes), Err(why), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_read_past_its_limit() {
        let mut random = Random::new(7);
        for _ in 0..50_000 {
            let mut bytes = header(0x20 | random.below(2) as u8, [0, 0x11, 0x21, 0x31][random.below(4)], &[0; 300]);
            (0..random.below(4)).for_each(|_| {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            });
            bytes.truncate(random.below(bytes.len() + 1));
            if let Ok(Some((_, length))) = read(&bytes) {
                assert!(length <= HEADER_BYTES_MAX && length <= bytes.len());
            }
        }
    }
}
