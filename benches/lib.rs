//! Inputs that several benches share: messages of PostgreSQL, and the policy of the peer comparison.
//! Source: <https://www.postgresql.org/docs/18/protocol-message-formats.html>.

use policy_compiler::artifact::Policy;
use policy_compiler::build;
use policy_compiler::policy::Source;

/// One message: its tag, its length, its body.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 4;
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

pub fn data_row(values: &[&str]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    frame(b'D', &body)
}

/// What pgbench's select-only sends for one transaction with `-M prepared`.
pub fn pgbench_request(account: u64) -> Vec<u8> {
    let account = account.to_string();
    let mut bind = b"\0P_0\0\0\0\0\x01".to_vec();
    bind.extend((account.len() as u32).to_be_bytes());
    bind.extend(account.as_bytes());
    bind.extend([0, 0]);
    [frame(b'B', &bind), frame(b'D', b"P\0"), frame(b'E', &[0; 5]), frame(b'S', b"")].concat()
}

/// A line of a table of customers: number, name, street, and what detectors look for if `personal`.
pub fn customer(n: u64, personal: bool) -> [String; 4] {
    let contact = match personal {
        true => format!("ada{n}@example.com, +4420794{:05}", n % 100_000),
        false => "calls back in the afternoon".to_owned(),
    };
    [n.to_string(), format!("Ada Byron the {n}th"), format!("{} Dorset Street, second floor", n % 300 + 1), contact]
}

/// The policy that `run.py` compares peers with: a judged role, a column mask, all detectors.
pub fn policy() -> Policy {
    let source = Source { name: "bench.toml".to_owned(), text: include_str!("peers/policy/bench.toml").to_owned() };
    let bundle = build::compile(&[source]).expect("the policy is right");
    Policy::from_bytes(bundle).expect("the bundle is right")
}
