//! What a client and a server say to each other, as bytes.
//! Source: <https://www.postgresql.org/docs/18/protocol-message-formats.html>.

use tests::wire::frame;

/// A column of a result: name, relation, number, type.
pub type Column = (&'static str, u32, u16, u32);

pub const INT4: u32 = 23;
pub const TEXT: u32 = 25;

pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for word in ["user", user, "database", database, ""] {
        body.extend([word.as_bytes(), b"\0"].concat());
    }
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub fn password(token: &str) -> Vec<u8> {
    frame(b'p', &[token.as_bytes(), b"\0"].concat())
}

/// The server trusts the gateway and is ready.
pub fn welcome() -> Vec<u8> {
    let parameter = |name: &str, value: &str| frame(b'S', format!("{name}\0{value}\0").as_bytes());
    [
        frame(b'R', &[0; 4]),
        parameter("server_version", "18.1"),
        parameter("client_encoding", "UTF8"),
        parameter("standard_conforming_strings", "on"),
        frame(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]),
        ready(),
    ]
    .concat()
}

pub fn ready() -> Vec<u8> {
    frame(b'Z', b"I")
}

pub fn parse(name: &str, text: &str) -> Vec<u8> {
    [frame(b'P', format!("{name}\0{text}\0\0\0").as_bytes()), frame(b'S', b"")].concat()
}

pub fn parsed() -> Vec<u8> {
    [frame(b'1', b""), ready()].concat()
}

pub fn query(text: &str) -> Vec<u8> {
    frame(b'Q', format!("{text}\0").as_bytes())
}

/// Bind, Describe, Execute, Sync of a prepared statement with one parameter.
pub fn execute(name: &str) -> Vec<u8> {
    let bind = [b"\0", name.as_bytes(), b"\0", &[0, 0, 0, 1, 0, 0, 0, 2], b"42", &[0, 0]].concat();
    [frame(b'B', &bind), frame(b'D', b"P\0"), frame(b'E', &[0; 5]), frame(b'S', b"")].concat()
}

/// As [`execute`], without the Describe, as asyncpg and pgjdbc do it.
pub fn execute_undescribed(name: &str) -> Vec<u8> {
    let described = execute(name);
    let describe = frame(b'D', b"P\0");
    let at = described.windows(describe.len()).position(|w| w == describe).expect("it has a Describe");
    [&described[..at], &described[at + describe.len()..]].concat()
}

/// RowDescription, DataRow, CommandComplete, ReadyForQuery.
pub fn result(columns: &[Column], values: &[&str]) -> Vec<u8> {
    let mut description = (columns.len() as u16).to_be_bytes().to_vec();
    for (name, relation, number, type_oid) in columns {
        description.extend([name.as_bytes(), b"\0"].concat());
        description.extend(relation.to_be_bytes());
        description.extend(number.to_be_bytes());
        description.extend(type_oid.to_be_bytes());
        description.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    }
    [frame(b'T', &description), row(values), frame(b'C', b"SELECT 1\0"), ready()].concat()
}

pub fn row(values: &[&str]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    frame(b'D', &body)
}

/// BindComplete, then the result.
pub fn bound(result: &[u8]) -> Vec<u8> {
    [&frame(b'2', b"")[..], result].concat()
}
