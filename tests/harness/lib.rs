//! Real servers, the real binary and real clients for the tests of `e2e/`: a test file starts one PostgreSQL and one
//! gateway, runs its cases against them one after the other, and stops both.

#[path = "../../dataplane/src/demo/authority.rs"]
pub mod authority;
#[path = "../../dataplane/src/demo/gateway.rs"]
pub mod gateway;
#[path = "../../dataplane/src/demo/issuer.rs"]
pub mod issuer;
#[path = "../../dataplane/src/demo/policy.rs"]
pub mod policy;
#[path = "../../dataplane/src/demo/server.rs"]
pub mod server;
#[path = "../../dataplane/src/demo/shop.rs"]
pub mod shop;

pub mod arena;
pub mod process;
pub mod provider;
pub mod suite;
pub mod wire;
pub mod world;
