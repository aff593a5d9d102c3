//! Frames larger than a slot, masked while they pass: no byte leaves before it is judged, and what is held back for that is
//! bounded by the widest detector, however long a value is (decision 14).

use std::rc::Rc;

use policy_compiler::detect::transform::HashKey;
use policy_compiler::detect::{self, WIDTH_BYTES_MAX};

use super::mask::{Act, DetectView, MaskView, RowPlan, redact_all};
use crate::protocol::postgres::wire::{HEAD_BYTES, u16_at, u32_at};

/// Bytes that one scan looks at: at most this many of the value, with the context on both sides.
const WINDOW_BYTES: usize = 8 * 1024;

/// Content detection over one value that comes in pieces.
///
/// A match counts where it begins with [`WIDTH_BYTES_MAX`] bytes of the value behind its beginning, or the value's end, and
/// as many raw bytes before it, or the value's beginning. No detector looks further, so the cuts change nothing.
#[derive(Debug)]
pub struct TextStream {
    /// The last bytes that are final, as they were before they were masked.
    context: [u8; WIDTH_BYTES_MAX],
    context_bytes: usize,
}

impl TextStream {
    pub fn new() -> Self {
        Self { context: [0; WIDTH_BYTES_MAX], context_bytes: 0 }
    }

    /// Masks `text`, the bytes of the value behind those that are final; how many more are final now. The others are left as
    /// they are and must come again with what follows them. At the value's end all are final.
    pub fn mask(&mut self, detect: &DetectView, key: &HashKey, text: &mut [u8], is_end: bool, json: bool) -> usize {
        let mut finished = 0;
        while finished < text.len() {
            let bytes = self.mask_window(detect, key, &mut text[finished..], is_end, json);
            if bytes == 0 {
                break;
            }
            finished += bytes;
        }
        finished
    }

    fn mask_window(&mut self, detect: &DetectView, key: &HashKey, text: &mut [u8], is_end: bool, json: bool) -> usize {
        let context = self.context_bytes;
        let taken = text.len().min(WINDOW_BYTES - context);
        let is_last = is_end && taken == text.len();
        // A match that begins behind this may still depend on bytes to come.
        let judged = if is_last { taken } else { taken.saturating_sub(WIDTH_BYTES_MAX) };
        if judged == 0 {
            return 0;
        }
        let mut window = [0; WINDOW_BYTES];
        window[..context].copy_from_slice(&self.context[..context]);
        window[context..context + taken].copy_from_slice(&text[..taken]);
        let mut finished = judged;
        detect::scan(&window[..context + taken], detect.kinds, |found| {
            // What begins in the context was masked with it.
            let Some(start) = found.start.checked_sub(context).filter(|start| *start < judged) else { return };
            let end = found.end - context;
            detect.mask_match(key, &mut text[start..end], found.kind, json);
            finished = finished.max(end);
        });
        self.remember(&window[..context + finished]);
        finished
    }

    fn remember(&mut self, raw: &[u8]) {
        let last = &raw[raw.len().saturating_sub(WIDTH_BYTES_MAX)..];
        self.context[..last.len()].copy_from_slice(last);
        self.context_bytes = last.len();
    }
}

/// A DataRow or CopyData that is masked while it passes. It keeps the masks that it began with.
#[derive(Debug)]
pub struct StreamedFrame {
    view: Rc<MaskView>,
    text: TextStream,
    /// Bytes of the frame that are not final.
    left: usize,
    place: Place,
    column: usize,
    /// The body is one value, to be treated so.
    one_value: Option<Act>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Head,
    Length,
    Value { left: usize },
}

impl StreamedFrame {
    /// A DataRow of `bytes` that [`RowPlan::streams`].
    pub fn row(view: Rc<MaskView>, bytes: usize) -> Self {
        Self { view, text: TextStream::new(), left: bytes, place: Place::Head, column: 0, one_value: None }
    }

    /// A CopyData of `bytes`, all of it treated alike.
    pub fn copy_data(view: Rc<MaskView>, bytes: usize, act: Act) -> Self {
        Self { one_value: Some(act), ..Self::row(view, bytes) }
    }

    pub fn is_finished(&self) -> bool {
        self.left == 0
    }

    /// Masks `piece`, the frame's bytes behind those that are final; how many more are final now, perhaps none. The others
    /// must come again. `None`: the row is malformed, or has other columns than described.
    pub fn mask(&mut self, rows: &RowPlan, piece: &mut [u8]) -> Option<usize> {
        let acts = self.one_value.map_or(rows.acts(), |_| &[]);
        let mut at = 0;
        loop {
            let before = (at, self.place);
            at += match self.place {
                Place::Head => self.head(acts, &piece[at..])?,
                Place::Length => self.length(acts, &piece[at..], self.left - at)?,
                Place::Value { left } => {
                    let act = self.one_value.or_else(|| acts.get(self.column).copied())?;
                    let bytes = left.min(piece.len() - at);
                    self.value(act, left, &mut piece[at..at + bytes])
                }
            };
            if before == (at, self.place) {
                self.left -= at;
                return Some(at);
            }
        }
    }

    fn head(&mut self, acts: &[Act], piece: &[u8]) -> Option<usize> {
        if self.one_value.is_some() {
            let is_here = piece.len() >= HEAD_BYTES;
            self.place = if is_here { Place::Value { left: self.left - HEAD_BYTES } } else { Place::Head };
            return Some(if is_here { HEAD_BYTES } else { 0 });
        }
        let Some(columns) = u16_at(piece, HEAD_BYTES) else { return Some(0) };
        self.place = Place::Length;
        (usize::from(columns) == acts.len()).then_some(HEAD_BYTES + 2)
    }

    /// `rest`: bytes of the frame from here on.
    fn length(&mut self, acts: &[Act], piece: &[u8], rest: usize) -> Option<usize> {
        if self.one_value.is_some() || self.column >= acts.len() {
            return (rest == 0).then_some(0);
        }
        let behind = rest.checked_sub(4)?;
        let Some(length) = u32_at(piece, 0) else { return Some(0) };
        match usize::try_from(length as i32) {
            Ok(left) if left <= behind => {
                self.text = TextStream::new();
                self.place = Place::Value { left };
            }
            // NULL.
            Err(_) if length as i32 == -1 => self.column += 1,
            _ => return None,
        }
        Some(4)
    }

    fn value(&mut self, act: Act, left: usize, value: &mut [u8]) -> usize {
        let is_end = left == value.len();
        let bytes = match (act, &self.view.detect) {
            (Act::Detect { json }, Some(detect)) => self.text.mask(detect, &self.view.key, value, is_end, json),
            (Act::Pass | Act::Detect { .. }, _) => value.len(),
            (Act::Shape, _) => {
                redact_all(value);
                value.len()
            }
            (Act::Whole(_) | Act::Null, _) => {
                value.fill(b'*');
                value.len()
            }
        };
        self.place = Place::Value { left: left - bytes };
        if left == bytes {
            self.column += 1;
            self.place = Place::Length;
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
