use super::*;
use crate::io::sim::Random;

const PRIMARY: Server = Server::Says(false, false);
const READ_ONLY: Server = Server::Says(false, true);
const STANDBY: Server = Server::Says(true, true);
/// A standby whose default is off still takes no writes.
const STANDBY_2: Server = Server::Says(true, false);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    /// in_hot_standby, default_transaction_read_only
    Says(bool, bool),
    Mute,
    Down(Miss),
}

impl Server {
    fn traits(self) -> Traits {
        match self {
            Self::Says(standby, read_only) => {
                Traits { in_hot_standby: Some(standby), default_transaction_read_only: Some(read_only) }
            }
            _ => Traits::default(),
        }
    }
}

/// The address that is taken, and in which order addresses are tried.
fn walk(target: Target, servers: &[Server]) -> (Option<usize>, Vec<usize>) {
    let mut attempts = Attempts::new(target, (0..servers.len() as u16).collect());
    let mut tried = Vec::new();
    let mut next = attempts.current();
    while let Some(at) = next.map(usize::from) {
        tried.push(at);
        let verdict = match servers[at] {
            Server::Down(miss) => Err(miss),
            server => attempts.judge(server.traits()),
        };
        match verdict {
            Ok(()) => return (Some(at), tried),
            Err(miss) => next = attempts.missed(miss),
        }
    }
    assert_eq!(attempts.found().len(), servers.len(), "each address is told once");
    (None, tried)
}

#[test]
fn each_kind_of_server_is_taken_as_libpq_takes_it() {
    use Target::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
    for (target, server, taken) in [
        (Any, PRIMARY, true),
        (Any, STANDBY, true),
        (Any, Server::Mute, true),
        (ReadWrite, PRIMARY, true),
        (ReadWrite, READ_ONLY, false),
        (ReadWrite, STANDBY, false),
        (ReadWrite, STANDBY_2, false),
        (ReadWrite, Server::Mute, false),
        (ReadOnly, PRIMARY, false),
        (ReadOnly, READ_ONLY, true),
        (ReadOnly, STANDBY, true),
        (ReadOnly, STANDBY_2, true),
        (ReadOnly, Server::Mute, false),
        (Primary, PRIMARY, true),
        (Primary, READ_ONLY, true),
        (Primary, STANDBY, false),
        (Primary, Server::Mute, false),
        (Standby, PRIMARY, false),
        (Standby, READ_ONLY, false),
        (Standby, STANDBY, true),
        (Standby, Server::Mute, false),
        (PreferStandby, STANDBY, true),
        (PreferStandby, PRIMARY, true),
        (PreferStandby, Server::Mute, true),
    ] {
        assert_eq!(walk(target, &[server]).0.is_some(), taken, "{target:?} and {server:?}");
    }
}

#[test]
fn addresses_are_tried_in_order_until_one_will_do() {
    let down = Server::Down(Miss::Refused);
    let late = Server::Down(Miss::Late);
    for (target, servers, taken, tried) in [
        (Target::Any, vec![down, late, STANDBY, PRIMARY], Some(2), vec![0, 1, 2]),
        (Target::ReadWrite, vec![STANDBY, down, PRIMARY], Some(2), vec![0, 1, 2]),
        (Target::ReadWrite, vec![STANDBY, down], None, vec![0, 1]),
        (Target::PreferStandby, vec![PRIMARY, STANDBY], Some(1), vec![0, 1]),
        (Target::PreferStandby, vec![down, PRIMARY, late, READ_ONLY], Some(1), vec![0, 1, 2, 3, 1]),
        (Target::PreferStandby, vec![down, late], None, vec![0, 1]),
        (Target::Any, vec![], None, vec![]),
    ] {
        assert_eq!(walk(target, &servers), (taken, tried), "{target:?} in {servers:?}");
    }
}

#[test]
fn a_server_that_fails_in_the_second_round_is_left_for_the_next() {
    let mut attempts = Attempts::new(Target::PreferStandby, vec![0, 1]);
    assert_eq!(attempts.missed(Miss::Primary), Some(1));
    assert_eq!(attempts.missed(Miss::Primary), Some(0), "none is a standby: once more from the first");
    assert_eq!(attempts.missed(Miss::Refused), Some(1));
    assert_eq!(attempts.missed(Miss::Late), None);
    assert_eq!(attempts.found(), [(0, Miss::Refused), (1, Miss::Late)]);
}

/// Held against the rule written the other way round: the first address in order that will do, else for `prefer-standby` the
/// first that is up.
#[test]
fn the_first_that_will_do_is_taken_whatever_the_others_are() {
    let kinds =
        [PRIMARY, READ_ONLY, STANDBY, STANDBY_2, Server::Mute, Server::Down(Miss::Late), Server::Down(Miss::Closed)];
    let targets =
        [Target::Any, Target::ReadWrite, Target::ReadOnly, Target::Primary, Target::Standby, Target::PreferStandby];
    let mut random = Random::new(1);
    for round in 0..20_000 {
        let servers: Vec<Server> = (0..random.below(6)).map(|_| kinds[random.below(kinds.len())]).collect();
        let target = targets[round % targets.len()];
        let is_up = |server: &Server| !matches!(server, Server::Down(_));
        let first = servers.iter().position(|s| is_up(s) && target.judge(s.traits()).is_ok());
        let any = || servers.iter().position(is_up).filter(|_| target == Target::PreferStandby);
        let (taken, tried) = walk(target, &servers);
        assert_eq!(taken, first.or_else(any), "{target:?} in {servers:?}");
        let downs = servers.iter().enumerate().filter(|(_, s)| !is_up(s));
        for (at, _) in downs {
            assert!(tried.iter().filter(|t| **t == at).count() <= 1, "{servers:?}: {at} was tried twice: {tried:?}");
        }
    }
}

#[test]
fn the_report_counts_addresses_and_names_the_kind_that_is_wanted() {
    let report = |target, misses: &[Miss]| {
        let mut attempts = Attempts::new(target, (0..misses.len() as u16).collect());
        misses.iter().for_each(|miss| _ = attempts.missed(*miss));
        attempts.report()
    };
    assert_eq!(
        report(Target::Any, &[]),
        "the upstream has no address: its name cannot be resolved; try again or ask the operator"
    );
    assert_eq!(
        report(Target::Any, &[Miss::Refused]),
        "the upstream refused the connection; try again or ask the operator"
    );
    assert_eq!(
        report(Target::ReadWrite, &[Miss::Late, Miss::Standby]),
        "the upstream cannot be reached: address 1 did not answer within connect_timeout_s, address 2 is a hot standby; \
         the resource has target_session_attrs = \"read-write\"; try again or ask the operator"
    );
}

#[test]
fn another_order_changes_who_comes_first_and_not_what_an_address_is_called() {
    let mut attempts = Attempts::new(Target::Any, vec![2, 0, 1]);
    assert_eq!(attempts.current(), Some(2));
    assert_eq!(attempts.missed(Miss::Refused), Some(0));
    assert_eq!(attempts.missed(Miss::Closed), Some(1));
    assert_eq!(attempts.missed(Miss::Late), None);
    assert_eq!(attempts.found(), [(2, Miss::Refused), (0, Miss::Closed), (1, Miss::Late)]);
    assert!(attempts.report().contains("address 3 refused the connection, address 1 closed"), "{}", attempts.report());
}
