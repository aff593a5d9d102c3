//! What a seed draws: who comes, what they do, and what goes wrong.

use dataplane::io::sim::{Random, Weather};

use super::script::Taste;

/// The recorder is dead, or its disk is stuck while it still beats.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub from_ns: u64,
    pub to_ns: u64,
    pub beats: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub clients: usize,
    pub taste: Taste,
    pub weather: Weather,
    pub outage: Option<Outage>,
    /// Clients that leave without a word, upstreams that lie, and clients with a wrong token, per mille.
    pub leavers: usize,
    pub lies: usize,
    pub strangers: usize,
    /// The first addresses of the upstream at which no session can be had.
    pub dead_addresses: usize,
    pub arrival_spread_ns: usize,
}

impl Scenario {
    pub fn draw(random: &mut Random) -> Self {
        let mut one_of = |choices: &[usize]| choices[random.below(choices.len())];
        let weather = Weather {
            late: one_of(&[0, 0, 300, 800]),
            lingering: one_of(&[0, 1]) == 1,
            chunk_bytes_max: one_of(&[0, 0, 1, 7, 600, 20_000]),
            stall: one_of(&[0, 0, 0, 20]),
            reset: one_of(&[0, 0, 0, 0, 3]),
            cut: one_of(&[0, 0, 0, 0, 3]),
            mute: one_of(&[0, 0, 0, 0, 0, 3]),
            refuse: one_of(&[0, 0, 0, 0, 200]),
        };
        let taste = Taste { long: one_of(&[0, 0, 0, 1]) == 1, large: one_of(&[0, 0, 1]) == 1 };
        // Long outages are surely longer than the sessions' patience, short ones surely shorter.
        let outage_ms = one_of(&[0, 0, 0, 0, 1_500, 3_000, 12_000]) as u64;
        let from_ns = one_of(&[0, 1, 3, 10, 40]) as u64 * 1_000_000;
        let beats = one_of(&[0, 1]) == 1;
        let outage = (outage_ms > 0).then_some(Outage { from_ns, to_ns: from_ns + outage_ms * 1_000_000, beats });
        Self {
            clients: one_of(&[1, 2, 3, 4, 6]),
            taste,
            weather,
            outage,
            leavers: one_of(&[0, 0, 300]),
            lies: one_of(&[0, 0, 0, 500]),
            strangers: one_of(&[0, 0, 100]),
            dead_addresses: one_of(&[0, 0, 1, 2]),
            arrival_spread_ns: one_of(&[1, 1_000_000, 20_000_000]),
        }
    }
}
