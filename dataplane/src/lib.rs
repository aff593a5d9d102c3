//! Wireward's dataplane: the enforcement point in the data path.
//!
//! The life of a query, one file each: a connection is accepted (`shard/accept.rs`), its events are fed to its session
//! (`shard/drive.rs`), the startup message is read (`session/greet.rs`), the token is checked (`session/admit.rs`), the
//! upstream is dialed (`session/dial.rs`). From then on `datapath/relay.rs` moves bytes: a frame is judged
//! (`protocol/postgres/request.rs`), recorded (`datapath/tap.rs`), cleared and sent (`shard/drive.rs`); its answer is matched
//! and masked (`protocol/postgres/response.rs`, `datapath/mask.rs`), recorded, cleared and sent.
//!
//! Sessions and protocols never see a socket, a clock or a thread: they are state machines that the shard drives, over
//! io_uring, over epoll or over the seeded simulator.

pub mod address;
pub mod buffer;
pub mod config;
pub mod control;
pub mod datapath;
pub mod fault;
pub mod io;
pub mod log;
pub mod protocol;
pub mod session;
pub mod shard;
