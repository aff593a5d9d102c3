//! PostgreSQL's wire protocol, version 3.
//!
//! Reading order: [`wire`] (bytes), [`framer`] (where a message ends), [`dissector`] (what a session's messages mean;
//! [`request`] towards the upstream, [`response`] towards the client), [`responder`] (what we say ourselves),
//! [`handshake`] (the first messages, on both sides).

pub mod dissector;
pub mod framer;
pub mod handshake;
mod request;
pub mod responder;

mod response;
mod scram;
pub mod wire;
