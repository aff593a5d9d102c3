//! Sessions: how their numbers are written, and which are open on which ring.

use std::collections::HashMap;
use std::fmt;

use ring::record::{Header, Kind};

use crate::segment::format::Index;

/// A session's number as people see it: `s_` and lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Reads `s_…` or bare hexadecimal digits.
    pub fn parse(text: &str) -> Option<SessionId> {
        let digits = text.strip_prefix("s_").unwrap_or(text);
        if digits.starts_with('+') {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(SessionId)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s_{:x}", self.0)
    }
}

/// The sessions that were opened and not closed.
#[derive(Default, Debug)]
pub struct OpenSessions {
    sessions: HashMap<u64, Opened>,
}

/// Where a session was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opened {
    ring: u64,
    seq: u64,
}

/// A record names a session that another ring has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignSession;

impl OpenSessions {
    /// Follows one record. A session belongs to the ring that opened it.
    pub fn follow(&mut self, ring: u64, header: &Header) -> Result<(), ForeignSession> {
        match (header.kind, self.sessions.get(&header.session)) {
            (_, Some(opened)) if opened.ring != ring => return Err(ForeignSession),
            (Kind::Open, None) => {
                self.sessions.insert(header.session, Opened { ring, seq: header.seq });
            }
            (Kind::Close, Some(_)) => {
                self.sessions.remove(&header.session);
            }
            _ => {}
        }
        Ok(())
    }

    /// Follows the index of a block or segment that was read back, in the order of writing.
    pub fn follow_index(&mut self, index: &Index) {
        let has = |kinds: u32, kind: Kind| kinds & 1 << kind as u32 != 0;
        for span in &index.sessions {
            if has(span.kinds, Kind::Close) {
                self.sessions.remove(&span.session);
            } else if has(span.kinds, Kind::Open) {
                self.sessions.insert(span.session, Opened { ring: span.ring, seq: span.first_seq });
            }
        }
    }

    /// Takes out the sessions of a ring that were opened before `seq`, ascending.
    pub fn take_opened_before(&mut self, ring: u64, seq: u64) -> Vec<u64> {
        self.take(|opened| opened.ring == ring && opened.seq < seq)
    }

    /// Takes out the sessions of rings that are not among `rings`, ascending.
    pub fn take_without_ring(&mut self, rings: &[u64]) -> Vec<u64> {
        self.take(|opened| !rings.contains(&opened.ring))
    }

    fn take(&mut self, wanted: impl Fn(&Opened) -> bool) -> Vec<u64> {
        let mut taken: Vec<u64> =
            self.sessions.iter().filter(|(_, opened)| wanted(opened)).map(|(session, _)| *session).collect();
        taken.sort_unstable();
        for session in &taken {
            self.sessions.remove(session);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_is_written() {
        for number in [0, 7, 0xdead_beef, u64::MAX] {
            assert_eq!(SessionId::parse(&SessionId(number).to_string()), Some(SessionId(number)));
        }
        assert_eq!(SessionId(31).to_string(), "s_1f");
        for bad in ["", "s_", "s_+1", "+1", "s_g", "s_12345678901234567", "../1"] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_session_belongs_to_the_ring_that_opened_it() {
        let header =
            |kind, session, seq| Header { length: 32, kind, flags: ring::Flags::NONE, session, seq, time_unix_ns: 0 };
        let mut open = OpenSessions::default();
        open.follow(1, &header(Kind::Open, 10, 1)).unwrap();
        open.follow(1, &header(Kind::Open, 11, 5)).unwrap();
        assert_eq!(open.follow(2, &header(Kind::Request, 10, 1)), Err(ForeignSession));
        assert_eq!(open.take_opened_before(1, 5), [10]);
        open.follow(1, &header(Kind::Close, 11, 6)).unwrap();
        assert_eq!(open.take_without_ring(&[]), [] as [u64; 0]);
    }
}
