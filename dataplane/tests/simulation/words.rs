//! How the server words what it says of names, and how the gateway speaks for itself.

/// A function of which nobody knows what it does.
pub const CALLS: &str = "changes()";
/// The portal whose Execute stands for a refused statement.
pub const STAND_IN: &[u8] = b"blocked by wireward\0";
/// The name of the statement and the portal of the gateway's own questions, and how they begin.
const QUESTION: &[u8] = b"asked by wireward\0";
pub const ASKS: &str = "select 1 operator";
/// A message by which the gateway asks for itself.
pub fn is_question(frame: &[u8]) -> bool {
    match frame[0] {
        b'C' => frame[6..].starts_with(QUESTION),
        b'P' | b'B' | b'E' => frame[5..].starts_with(QUESTION),
        _ => false,
    }
}

/// Nothing stands under the name.
pub fn is_of_name(sqlstate: &str) -> bool {
    matches!(sqlstate, "26000" | "34000")
}

pub fn no_statement(name: &[u8]) -> String {
    match name {
        b"" => "unnamed prepared statement does not exist".to_owned(),
        _ => format!("prepared statement \"{}\" does not exist", name.escape_ascii()),
    }
}

pub fn no_portal(name: &[u8]) -> String {
    format!("portal \"{}\" does not exist", name.escape_ascii())
}
