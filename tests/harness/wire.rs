//! A PostgreSQL client that can be rude: it sends exactly the bytes it is told to, and shows every byte it gets.
//! Message formats: PostgreSQL documentation, "Message Formats" of the frontend/backend protocol, version 3.0.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const PROTOCOL_3_0: u32 = 196_608;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The values of a row; `None` is NULL.
pub type Row = Vec<Option<Vec<u8>>>;

/// One message of the server: its type byte and its body without the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse, such as `b'C'`, the SQLSTATE.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        fields.find(|field| field.first() == Some(&code)).map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// The values of a DataRow.
    pub fn row(&self) -> Row {
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
            values.push((length >= 0).then(|| value.to_vec()));
            rest = after;
        }
        assert_eq!(usize::from(u16::from_be_bytes([self.body[0], self.body[1]])), values.len(), "{self:?}");
        values
    }

    pub fn sqlstate(&self) -> String {
        self.field(b'C').unwrap_or_default()
    }
}

pub struct Wire {
    stream: TcpStream,
    /// Every byte received so far.
    pub received: Vec<u8>,
    /// Process id and secret, as a cancel request carries them; they come with the login.
    pub key: Vec<u8>,
}

impl Wire {
    pub fn connect(port: u16) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        Wire { stream, received: Vec::new(), key: Vec::new() }
    }

    /// Connects and logs in with a password in clear. `Err` is the server's refusal.
    pub fn login(port: u16, user: &str, database: &str, password: &[u8]) -> Result<Wire, Message> {
        let mut wire = Wire::connect(port);
        wire.startup(&[("user", user), ("database", database)]);
        let asked = wire.expect();
        if asked.kind == b'E' {
            return Err(asked);
        }
        assert_eq!(
            (asked.kind, &asked.body[..]),
            (b'R', &[0, 0, 0, 3][..]),
            "the gateway asks for a password in clear"
        );
        wire.send(b'p', &[password, b"\0"].concat());
        loop {
            let message = wire.expect();
            match message.kind {
                b'E' => return Err(message),
                b'Z' => return Ok(wire),
                _ => {}
            }
        }
    }

    /// From here on the kernel keeps no more than a few kilobytes that were not read.
    pub fn reads_little(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, 4096).expect("a socket takes a size");
    }

    pub fn startup(&mut self, parameters: &[(&str, &str)]) {
        let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).expect("a startup message is short");
        self.raw(&[&length.to_be_bytes()[..], &body].concat());
    }

    /// Sends one message; the length is written for you.
    pub fn send(&mut self, kind: u8, body: &[u8]) {
        self.raw(&frame(kind, body));
    }

    /// Sends a simple Query.
    pub fn query(&mut self, text: &str) {
        self.send(b'Q', &[text.as_bytes(), b"\0"].concat());
    }

    /// Sends these very bytes. A server that has hung up is noticed by the next read.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next message, or `None` when the server has closed the connection.
    pub fn next(&mut self) -> Option<Message> {
        let head = self.take(5)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let body = self.take(length - 4)?;
        if head[0] == b'K' {
            self.key.clone_from(&body);
        }
        Some(Message { kind: head[0], body })
    }

    /// The next message; the server must not hang up.
    pub fn expect(&mut self) -> Message {
        self.next().expect("the server answers instead of hanging up")
    }

    /// All messages up to and with ReadyForQuery.
    pub fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.expect());
            if messages.last().is_some_and(|message| message.kind == b'Z') {
                return messages;
            }
        }
    }

    /// The rows up to ReadyForQuery; `None` is NULL. An error panics.
    #[track_caller]
    pub fn rows(&mut self) -> Vec<Row> {
        let messages = self.until_ready();
        assert!(messages.iter().all(|message| message.kind != b'E'), "{messages:?}");
        messages.iter().filter(|message| message.kind == b'D').map(Message::row).collect()
    }

    /// Parse, Bind and Execute of the unnamed statement and Sync. `describe`: Describe of `S` or `P` where a client puts it.
    pub fn extended(&mut self, text: &str, describe: Option<u8>, binary: bool) {
        self.send(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
        if describe == Some(b'S') {
            self.send(b'D', b"S\0");
        }
        self.send(b'B', &[b"\0\0\0\0\0\0\0\x01\0", &[u8::from(binary)][..]].concat());
        if describe == Some(b'P') {
            self.send(b'D', b"P\0");
        }
        self.send(b'E', b"\0\0\0\0\0");
        self.send(b'S', b"");
    }

    /// True if the server ends the connection in an orderly way (end of file) with no further byte.
    pub fn is_closed_clean(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }

    /// True if the server has ended the connection in any way, after whatever it still had to say.
    pub fn is_ended(&mut self) -> bool {
        let _ = self.stream.shutdown(Shutdown::Write);
        match self.stream.read_to_end(&mut self.received) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock && error.kind() != ErrorKind::TimedOut,
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => {
                self.received.extend(&bytes);
                Some(bytes)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {} s", PATIENCE.as_secs())
            }
            Err(_) => None,
        }
    }
}

/// One message of the client as bytes.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message fits its length");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// Sends a cancel request and waits until the other side has closed, without a word.
pub fn cancel(port: u16, key: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    let length = (8 + key.len()) as u32;
    let _ = stream.write_all(&[&length.to_be_bytes()[..], &CANCEL_REQUEST.to_be_bytes(), key].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "a cancel request is answered with {answer:?}");
}
