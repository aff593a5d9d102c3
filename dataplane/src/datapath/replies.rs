//! What is owed to whom: one entry for each frame sent upstream that will be answered.
//!
//! Every answer is matched against the front entry; an answer that nobody asked for ends the session (threats DS-04).

use std::collections::VecDeque;
use std::rc::Rc;

use super::mask::MaskView;
use super::verdict::Plan;
use crate::protocol::postgres::names::NameUse;

/// Entries that a session may owe before its requests wait. 48 bytes each.
pub const OWED_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Query,
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    FunctionCall,
    CloseStatement,
    ClosePortal,
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Client,
    /// We asked; the client must not see the answer.
    Ours,
    /// We asked whether something still holds, and what is behind it counts on that: see `responder::guard`.
    Guard,
    /// Stands for a refused statement: the error it earns is replaced by the plan's refusal.
    Refused,
}

#[derive(Clone, Debug)]
pub struct Owed {
    pub ask: Ask,
    pub owner: Owner,
    pub plan: Option<Rc<Plan>>,
    /// What was hidden when it was asked: a policy that comes meanwhile counts from the next statement on.
    pub masks: Rc<MaskView>,
    /// The name that the answer will confirm or take away, or that stands for none; and when it was asked.
    pub name: NameUse,
    /// What runs is the text of the plan, and not the statement inside its PREPARE or DECLARE.
    pub is_text: bool,
    /// It may change what any name stands for.
    pub is_unknown: bool,
    /// The server forgets the unnamed statement when it comes to it, whatever comes of it: a Query, or a Parse of the unnamed.
    pub drops_unnamed: bool,
}

#[derive(Debug, Default)]
pub struct Replies(VecDeque<Owed>);

impl Replies {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Among the answers that are due is one that may ask for COPY data.
    pub fn may_open_copy(&self) -> bool {
        self.0.iter().any(|owed| matches!(owed.ask, Ask::Query | Ask::Execute))
    }

    pub fn is_full(&self) -> bool {
        self.0.len() >= OWED_MAX
    }

    pub fn owe(&mut self, owed: Owed) {
        self.0.push_back(owed);
    }

    pub fn front(&self) -> Option<&Owed> {
        self.0.front()
    }

    pub fn paid(&mut self) {
        self.0.pop_front();
    }

    /// After an error the server reads on to the next Sync and answers nothing before it. Yields what it passes over.
    pub fn skipped(&mut self) -> Option<Owed> {
        self.0.pop_front_if(|owed| owed.ask != Ask::Sync)
    }

    /// A server that has just asked for COPY data ignores the Syncs that the client had already sent.
    pub fn forget_syncs_behind_front(&mut self) {
        while self.0.get(1).is_some_and(|o| o.ask == Ask::Sync) {
            self.0.remove(1);
        }
    }

    pub fn has_behind_front(&self) -> bool {
        self.0.len() > 1
    }

    /// A burst's memory is not kept for an idle session.
    pub fn shrink(&mut self) {
        if self.0.is_empty() && self.0.capacity() > 64 {
            self.0.shrink_to(16);
        }
    }
}
