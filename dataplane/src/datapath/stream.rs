//! Frames larger than a slot, masked while they pass: no byte leaves before it is judged, and what is held back for that is
//! bounded by the widest detector, however long a value is (decision 14).

use std::rc::Rc;

use policy_compiler::detect::transform::HashKey;
use policy_compiler::detect::{self, WIDTH_BYTES_MAX};

use super::copy_text::{Reader, Unit};
use super::mask::{Act, DetectView, MaskView, RowPlan, redact_all};
use super::verdict::{CopyPlan, Plan};
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

/// Detection over a row of COPY that comes in pieces: over its values as they are meant, not as they are written.
struct CopyStream {
    plan: Rc<Plan>,
    /// Where the bytes that are not final begin.
    reader: Reader,
    /// The last bytes of the values that are final, as they were before they were masked.
    context: [u8; WIDTH_BYTES_MAX],
    context_bytes: usize,
}

impl std::fmt::Debug for CopyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyStream").field("reader", &self.reader).finish()
    }
}

/// Stands between values, so that no match goes from one into the next.
const BETWEEN: u8 = 0;

/// Bytes of values that one scan looks at. A byte is written in up to two, so that ends of all of them fit 16 bits.
const COPY_WINDOW_BYTES: usize = 4 * 1024;

/// The last bytes that are final, and values behind them; for each of these where its writing ends, and the reader there.
struct CopyWindow {
    values: [u8; COPY_WINDOW_BYTES],
    ends: [(u16, Reader); COPY_WINDOW_BYTES],
    context: usize,
    bytes: usize,
}

impl CopyStream {
    fn new(plan: Rc<Plan>) -> Self {
        Self { plan, reader: Reader::default(), context: [0; WIDTH_BYTES_MAX], context_bytes: 0 }
    }

    /// As [`TextStream::mask`].
    fn mask(&mut self, view: &MaskView, detect: &DetectView, text: &mut [u8], is_end: bool) -> usize {
        let mut finished = 0;
        while finished < text.len() {
            let bytes = self.mask_window(view, detect, &mut text[finished..], is_end);
            if bytes == 0 {
                break;
            }
            finished += bytes;
        }
        finished
    }

    fn mask_window(&mut self, view: &MaskView, detect: &DetectView, text: &mut [u8], is_end: bool) -> usize {
        let plan = self.plan.clone();
        let Some(copy) = &plan.copy else {
            redact_all(text);
            return text.len();
        };
        let mut window = CopyWindow::behind(&self.context[..self.context_bytes]);
        let is_last = window.read(view, copy, self.reader, text, is_end) && is_end;
        let taken = window.bytes - window.context;
        let judged = if is_last { taken } else { taken.saturating_sub(WIDTH_BYTES_MAX) };
        if judged == 0 {
            return 0;
        }
        let mut finished = judged;
        detect::scan(&window.values[..window.bytes], detect.kinds, |found| {
            let Some(start) = found.start.checked_sub(window.context).filter(|start| *start < judged) else { return };
            let end = found.end - window.context;
            let json = view.copied(copy, usize::from(window.ends[start].1.field)) == Act::Detect { json: true };
            window.overwrite(text, start..end, |value| detect.mask_match(&view.key, value, found.kind, json));
            finished = finished.max(end);
        });
        self.context_bytes = window.context_behind(finished, &mut self.context);
        let (end, reader) = window.ends[finished - 1];
        self.reader = reader;
        usize::from(end)
    }
}

impl CopyWindow {
    fn behind(context: &[u8]) -> Self {
        let mut values = [0; COPY_WINDOW_BYTES];
        values[..context.len()].copy_from_slice(context);
        let ends = [(0, Reader::default()); COPY_WINDOW_BYTES];
        Self { values, ends, context: context.len(), bytes: context.len() }
    }

    /// Reads on until the window is full; whether all of `text` is read. Fields that are never masked are not looked at.
    fn read(&mut self, view: &MaskView, copy: &CopyPlan, mut reader: Reader, text: &[u8], is_end: bool) -> bool {
        let passes = |reader: Reader| view.copied(copy, usize::from(reader.field)) == Act::Pass;
        let (mut at, mut field, mut skips) = (0, reader.field, passes(reader));
        while self.bytes < COPY_WINDOW_BYTES
            && let Some((unit, bytes)) = reader.next(copy, &text[at..], is_end)
        {
            at += bytes;
            if field != reader.field {
                (field, skips) = (reader.field, passes(reader));
            }
            self.values[self.bytes] = match unit {
                Unit::Byte(byte) if !skips => byte,
                _ => BETWEEN,
            };
            self.ends[self.bytes - self.context] = (at as u16, reader);
            self.bytes += 1;
        }
        at == text.len()
    }

    /// Lets `mask` change values; each changed byte is written in as many bytes as it was.
    fn overwrite(&self, text: &mut [u8], places: std::ops::Range<usize>, mask: impl FnOnce(&mut [u8])) {
        let raw = &self.values[self.context + places.start..self.context + places.end];
        let mut masked = [0; WIDTH_BYTES_MAX];
        let Some(value) = masked.get_mut(..raw.len()) else { return };
        value.copy_from_slice(raw);
        mask(value);
        for (place, (was, is)) in places.zip(raw.iter().zip(value)) {
            let from = place.checked_sub(1).map_or(0, |before| usize::from(self.ends[before].0));
            let to = usize::from(self.ends[place].0);
            if *was != *is && *was != BETWEEN {
                text[from..to].fill(b'*');
                text[from] = *is;
            }
        }
    }

    fn context_behind(&self, finished: usize, context: &mut [u8; WIDTH_BYTES_MAX]) -> usize {
        let raw = &self.values[..self.context + finished];
        let last = &raw[raw.len().saturating_sub(WIDTH_BYTES_MAX)..];
        context[..last.len()].copy_from_slice(last);
        last.len()
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
    /// The body is a row of COPY, in whose values detectors look.
    copy: Option<CopyStream>,
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
        let text = TextStream::new();
        Self { view, text, left: bytes, place: Place::Head, column: 0, one_value: None, copy: None }
    }

    /// A CopyData of `bytes`, all of it treated alike.
    pub fn copy_data(view: Rc<MaskView>, bytes: usize, act: Act) -> Self {
        Self { one_value: Some(act), ..Self::row(view, bytes) }
    }

    /// A CopyData of `bytes` with a row as the plan has it, in which only detectors look.
    pub fn copy_text(view: Rc<MaskView>, bytes: usize, plan: Rc<Plan>) -> Self {
        Self { copy: Some(CopyStream::new(plan)), ..Self::copy_data(view, bytes, Act::Detect { json: false }) }
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
            (Act::Detect { .. }, Some(detect)) if let Some(copy) = &mut self.copy => {
                copy.mask(&self.view, detect, value, is_end)
            }
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
