//! Where one message ends and the next begins. Nothing is allocated by an announced length.

use super::wire::{HEAD_BYTES, u32_at};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// The window is shorter than a head.
    NeedMore,
    /// A message of `bytes` (head included) begins; the window may hold only its start.
    Frame { tag: u8, bytes: usize },
    /// The length word is below 4 or above 1 GiB: not this protocol (threats DS-01).
    Broken,
}

/// The server's own largest message, bytes: 1 GiB − 1, `MaxAllocSize`.
pub const FRAME_BYTES_MAX: usize = (1 << 30) - 1;

pub fn next(window: &[u8]) -> Framed {
    let Some(length) = u32_at(window, 1) else { return Framed::NeedMore };
    let bytes = length as usize + 1;
    if length < 4 || bytes > FRAME_BYTES_MAX {
        return Framed::Broken;
    }
    debug_assert!(bytes >= HEAD_BYTES);
    Framed::Frame { tag: window[0], bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_the_server_refuses_are_broken() {
        for (length, broken) in
            [(0u32, true), (3, true), (4, false), (0x3fff_fffe, false), (0x3fff_ffff, true), (u32::MAX, true)]
        {
            let mut window = vec![b'Q'];
            window.extend_from_slice(&length.to_be_bytes());
            assert_eq!(next(&window) == Framed::Broken, broken, "{length:#x}");
        }
    }

    #[test]
    fn a_head_in_parts_needs_more() {
        for n in 0..5 {
            assert_eq!(next(&[b'Q', 0, 0, 0, 4][..n]), Framed::NeedMore);
        }
        assert_eq!(next(&[b'S', 0, 0, 0, 4]), Framed::Frame { tag: b'S', bytes: 5 });
    }
}
