//! PostgreSQL's wire protocol, version 3.
//!
//! Reading order: [`wire`] (bytes), [`framer`] (where a message ends), [`dissector`] (what a session's messages mean;
//! [`request`] towards the upstream, with [`function_call`], [`names`] and [`running`]; [`response`] towards the client), [`responder`] (what we say
//! ourselves), [`handshake`] (the first messages, on both sides), [`oauth`] (the token by SASL instead of as a password),
//! [`reset`] (an upstream connection is made ready for another session), [`redact`] (what is recorded of a password).

pub mod dissector;
pub mod framer;
mod function_call;
pub mod handshake;
pub mod names;
pub mod oauth;
pub mod redact;
mod request;
pub mod reset;
pub mod responder;
mod response;
mod running;
mod scram;
pub mod wire;
