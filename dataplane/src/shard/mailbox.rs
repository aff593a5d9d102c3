//! What other threads tell a shard: a channel, and a bell that ends its wait.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::accept::Door;
use crate::address::Origin;
use crate::config::Limits;
use crate::control::Control;
use crate::control::analyser::Decided;
use crate::control::route::Endpoint;
use crate::protocol::postgres::handshake::CancelRequest;
use crate::session::Request;
use crate::session::cancel::Grant;

pub enum Mail {
    /// A long text has been judged.
    Decided(Decided),
    /// A client of another shard wants one of ours to be cancelled.
    Cancel(Box<Ask>),
    /// What came of asking another shard.
    MayCancel {
        session: u64,
        index: u32,
        leave: Option<Leave>,
    },
    /// An issuer's keys have been fetched: who waited for them asks to be let in once more.
    Admit {
        session: u64,
        index: u32,
        request: Box<Request>,
    },
    /// Another configuration is in force.
    Reload(Box<Reload>),
    /// A catalogue has changed: views are to be made anew.
    Catalogue,
    /// This resource's upstream has no room, or cannot be reached: what is kept there is closed.
    MakeRoom(Arc<str>),
    Stop,
}

/// What a shard takes from a changed configuration.
#[derive(Clone)]
pub struct Reload {
    pub control: Arc<Control>,
    pub limits: Limits,
    /// By listener.
    pub doors: Vec<Door>,
}

/// A cancel request on its way to the shard that it names, and where the answer goes.
pub struct Ask {
    pub request: CancelRequest,
    pub peer: Origin,
    pub shard: u8,
    pub session: u64,
    pub index: u32,
}

/// The answer: what the session needs to cancel, and where its upstream is.
pub struct Leave {
    pub grant: Grant,
    pub endpoint: Arc<Endpoint>,
}

/// The shard's end. A copy takes over the letters when a shard has to be started again, and what was read before still holds.
#[derive(Clone)]
pub struct Mailbox {
    receiver: Receiver<Mail>,
    postbox: Postbox,
    standing: Arc<Mutex<Standing>>,
}

/// Letters that hold for every shard that has this mailbox, also for one that is started after they were read.
#[derive(Clone, Default)]
pub struct Standing {
    /// The configuration in force, if it is not that of the process's start.
    pub reload: Option<Reload>,
    pub stops: bool,
}

/// The others' end.
#[derive(Clone)]
pub struct Postbox {
    sender: Sender<Mail>,
    bell: Arc<OwnedFd>,
}

/// Makes a mailbox. The last part is the bell's other end, for the driver to listen to.
///
/// # Errors
/// When no event descriptor can be made.
pub fn mailbox() -> std::io::Result<(Mailbox, Postbox, OwnedFd)> {
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let heard = bell.try_clone()?;
    let (sender, receiver) = unbounded();
    let postbox = Postbox { sender, bell: Arc::new(bell) };
    Ok((Mailbox { receiver, postbox: postbox.clone(), standing: Arc::default() }, postbox, heard))
}

impl Mailbox {
    pub fn next(&mut self) -> Option<Mail> {
        let mail = self.receiver.try_recv().ok()?;
        match &mail {
            Mail::Reload(reload) => self.stand().reload = Some(Reload::clone(reload)),
            Mail::Stop => self.stand().stops = true,
            _ => {}
        }
        Some(mail)
    }

    /// What was read before and holds for a shard that starts now.
    pub fn standing(&self) -> Standing {
        self.stand().clone()
    }

    fn stand(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way to write to oneself, to be handed to others.
    pub fn postbox(&self) -> &Postbox {
        &self.postbox
    }
}

impl Postbox {
    pub fn send(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() {
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}
