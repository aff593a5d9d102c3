//! Addresses that have not answered in time: for a while others are tried before them, so that not every login waits for them.

use super::Now;
use crate::address::Address;
use crate::control::route::Way;

const REST_NS: u64 = 10_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Resting(Vec<(Address, u64)>);

impl Resting {
    pub fn add(&mut self, address: Address, now: Now) {
        self.0.retain(|(known, until_ns)| *known != address && now.monotonic_ns < *until_ns);
        self.0.push((address, now.monotonic_ns + REST_NS));
    }

    /// Numbers of the ways, from 0, in the order in which they are to be tried.
    pub fn order(&self, ways: &[Way], now: Now) -> Vec<u16> {
        let rests = |way: &Way| self.0.iter().any(|(known, until)| *known == way.address && now.monotonic_ns < *until);
        let mut order: Vec<u16> = (0..ways.len() as u16).collect();
        // The sort keeps the order of those that are alike.
        order.sort_by_key(|at| rests(&ways[usize::from(*at)]));
        order
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn an_address_that_was_late_is_tried_last_for_ten_seconds() {
        let address = |n: u8| Address::from(SocketAddr::from(([192, 0, 2, n], 5432)));
        let ways: Vec<Way> = (0..4).map(|n| Way { host: "h".into(), address: address(n), tls: None }).collect();
        let at = |seconds: u64| Now { unix_ns: 0, monotonic_ns: seconds * 1_000_000_000 };
        let mut resting = Resting::default();
        assert_eq!(resting.order(&ways, at(1)), [0, 1, 2, 3]);
        resting.add(address(0), at(1));
        resting.add(address(2), at(6));
        assert_eq!(resting.order(&ways, at(7)), [1, 3, 0, 2]);
        assert_eq!(resting.order(&ways, at(11)), [0, 1, 3, 2]);
        resting.add(address(2), at(12));
        assert_eq!(resting.0.len(), 1, "what has rested is forgotten");
        assert_eq!(resting.order(&ways, at(22)), [0, 1, 2, 3]);
    }
}
