//! Fields of a COPY row in text or csv format, masked in place.
//! Source: <https://www.postgresql.org/docs/18/sql-copy.html>, "File Formats".

use policy_compiler::artifact::MaskAction;
use policy_compiler::detect::transform::{self, Transform};
use policy_compiler::judge::CopyMasks;

use super::mask::MaskView;
use super::verdict::CopyPlan;

/// Masks the fields of one row; its new length. A row with more fields than the plan knows is masked whole from there on.
pub fn mask_fields(view: &MaskView, copy: &CopyPlan, row: &mut [u8]) -> usize {
    let end = row.len() - usize::from(row.last() == Some(&b'\n'));
    let (mut read, mut write) = (0, 0);
    for index in 0.. {
        let to = field_end(copy, &row[..end], read);
        let action = match &copy.masks {
            CopyMasks::All(action) => Some(*action),
            CopyMasks::Columns(actions) => actions.get(index).copied().unwrap_or(Some(MaskAction::Redact)),
        };
        let bytes = match action {
            Some(action) => mask_field(view, copy, action, &mut row[read..to]),
            None => to - read,
        };
        row.copy_within(read..read + bytes, write);
        write += bytes;
        if to >= end {
            break;
        }
        row[write] = copy.delimiter;
        write += 1;
        read = to + 1;
    }
    let tail = row.len() - end;
    row.copy_within(end.., write);
    write + tail
}

/// Where the field that begins at `from` ends: at an unescaped delimiter, or at the row's end.
fn field_end(copy: &CopyPlan, row: &[u8], from: usize) -> usize {
    let mut quoted = false;
    let mut at = from;
    while let Some(byte) = row.get(at) {
        match *byte {
            b'\\' if !copy.csv => at += 1,
            b if copy.csv && quoted && b == copy.escape && copy.escape != copy.quote => at += 1,
            b if copy.csv && b == copy.quote => quoted = !quoted,
            b if b == copy.delimiter && !quoted => return at,
            _ => {}
        }
        at += 1;
    }
    row.len()
}

/// Masks one field; its new length. The NULL marker of the text format stays.
fn mask_field(view: &MaskView, copy: &CopyPlan, action: MaskAction, field: &mut [u8]) -> usize {
    let quoted = copy.csv && field.len() >= 2 && field[0] == copy.quote && field[field.len() - 1] == copy.quote;
    let inner = if quoted { 1..field.len() - 1 } else { 0..field.len() };
    if !copy.csv && field == b"\\N" {
        return field.len();
    }
    let transform = match action {
        MaskAction::Null if copy.csv => return 0,
        MaskAction::Null if field.len() >= 2 => {
            field[..2].copy_from_slice(b"\\N");
            return 2;
        }
        MaskAction::Null | MaskAction::Redact => Transform::Redact,
        MaskAction::Hash => Transform::Hash,
        // Part of an escape sequence must not survive.
        MaskAction::Last4 if field[inner.clone()].iter().any(|b| matches!(b, b'\\' | b'"')) => Transform::Redact,
        MaskAction::Last4 => Transform::Last4,
    };
    transform::apply(transform, &view.key, &mut field[inner]);
    field.len()
}
