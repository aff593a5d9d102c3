//! What the driver knows of a connection: where its socket is, and what the kernel has of it.

use std::os::fd::OwnedFd;

use super::op::Op;

/// Where a connection's socket is.
pub(super) enum Socket {
    Closed,
    /// A descriptor of the process.
    Own(OwnedFd),
    /// In the ring's table, at the connection's number.
    Direct,
}

pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) in_flight: u8,
    pub(super) connecting: bool,
    pub(super) closing: bool,
    /// The receive in flight: of which kind it is.
    pub(super) receiving: Option<Op>,
    /// Of the receive in flight, if its slot is of the kernel's choice.
    pub(super) receive_bytes_max: u32,
    pub(super) sending: Sending,
    /// The kernel tells of the send in flight only if it was short or has failed.
    pub(super) is_prompt: bool,
    /// Bytes given to sends since something was last received here.
    pub(super) unanswered_bytes: u32,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, connecting: bool) -> Self {
        Self {
            socket: Socket::Own(socket),
            in_flight: 0,
            connecting,
            closing: false,
            receiving: None,
            receive_bytes_max: 0,
            sending: Sending::Nothing,
            is_prompt: false,
            unanswered_bytes: 0,
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        !matches!(self.sending, Sending::Nothing)
    }
}

/// What the send in flight was given.
pub(super) enum Sending {
    Nothing,
    /// A range of a slot.
    Slot(*const u8, u32),
    /// These bytes, from there on.
    Heap(Vec<u8>, u32),
}

impl Sending {
    pub(super) fn range(&self) -> (*const u8, u32) {
        match self {
            Self::Nothing => (std::ptr::null(), 0),
            Self::Slot(address, bytes) => (*address, *bytes),
            Self::Heap(held, from) => (held[*from as usize..].as_ptr(), held.len() as u32 - from),
        }
    }
}
