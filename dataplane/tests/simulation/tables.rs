//! The relations of the model server, and what their columns are.

use dataplane::protocol::postgres::wire::{message, put_cstr};

/// Relations of the model: OID, name, columns.
pub const TABLES: [(u32, &str, &[&str]); 3] =
    [(16400, "items", &["id", "note"]), (16401, "people", &["name", "ssn", "note"]), (16402, "vault", &["id", "note"])];

/// What the detectors find in a long value; the oracle looks for its first word.
const ADDRESS: &str = "CANARY-card@example.com";

/// A long value with an address every few hundred bytes, so that some lie across every border there may be.
pub fn big_note(token: &str, length: usize, masked: bool) -> Vec<u8> {
    let address = if masked { "*".repeat(ADDRESS.len()) } else { ADDRESS.to_owned() };
    let mut note = String::new();
    while note.len() < length {
        note += &token.repeat(1 + note.len() % 40);
        note += &format!(" {address} ");
    }
    note.into_bytes()
}

pub struct Column {
    pub name: &'static str,
    pub relation: u32,
    pub number: u16,
    pub type_oid: u32,
}

pub const ID: Column = Column { name: "id", relation: 16400, number: 1, type_oid: 23 };
const ITEMS: [Column; 2] = [ID, Column { name: "note", relation: 16400, number: 2, type_oid: 25 }];
const PEOPLE: [Column; 3] = [
    Column { name: "name", relation: 16401, number: 1, type_oid: 25 },
    Column { name: "ssn", relation: 16401, number: 2, type_oid: 25 },
    Column { name: "note", relation: 16401, number: 3, type_oid: 25 },
];
const VAULT: [Column; 2] =
    [Column { relation: 16402, ..ID }, Column { name: "note", relation: 16402, number: 2, type_oid: 25 }];
const UNSOURCED: [Column; 1] = [Column { name: "?column?", relation: 0, number: 0, type_oid: 25 }];

pub fn columns(text: &str) -> Option<&'static [Column]> {
    match text {
        _ if !text.starts_with("SELECT") || text.starts_with("SELECT 1 / 0") => None,
        _ if text.contains("||") => Some(&UNSOURCED),
        _ if text.contains("people") => Some(&PEOPLE),
        _ if text.contains("FROM vault") => Some(&VAULT),
        _ => Some(&ITEMS),
    }
}

/// The first number in a text: its place in its client's script.
pub fn number(text: &str) -> usize {
    let digits: String = text.split("k = ").nth(1).unwrap_or("7").chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(7)
}

pub fn row_description(columns: &[Column], out: &mut Vec<u8>) {
    message(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for column in columns {
            put_cstr(out, column.name.as_bytes());
            out.extend_from_slice(&column.relation.to_be_bytes());
            out.extend_from_slice(&column.number.to_be_bytes());
            out.extend_from_slice(&column.type_oid.to_be_bytes());
            out.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        }
    });
}
