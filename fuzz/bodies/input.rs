//! Takes a fuzzer's bytes apart.

/// Reads from the front; what is missing counts as zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        self.bytes(8).iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// The next `n` bytes, or as many as there are.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Precedes a command in a stream of bytes.
const ESCAPE: u8 = 0xfe;
/// Ends a burst: the peer answers before the next one comes.
const BURST: u8 = 1;
/// A count and a byte follow: so many times 512 of it, to pass the sizes from which frames are gathered or streamed.
const REPEAT: u8 = 2;
const REPEATED_BYTES_MAX: usize = 192 * 1024;

/// A stream as bursts, with its commands carried out. Any other byte stands for itself.
pub fn bursts(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut bursts = vec![Vec::new()];
    let (mut rest, mut repeated) = (stream, 0);
    while let [byte, tail @ ..] = rest {
        let burst = bursts.last_mut().expect("never empty");
        rest = match (byte, tail) {
            (&ESCAPE, [BURST, tail @ ..]) => {
                bursts.push(Vec::new());
                tail
            }
            (&ESCAPE, [REPEAT, count, byte, tail @ ..]) if repeated < REPEATED_BYTES_MAX => {
                let bytes = usize::from(*count) * 512;
                repeated += bytes;
                burst.resize(burst.len() + bytes, *byte);
                tail
            }
            _ => {
                burst.push(*byte);
                tail
            }
        };
    }
    bursts
}

/// The messages of a stream that begins at a message: whole ones, and what is left.
pub fn messages(stream: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut whole, mut rest) = (Vec::new(), stream);
    while let Some(length) = rest.get(1..5) {
        let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)) + 1;
        if length < 5 || length > rest.len() {
            break;
        }
        let (message, tail) = rest.split_at(length);
        whole.push(message);
        rest = tail;
    }
    (whole, rest)
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}
