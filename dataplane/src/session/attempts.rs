//! Which address of an upstream is tried next, and whether the server found there will do. Pure: no socket, no clock.
//!
//! The rules are libpq's (<https://www.postgresql.org/docs/18/libpq-connect.html>, `target_session_attrs`): addresses in
//! order; one that cannot be reached, does not answer in time, is starting up, or is not of the wanted kind is followed by the
//! next; one that refuses the login ends it. Two things are stricter or quicker: a server that does not say what kind it is
//! will do for `any` alone, and the second round of `prefer-standby` leaves out addresses that the first could not use at all.

use serde::Deserialize;

/// Of which kind the server must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }

    /// Whether a server will do that has said this in its login (PostgreSQL 14 and newer say both).
    ///
    /// # Errors
    /// Why not.
    pub fn judge(self, traits: Traits) -> Result<(), Miss> {
        let (Some(is_standby), Some(is_read_only)) = (traits.in_hot_standby, traits.default_transaction_read_only)
        else {
            return if self == Self::Any { Ok(()) } else { Err(Miss::DoesNotSay) };
        };
        match self {
            Self::ReadWrite | Self::Primary if is_standby => Err(Miss::Standby),
            Self::ReadWrite if is_read_only => Err(Miss::ReadOnly),
            Self::ReadOnly if !is_standby && !is_read_only => Err(Miss::ReadWrite),
            Self::Standby | Self::PreferStandby if !is_standby => Err(Miss::Primary),
            _ => Ok(()),
        }
    }
}

/// What a server reports of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    pub in_hot_standby: Option<bool>,
    pub default_transaction_read_only: Option<bool>,
}

impl Traits {
    /// Takes a ParameterStatus of the login.
    pub fn note(&mut self, name: &[u8], value: &[u8]) {
        let is = || match value {
            b"on" => Some(true),
            b"off" => Some(false),
            _ => None,
        };
        match name {
            b"in_hot_standby" => self.in_hot_standby = is(),
            b"default_transaction_read_only" => self.default_transaction_read_only = is(),
            _ => {}
        }
    }
}

/// Why an address was left for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No address is known: the name has not been resolved.
    Unresolved,
    Refused,
    Unreachable,
    Late,
    Closed,
    NoTls,
    TlsFailed,
    StartingUp,
    Standby,
    Primary,
    ReadOnly,
    ReadWrite,
    DoesNotSay,
}

impl Miss {
    /// Completes a sentence that begins with the address.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unresolved => "has no address: its name cannot be resolved",
            Self::Refused => "refused the connection",
            Self::Unreachable => "cannot be reached",
            Self::Late => "did not answer within connect_timeout_s",
            Self::Closed => "closed the connection during the login",
            Self::NoTls => "does not offer TLS, and the resource asks for it",
            Self::TlsFailed => "made no TLS connection that can be trusted",
            Self::StartingUp => "is starting up or shutting down",
            Self::Standby => "is a hot standby",
            Self::Primary => "is a primary",
            Self::ReadOnly => "is read-only by default",
            Self::ReadWrite => "is not read-only",
            Self::DoesNotSay => "does not say whether it is a standby",
        }
    }

    /// The server is well, but not of the wanted kind.
    fn is_of_kind(self) -> bool {
        matches!(self, Self::Standby | Self::Primary | Self::ReadOnly | Self::ReadWrite | Self::DoesNotSay)
    }
}

/// One login's way through the addresses.
#[derive(Debug)]
pub struct Attempts {
    target: Target,
    /// Numbers of the addresses, from 0, in the order in which they are tried.
    order: Vec<u16>,
    /// Place in that order.
    at: usize,
    /// What was found, by place.
    found: Vec<Miss>,
    /// `prefer-standby` has found none, and now takes any.
    takes_any: bool,
}

impl Attempts {
    /// `order`: numbers of the addresses, from 0, as they shall be tried.
    pub fn new(target: Target, order: Vec<u16>) -> Self {
        Self { target, order, at: 0, found: Vec::new(), takes_any: false }
    }

    /// The address that is being tried; `None` when none is left.
    pub fn current(&self) -> Option<u16> {
        self.order.get(self.at).copied()
    }

    /// # Errors
    /// The server at the current address will not do.
    pub fn judge(&self, traits: Traits) -> Result<(), Miss> {
        match self.takes_any {
            true => Ok(()),
            false => self.target.judge(traits),
        }
    }

    /// The current address will not do. Gives the next.
    pub fn missed(&mut self, miss: Miss) -> Option<u16> {
        self.at += 1;
        if self.takes_any {
            // What failed just now is no longer of a wrong kind only.
            if let Some(found) = self.found.get_mut(self.at - 1) {
                *found = miss;
            }
        } else {
            self.found.push(miss);
            if self.current().is_none() && self.target == Target::PreferStandby {
                (self.takes_any, self.at) = (true, 0);
            }
        }
        while self.takes_any && self.found.get(self.at).is_some_and(|miss| !miss.is_of_kind()) {
            self.at += 1;
        }
        self.current()
    }

    /// Whether another may be tried after the current one.
    pub fn has_next(&self) -> bool {
        self.at + 1 < self.order.len() || self.target == Target::PreferStandby && !self.takes_any
    }

    /// Every address with why it was left.
    pub fn found(&self) -> Vec<(u16, Miss)> {
        self.order.iter().copied().zip(self.found.iter().copied()).collect()
    }

    /// What the client is told: addresses are counted, not named, for they are the operator's.
    pub fn report(&self) -> String {
        const HELP: &str = "try again or ask the operator";
        let wants = match self.found.iter().any(|miss| miss.is_of_kind()) {
            true => format!("; the resource has target_session_attrs = \"{}\"", self.target.name()),
            false => String::new(),
        };
        match *self.found() {
            [] => format!("the upstream {}; {HELP}", Miss::Unresolved.text()),
            [(_, miss)] => format!("the upstream {}{wants}; {HELP}", miss.text()),
            ref several => {
                let each: Vec<String> =
                    several.iter().map(|(n, miss)| format!("address {} {}", n + 1, miss.text())).collect();
                format!("the upstream cannot be reached: {}{wants}; {HELP}", each.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
