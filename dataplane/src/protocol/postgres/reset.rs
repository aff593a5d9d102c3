//! Undoes on an upstream connection what a session has set there, so that another may go on with it.
//!
//! `DISCARD ALL` (<https://www.postgresql.org/docs/18/sql-discard.html>) closes cursors, drops temporary tables, prepared
//! statements and advisory locks, forgets channels and sequences' values, and comes back to the settings of the startup
//! message, where ours are pinned. It keeps what server-side languages hold in a session (`GD` of PL/Python, say).

use super::framer::{self, Framed};
use super::wire::{HEAD_BYTES, backend, frontend, message, put_cstr};

/// The answer has a hundred bytes; a notice may come with it.
const ANSWER_BYTES_MAX: usize = 4096;

/// What has come of it so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// The connection is as it was after its login.
    Done,
    /// It is not, or nobody knows: it must be closed.
    Failed,
}

/// One reset, from the question to its ReadyForQuery.
#[derive(Debug, Default)]
pub struct Reset {
    held: Vec<u8>,
    has_discarded: bool,
}

impl Reset {
    pub fn question() -> Vec<u8> {
        let mut bytes = Vec::new();
        message(&mut bytes, frontend::QUERY, |out| put_cstr(out, b"DISCARD ALL"));
        bytes
    }

    /// Takes bytes of the upstream, cut anywhere. The settings that the server reports were not changed by the session, so
    /// a report of one now means that they are others than those of the login.
    pub fn received(&mut self, bytes: &[u8]) -> Progress {
        if self.held.len() + bytes.len() > ANSWER_BYTES_MAX {
            return Progress::Failed;
        }
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while let Framed::Frame { tag, bytes } = framer::next(&self.held[at..]) {
            let Some(frame) = self.held.get(at..at + bytes) else { break };
            at += bytes;
            match (tag, &frame[HEAD_BYTES..]) {
                (backend::COMMAND_COMPLETE, b"DISCARD ALL\0") if !self.has_discarded => self.has_discarded = true,
                (backend::READY_FOR_QUERY, b"I") if self.has_discarded && at == self.held.len() => {
                    return Progress::Done;
                }
                // Channels are given up in the midst of it.
                (backend::NOTICE | backend::NOTIFICATION, _) if !self.has_discarded => {}
                _ => return Progress::Failed,
            }
        }
        match framer::next(&self.held[at..]) {
            Framed::Broken => Progress::Failed,
            _ => {
                self.held.drain(..at);
                Progress::More
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, tag, |out| out.extend_from_slice(body));
        out
    }

    /// How it ends, however the bytes are cut.
    fn outcome(frames: &[Vec<u8>]) -> Progress {
        let bytes = frames.concat();
        let whole = Reset::default().received(&bytes);
        for cut in 0..=bytes.len() {
            let mut reset = Reset::default();
            let first = reset.received(&bytes[..cut]);
            let last = if first == Progress::More { reset.received(&bytes[cut..]) } else { first };
            // What is behind the end may not have come yet.
            assert!(last == whole || first == Progress::Done, "cut at {cut}");
        }
        let mut reset = Reset::default();
        let by_byte = bytes.iter().map(|byte| reset.received(&[*byte])).find(|p| *p != Progress::More);
        assert!(by_byte == Some(whole) || by_byte == Some(Progress::Done) || whole == Progress::More, "byte by byte");
        whole
    }

    #[test]
    fn only_a_whole_discard_at_rest_is_done() {
        let done = || frame(b'C', b"DISCARD ALL\0");
        let ready = |status| frame(b'Z', &[status]);
        assert_eq!(outcome(&[done(), ready(b'I')]), Progress::Done);
        assert_eq!(
            outcome(&[frame(b'N', b"SNOTICE\0\0"), frame(b'A', b"\0\0\0\x01c\0\0"), done(), ready(b'I')]),
            Progress::Done
        );
        for failed in [
            vec![ready(b'I')],
            vec![done(), ready(b'T')],
            vec![done(), done(), ready(b'I')],
            vec![frame(b'C', b"DISCARD TEMP\0"), ready(b'I')],
            vec![frame(b'E', b"SERROR\0\0"), ready(b'I')],
            vec![frame(b'S', b"TimeZone\0UTC\0"), done(), ready(b'I')],
            vec![done(), frame(b'S', b"TimeZone\0UTC\0"), ready(b'I')],
            vec![done(), ready(b'I'), frame(b'N', b"\0")],
            vec![frame(b'T', &[0; 2]), done(), ready(b'I')],
            vec![vec![b'C', 0, 0, 0, 1]],
            vec![vec![b'N', 0, 1, 0, 0], vec![0; ANSWER_BYTES_MAX]],
        ] {
            assert_eq!(outcome(&failed), Progress::Failed, "{failed:?}");
        }
        assert_eq!(outcome(&[done()]), Progress::More);
    }
}
