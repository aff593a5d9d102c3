//! What a completion is of: the operation's kind, and whose it is.

use io_uring::cqueue;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Op {
    Accept,
    Connect,
    Receive,
    ReceiveInto,
    Send,
    Bell,
    Alarm,
    Cancel,
}

const OPS: [Op; 8] = [Op::Accept, Op::Connect, Op::Receive, Op::ReceiveInto, Op::Send, Op::Bell, Op::Alarm, Op::Cancel];

pub(super) fn user_data(op: Op, index: u32) -> u64 {
    (op as u64) << 32 | u64::from(index)
}

/// The two parts of [`user_data`].
pub(super) fn of(completion: &cqueue::Entry) -> (Op, u32) {
    (OPS[(completion.user_data() >> 32) as usize], completion.user_data() as u32)
}
