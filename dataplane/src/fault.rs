//! Why a session ends, and on whose account. `Copy`: the hot path makes no text.

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Upstream,
    /// Ourselves: a limit of ours, our recorder, our shutting down.
    Wireward,
}

/// Why a session ends. Each has one text for people ([`Fault::text`]) and one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The peer closed the connection, or it was reset.
    Gone(Side),
    /// Bytes that are not the protocol, or a message that has no place here.
    Protocol(Side, &'static str),
    /// A named limit was passed.
    Limit(&'static str),
    /// The token or the names in the startup message do not let the client in.
    NotAdmitted(&'static str),
    /// The client asked where tokens come from, and was told: it comes again with one.
    NoToken,
    /// The upstream cannot be reached or refuses us.
    Unreachable(&'static str),
    /// The evidence cannot be recorded.
    NotRecorded,
    /// The login took longer than `login_timeout`.
    LoginTimeout,
    /// The client stands above `max_client_conn`.
    TooManyClients,
    /// The client's subject has as many sessions as `sessions_per_subject_max`.
    TooManyOfSubject,
    ShuttingDown,
    /// The session has outlived its token.
    TokenExpired,
    /// A changed policy or configuration does not let the session in any more.
    NoLongerAdmitted,
}

impl Fault {
    pub fn side(self) -> Side {
        match self {
            Self::Gone(side) | Self::Protocol(side, _) => side,
            Self::NotAdmitted(_) | Self::NoToken | Self::LoginTimeout | Self::TokenExpired => Side::Client,
            Self::Unreachable(_) => Side::Upstream,
            Self::Limit(_)
            | Self::NotRecorded
            | Self::TooManyClients
            | Self::TooManyOfSubject
            | Self::ShuttingDown
            | Self::NoLongerAdmitted => Side::Wireward,
        }
    }

    /// The SQLSTATE that a PostgreSQL client is told.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::Gone(_) => "08006",
            Self::Protocol(..) => "08P01",
            Self::Limit(_) => "54000",
            Self::NotAdmitted(_) | Self::NoToken | Self::TokenExpired => "28000",
            Self::Unreachable(_) => "08001",
            Self::NotRecorded | Self::ShuttingDown | Self::NoLongerAdmitted => "57P01",
            Self::LoginTimeout => "57014",
            Self::TooManyClients | Self::TooManyOfSubject => "53300",
        }
    }

    /// What is wrong, in the user's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Gone(Side::Client) => "the client closed the connection",
            Self::Gone(_) => "the upstream closed the connection",
            Self::Protocol(_, text) | Self::Limit(text) | Self::NotAdmitted(text) | Self::Unreachable(text) => text,
            Self::NoToken => "no token was given; get one from the issuer that was named, and connect again with it",
            Self::NotRecorded => "the session cannot be recorded, so it ends; ask the operator about the recorder",
            Self::LoginTimeout => "the login was not finished within login_timeout",
            Self::TooManyClients => {
                "sorry, too many clients already; the gateway serves limits.max_client_conn at once"
            }
            Self::TooManyOfSubject => {
                "too many sessions of this identity already; end one that is idle, or ask the operator to raise \
                 limits.sessions_per_subject_max"
            }
            Self::TokenExpired => "the token has expired; connect again with a fresh one",
            Self::ShuttingDown => "the gateway is shutting down",
            Self::NoLongerAdmitted => "the policy has changed: no role of the session may reach this database any more",
        }
    }
}
