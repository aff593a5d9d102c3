//! The first messages, on both sides. The side towards the client and the side towards the upstream are two types, so the
//! token of one and the credential of the other cannot be mixed.
//! Source: <https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-START-UP>.

use policy_compiler::judge::refusal;
use postgres_protocol::authentication::md5_hash;

use super::responder::{Report, ready_for_query};
use super::scram::{Binding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, Scram};
use super::wire::{
    CANCEL_REQUEST, GSSENC_REQUEST, HEAD_BYTES, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST, backend, cstr_at, fields,
    frontend, message, put_cstr, u32_at, untagged,
};
use crate::config::ApplicationName;
use crate::control::credential::Secret;
use crate::fault::{Fault, Side};
use crate::session::attempts::Traits;
use crate::session::{Admission, Auth, CancelKey, Upstream};

/// The server's own limit for a startup message, bytes (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_BYTES_MAX: usize = 10_000;
/// The longest message that a login of an upstream may have, bytes.
pub const LOGIN_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// The longest list of parameters that an upstream may report in its login, bytes. PostgreSQL's has half a KiB.
const PARAMETERS_BYTES_MAX: usize = 64 * 1024;

/// ContentType handshake of a TLS record (RFC 8446, 5.1). A startup message's first byte is 0: it is never that long.
const TLS_HANDSHAKE: u8 = 22;

/// The client's first message.
pub enum Hello {
    /// SSLRequest.
    Tls,
    /// GSSENCRequest.
    Gss,
    /// The first byte of a TLS handshake, without a request before it (PostgreSQL 17's `sslnegotiation=direct`).
    DirectTls,
    Cancel(CancelRequest),
    Startup(Startup),
}

/// Somebody wants a running statement to be cancelled. The secret is the only authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    pub process_id: u32,
    pub secret: Vec<u8>,
}

impl CancelRequest {
    /// Whether it names `key`, as a client of either protocol version was given it. Takes the same time for every secret of
    /// one length.
    pub fn names(&self, key: &CancelKey) -> bool {
        let length = self.secret.len();
        let known = length == SECRET_BYTES_3_0 || length == key.secret.len();
        let differ = self.secret.iter().zip(&key.secret).fold(0, |differ, (a, b)| differ | (a ^ b));
        known && self.process_id == key.process_id && differ == 0
    }
}

/// Reads the first message, when it is whole; with its length in bytes.
///
/// # Errors
/// Not this protocol.
pub fn hello(window: &[u8]) -> Result<Option<(Hello, usize)>, Fault> {
    let broken = |why| Err(Fault::Protocol(Side::Client, why));
    if window.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Some((Hello::DirectTls, 0)));
    }
    let (Some(bytes), Some(code)) = (u32_at(window, 0), u32_at(window, 4)) else { return Ok(None) };
    let bytes = bytes as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&bytes) {
        return broken("the first message is not a PostgreSQL startup message");
    }
    if window.len() < bytes {
        return Ok(None);
    }
    let hello = match code {
        SSL_REQUEST if bytes == 8 => Hello::Tls,
        GSSENC_REQUEST if bytes == 8 => Hello::Gss,
        // One that is malformed names nobody, and like any other it is not answered.
        CANCEL_REQUEST => Hello::Cancel(CancelRequest {
            process_id: u32_at(window, 8).unwrap_or_default(),
            secret: window.get(12..bytes).unwrap_or_default().to_vec(),
        }),
        _ if code >> 16 == 3 => Hello::Startup(Startup::read(code, &window[8..bytes])?),
        _ => return broken("this protocol version is not supported: PostgreSQL clients from 7.4 speak version 3"),
    };
    Ok(Some((hello, bytes)))
}

/// Bytes of a cancel secret on protocol 3.0; on 3.2 we give 32.
const SECRET_BYTES_3_0: usize = 4;

/// What the client asks for in its startup message.
#[derive(Debug, Default)]
pub struct Startup {
    pub user: String,
    pub database: String,
    version: u32,
    /// How it wants to give its token, if it says so: for us, and never passed on.
    auth: Option<String>,
    /// The last `options`: the server takes no notice of others.
    options: Option<String>,
    /// What it sets, in the order of the server: first what stands in `options`, then the parameters. The last of a name counts.
    parameters: Vec<(String, String)>,
    /// It asks for a replication connection, with this.
    replication: Option<String>,
    /// `_pq_.` options, of which we know none.
    unknown_options: Vec<String>,
}

/// The startup option that chooses how the token is given.
const AUTH: &str = "wireward.auth";

impl Startup {
    fn read(version: u32, body: &[u8]) -> Result<Self, Fault> {
        const MALFORMED: Fault = Fault::Protocol(Side::Client, "the startup message is malformed");
        let mut startup = Self { version, ..Self::default() };
        let mut at = 0;
        loop {
            let (name, next) = cstr_at(body, at).ok_or(MALFORMED)?;
            if name.is_empty() {
                return if next == body.len() { startup.complete() } else { Err(MALFORMED) };
            }
            let (value, next) = cstr_at(body, next).ok_or(MALFORMED)?;
            at = next;
            let name = std::str::from_utf8(name).map_err(|_| MALFORMED)?;
            let value = std::str::from_utf8(value).map_err(|_| MALFORMED)?;
            startup.take(name, value)?;
        }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        const TWICE: Fault = Fault::Protocol(Side::Client, "the startup message names a parameter twice");
        let once = |field: &mut String| match field.is_empty() {
            true => Ok(field.push_str(value)),
            false => Err(TWICE),
        };
        match name {
            "user" => once(&mut self.user),
            "database" => once(&mut self.database),
            "options" => Ok(self.options = Some(value.to_owned())),
            "replication" => Ok(self.replication = Some(value.to_owned()).filter(|value| !is_off(value))),
            _ if name.starts_with("_pq_.") => Ok(self.unknown_options.push(name.to_owned())),
            _ => Ok(self.parameters.push((name.to_owned(), value.to_owned()))),
        }
    }

    /// How the client gives its token: as it wishes, else as the listener has it.
    pub fn auth(&self, listeners: Auth) -> Auth {
        self.auth.as_deref().and_then(Auth::named).unwrap_or(listeners)
    }

    fn complete(mut self) -> Result<Self, Fault> {
        if self.user.is_empty() {
            return Err(Fault::NotAdmitted("no user name was given in the startup message"));
        }
        if self.database.is_empty() {
            self.database.clone_from(&self.user);
        }
        let mut set = self.options.as_deref().map_or(Ok(Vec::new()), options)?;
        set.append(&mut self.parameters);
        let is_auth = |(name, _): &(String, String)| name.eq_ignore_ascii_case(AUTH);
        self.auth = set.iter().rfind(|set| is_auth(set)).map(|(_, value)| value.clone());
        set.retain(|set| !is_auth(set));
        self.parameters = set;
        Ok(self)
    }

    /// What counts of a name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rfind(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Says which version we speak, if the client asked for a newer one or for options that we do not know.
    pub fn negotiate(&self, out: &mut Vec<u8>) {
        if self.version <= PROTOCOL_3_2 && self.unknown_options.is_empty() {
            return;
        }
        message(out, backend::NEGOTIATE_PROTOCOL_VERSION, |out| {
            out.extend_from_slice(&self.spoken().to_be_bytes());
            out.extend_from_slice(&(self.unknown_options.len() as u32).to_be_bytes());
            self.unknown_options.iter().for_each(|option| put_cstr(out, option.as_bytes()));
        });
    }

    /// The version that we speak with this client: 3.0, or 3.2 if it asked for that or more.
    fn spoken(&self) -> u32 {
        if self.version >= PROTOCOL_3_2 { PROTOCOL_3_2 } else { PROTOCOL_3_0 }
    }

    /// Forgets parameters of these names, in whatever case, also those that came inside `options`.
    pub fn ignore(&mut self, names: &[String]) {
        let is_ignored = |name: &str| names.iter().any(|ignored| ignored.eq_ignore_ascii_case(name));
        self.parameters.retain(|(name, _)| !is_ignored(name));
        self.replication.take_if(|_| is_ignored("replication"));
    }

    /// # Errors
    /// The refusal, ready to send: a setting that SET would refuse too, by name.
    pub fn check(&self) -> Result<(), OwnedReport> {
        if let Some(auth) = self.auth.as_deref().filter(|auth| Auth::named(auth).is_none()) {
            let text = format!("{AUTH} = \"{auth}\" is unknown; it can be \"password\" or \"oauth\"");
            return Err(OwnedReport::new("22023", text));
        }
        if self.replication.is_some() {
            return Err(OwnedReport::new("28000", "replication connections are not allowed".into()));
        }
        for (name, _) in &self.parameters {
            if !may_be_a_setting(name) {
                let text = format!("unrecognized configuration parameter \"{name}\"");
                return Err(OwnedReport::new("42704", text));
            }
            if let Some(why) = self.parameter(name).and_then(|value| refusal(name, value)) {
                return Err(OwnedReport::new("42501", why));
            }
        }
        Ok(())
    }
}

/// A name inside `options` is a setting to the server; as a parameter of our own startup message it could be more. Names that
/// begin as our own do are ours.
fn may_be_a_setting(name: &str) -> bool {
    const MORE: [&str; 4] = ["user", "database", "options", "replication"];
    let lower = name.to_ascii_lowercase();
    !lower.is_empty()
        && !MORE.contains(&lower.as_str())
        && !lower.starts_with("_pq_.")
        && !lower.starts_with("wireward.")
}

/// As the server reads a Boolean: prefixes count.
fn is_off(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let is_start_of = |word: &str| !value.is_empty() && word.starts_with(&value);
    is_start_of("false") || is_start_of("no") || value.len() > 1 && is_start_of("off") || value == "0"
}

/// A FATAL error with a text of its own.
pub struct OwnedReport {
    sqlstate: &'static str,
    text: String,
}

impl OwnedReport {
    fn new(sqlstate: &'static str, text: String) -> Self {
        Self { sqlstate, text: format!("wireward: {text}") }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        Report::fatal(self.sqlstate, &self.text).write(out);
    }
}

/// The `options` parameter: `-c name=value` and `--name=value`, split at spaces, backslash escapes
/// (`pg_split_opts` and `process_postgres_switches` of the server).
fn options(text: &str) -> Result<Vec<(String, String)>, Fault> {
    const UNKNOWN: Fault =
        Fault::Protocol(Side::Client, "the startup options may hold only -c name=value and --name=value");
    let mut words = split_options(text).into_iter();
    let mut set = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.as_str() {
            "-c" => words.next().ok_or(UNKNOWN)?,
            _ if word.starts_with("-c") || word.starts_with("--") => word[2..].to_owned(),
            _ => return Err(UNKNOWN),
        };
        let (name, value) = setting.split_once('=').ok_or(UNKNOWN)?;
        set.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(set)
}

fn split_options(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' => {
                word.get_or_insert_default();
                escaped = true;
            }
            _ if c.is_ascii_whitespace() || c == '\x0b' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// AuthenticationCleartextPassword: the token comes as the password.
pub fn ask_password(out: &mut Vec<u8>) {
    message(out, backend::AUTHENTICATION, |out| out.extend_from_slice(&3u32.to_be_bytes()));
}

/// Everything that a client awaits after its token is accepted.
pub fn welcome(out: &mut Vec<u8>, startup: &Startup, parameters: &[u8], key: CancelKey) {
    message(out, backend::AUTHENTICATION, |out| out.extend_from_slice(&[0; 4]));
    out.extend_from_slice(parameters);
    message(out, backend::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&key.process_id.to_be_bytes());
        let secret_bytes = if startup.spoken() == PROTOCOL_3_2 { key.secret.len() } else { SECRET_BYTES_3_0 };
        out.extend_from_slice(&key.secret[..secret_bytes]);
    });
    ready_for_query(out, b'I');
}

/// Asks the upstream for TLS; it answers with one byte, `S` or `N`.
pub fn ask_tls(out: &mut Vec<u8>) {
    untagged(out, |out| out.extend_from_slice(&SSL_REQUEST.to_be_bytes()));
}

/// Where the login to an upstream stands.
pub enum Progress {
    More,
    /// The upstream is ready.
    Ready(Ready),
    /// The upstream will not have us: this the client may see. It is away if it starts up or shuts down, and full if it has too
    /// many connections.
    Refused {
        report: Vec<u8>,
        is_away: bool,
        is_full: bool,
    },
}

/// What a finished login has brought.
#[derive(Debug, Default)]
pub struct Ready {
    /// The upstream's ParameterStatus messages.
    pub parameters: Vec<u8>,
    pub traits: Traits,
    /// Process id and secret, to cancel what runs there (4 bytes each on 3.0).
    pub cancel_key: Option<[u8; 8]>,
}

/// Asks an upstream to cancel what the connection with this key runs.
pub fn cancel_request(key: [u8; 8], out: &mut Vec<u8>) {
    untagged(out, |out| {
        out.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        out.extend_from_slice(&key);
    });
}

/// The login to the upstream.
pub struct Login {
    upstream: Upstream,
    /// tls-server-end-point of the upstream's certificate (RFC 5929), if it is reached by TLS.
    binding: Option<Vec<u8>>,
    scram: Option<Scram>,
    authenticated: bool,
    /// What the server will say of its transactions is the client's own wish.
    brings_read_only: bool,
    ready: Ready,
}

impl Login {
    /// Writes our startup message.
    pub fn start(admission: &Admission, client: &Startup, binding: Option<Vec<u8>>, out: &mut Vec<u8>) -> Self {
        startup(admission, client, out);
        let upstream = admission.upstream.clone();
        let brings_read_only = client.parameter("default_transaction_read_only").is_some();
        Self { upstream, binding, scram: None, authenticated: false, brings_read_only, ready: Ready::default() }
    }

    /// Takes one message of the upstream and writes what answers it.
    ///
    /// # Errors
    /// The upstream does not keep to the protocol, or asks for a method that is not allowed.
    pub fn step(&mut self, frame: &[u8], answer: &mut Vec<u8>) -> Result<Progress, Fault> {
        let body = &frame[HEAD_BYTES..];
        match frame[0] {
            backend::AUTHENTICATION => self.authenticate(body, answer).map(|()| Progress::More),
            backend::ERROR => Ok(refused(body)),
            backend::PARAMETER_STATUS if self.authenticated => {
                if self.ready.parameters.len() + frame.len() > PARAMETERS_BYTES_MAX {
                    return Err(Fault::Protocol(Side::Upstream, "the upstream reports more than 64 KiB of parameters"));
                }
                self.ready.parameters.extend_from_slice(frame);
                if let Some((name, next)) = cstr_at(body, 0)
                    && let Some((value, _)) = cstr_at(body, next)
                {
                    self.ready.traits.note(name, value);
                }
                Ok(Progress::More)
            }
            backend::BACKEND_KEY_DATA if self.authenticated => {
                self.ready.cancel_key = body.try_into().ok();
                Ok(Progress::More)
            }
            backend::NOTICE | backend::NEGOTIATE_PROTOCOL_VERSION => Ok(Progress::More),
            backend::READY_FOR_QUERY if self.authenticated => {
                let mut ready = std::mem::take(&mut self.ready);
                if self.brings_read_only {
                    ready.traits.default_transaction_read_only = ready.traits.in_hot_standby;
                }
                Ok(Progress::Ready(ready))
            }
            _ => Err(Fault::Protocol(Side::Upstream, "an unexpected message came in the upstream's login")),
        }
    }

    fn authenticate(&mut self, body: &[u8], answer: &mut Vec<u8>) -> Result<(), Fault> {
        const METHOD: Fault = Fault::Unreachable(
            "the upstream asks for an authentication method that is not allowed; see `auth` of the resource",
        );
        const PROOF: Fault = Fault::Unreachable("the upstream could not prove that it knows the credential");
        let secret = self.upstream.credential.clone();
        let rest = body.get(4..).unwrap_or_default();
        match u32_at(body, 0) {
            // It has said that it is done, or has proved itself, which it then says once more.
            Some(1..) if self.authenticated => {
                return Err(Fault::Protocol(Side::Upstream, "the upstream asks for authentication after it is done"));
            }
            // An upstream that lets us in without proof of its own after SCRAM began is not the one we know.
            Some(0) if self.scram.is_some() && !self.authenticated => return Err(PROOF),
            Some(0) => self.authenticated = true,
            Some(3) if self.upstream.allow_cleartext => password(answer, secret.reveal()),
            Some(5) if self.upstream.allow_md5 => self.md5(rest, &secret, answer)?,
            Some(10) if self.scram.is_none() => self.begin_scram(rest, answer).ok_or(METHOD)?,
            Some(11) => {
                let scram = self.scram.as_mut().ok_or(METHOD)?;
                scram.update(rest).ok_or(PROOF)?;
                message(answer, frontend::PASSWORD, |out| out.extend_from_slice(scram.message()));
            }
            Some(12) => {
                self.scram.as_mut().ok_or(METHOD)?.finish(rest).ok_or(PROOF)?;
                self.authenticated = true;
            }
            _ => return Err(METHOD),
        }
        Ok(())
    }

    /// `None` if the upstream offers no mechanism that is good enough.
    fn begin_scram(&mut self, offered: &[u8], answer: &mut Vec<u8>) -> Option<()> {
        let offers = |name: &str| offered.split(|b| *b == 0).any(|m| m == name.as_bytes());
        let (mechanism, binding) = match self.binding.take() {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, Binding::EndPoint(hash)),
            // Says that we could have bound, so that a downgrade between us is found out.
            Some(_) => (SCRAM_SHA_256, Binding::Unrequested),
            None => (SCRAM_SHA_256, Binding::Unsupported),
        };
        if !offers(mechanism) {
            return None;
        }
        let scram = Scram::new(self.upstream.credential.clone(), binding)?;
        message(answer, frontend::PASSWORD, |out| {
            put_cstr(out, mechanism.as_bytes());
            out.extend_from_slice(&(scram.message().len() as u32).to_be_bytes());
            out.extend_from_slice(scram.message());
        });
        self.scram = Some(scram);
        Some(())
    }

    fn md5(&self, salt: &[u8], secret: &Secret, answer: &mut Vec<u8>) -> Result<(), Fault> {
        let salt = salt.get(..4).and_then(|s| s.try_into().ok());
        let salt = salt.ok_or(Fault::Protocol(Side::Upstream, "the upstream's md5 salt is malformed"))?;
        password(answer, md5_hash(self.upstream.user.as_bytes(), secret.reveal(), salt).as_bytes());
        Ok(())
    }
}

/// What is said once, by us.
const OURS: [&str; 3] = ["application_name", "client_encoding", "standard_conforming_strings"];

/// Our startup message to the upstream. What is pinned is pinned here, so that RESET and DISCARD come back to it.
pub fn startup(admission: &Admission, client: &Startup, out: &mut Vec<u8>) {
    let upstream = &admission.upstream;
    untagged(out, |out| {
        out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        let mut put = |name: &str, value: &str| {
            put_cstr(out, name.as_bytes());
            put_cstr(out, value.as_bytes());
        };
        put("user", &upstream.user);
        put("database", &upstream.database);
        put("application_name", &application_name(admission, client));
        put("client_encoding", client.parameter("client_encoding").unwrap_or("UTF8"));
        put("standard_conforming_strings", "on");
        if let Some(role) = &upstream.role {
            put("role", role);
        }
        for (name, value) in &client.parameters {
            if !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
                put(name, value);
            }
        }
        out.push(0);
    });
}

fn password(answer: &mut Vec<u8>, bytes: &[u8]) {
    message(answer, frontend::PASSWORD, |out| {
        out.extend_from_slice(bytes);
        out.push(0);
    });
}

/// What the client calls itself, so that it reads back what it has set; or `identity via wireward: <the client's>` where
/// pg_stat_activity is to show who it is. The server cuts it at 63 bytes.
fn application_name(admission: &Admission, startup: &Startup) -> String {
    let subject = &admission.identity.subject;
    match (startup.parameter("application_name"), admission.upstream.application_name) {
        (Some(name), ApplicationName::Client) => name.to_owned(),
        (Some(name), ApplicationName::Identity) if !name.is_empty() => format!("{subject} via wireward: {name}"),
        _ => format!("{subject} via wireward"),
    }
}

/// Why the upstream refused the login, as far as it is the client's business: no word of accounts or passwords.
fn refused(body: &[u8]) -> Progress {
    let field = |wanted| {
        let text = fields(body).find(|(code, _)| *code == wanted).map(|(_, text)| text).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    let sqlstate = field(b'C');
    // Too many connections, starting up or shutting down, settings that it does not take.
    let tells = ["53", "57", "22", "42", "55"].iter().any(|class| sqlstate.starts_with(class));
    let text = match tells {
        true => format!("wireward: the upstream refused the session: {}", field(b'M')),
        false => "wireward: the upstream refused the gateway's login; the operator has to look at the resource's \
                  credential, database and address"
            .to_owned(),
    };
    let hint = Some(field(b'H')).filter(|hint| tells && !hint.is_empty());
    let mut report = Vec::new();
    Report { hint: hint.as_deref(), ..Report::fatal(if tells { &sqlstate } else { "08004" }, &text) }
        .write(&mut report);
    // admin_shutdown, crash_shutdown, cannot_connect_now.
    let is_away = ["57P01", "57P02", "57P03"].contains(&sqlstate.as_str());
    Progress::Refused { report, is_away, is_full: sqlstate == "53300" }
}
