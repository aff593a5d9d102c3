//! The operator's log: one line an event to stderr, as text or as JSON. [`KINDS`] is all there is; `dataplane/METRICS.md` explains
//! each. No data of a session, no token and no secret stands in it.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde_json::Value;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// # Errors
    /// The names that there are.
    pub fn from_name(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("write text or json".into()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A kind of event: its level, its name and the names of its fields.
#[derive(Debug)]
pub struct Kind {
    pub level: &'static str,
    pub name: &'static str,
    pub fields: &'static [&'static str],
}

const fn kind(level: &'static str, name: &'static str, fields: &'static [&'static str]) -> Kind {
    Kind { level, name, fields }
}

pub const STARTED: Kind = kind("info", "started", &["shards", "driver"]);
pub const FATAL: Kind = kind("error", "fatal", &[]);
pub const PANICKED: Kind = kind("error", "panicked", &["thread", "location"]);
pub const CHILD_RESTARTED: Kind = kind("warn", "child_restarted", &["child", "status"]);
pub const SHARD_RESTARTED: Kind = kind("error", "shard_restarted", &["shard"]);
pub const SESSIONS_EVICTED: Kind = kind("warn", "sessions_evicted", &["shard", "sessions"]);
pub const CANCEL_GUESSED: Kind = kind("warn", "cancel_guessed", &["shard", "client"]);
pub const ACCEPT_FAILED: Kind = kind("warn", "accept_failed", &["shard", "listener"]);
pub const UPSTREAM_UNREACHABLE: Kind = kind("warn", "upstream_unreachable", &["shard", "resource"]);
pub const NAME_UNRESOLVED: Kind = kind("warn", "name_unresolved", &["resource", "host"]);
pub const UPSTREAM_TLS_FAILED: Kind = kind("warn", "upstream_tls_failed", &["shard"]);
pub const CATALOGUE_FAILED: Kind = kind("warn", "catalogue_failed", &["resource"]);
pub const MASK_WITHOUT_COLUMN: Kind = kind("warn", "mask_without_column", &["resource", "mask"]);
pub const KEYS_FAILED: Kind = kind("warn", "keys_failed", &["issuer"]);
pub const KEYS_BACK: Kind = kind("info", "keys_back", &["issuer"]);
pub const KEYS_UNUSABLE: Kind = kind("warn", "keys_unusable", &["issuer"]);
pub const DRIVER_FALLBACK: Kind = kind("warn", "driver_fallback", &["driver"]);
pub const RELOADED: Kind = kind("info", "reloaded", &["policy", "before"]);
pub const RELOAD_REFUSED: Kind = kind("error", "reload_refused", &[]);
pub const RECORDING: Kind = kind("info", "recording", &["shell"]);
pub const SHELL_FALLBACK: Kind = kind("warn", "shell_fallback", &["shell"]);
pub const RECORDER_REPORT: Kind = kind("warn", "recorder_report", &[]);

/// All kinds.
pub const KINDS: [&Kind; 22] = [
    &STARTED,
    &FATAL,
    &PANICKED,
    &CHILD_RESTARTED,
    &SHARD_RESTARTED,
    &SESSIONS_EVICTED,
    &CANCEL_GUESSED,
    &ACCEPT_FAILED,
    &UPSTREAM_UNREACHABLE,
    &NAME_UNRESOLVED,
    &UPSTREAM_TLS_FAILED,
    &CATALOGUE_FAILED,
    &MASK_WITHOUT_COLUMN,
    &KEYS_FAILED,
    &KEYS_BACK,
    &KEYS_UNUSABLE,
    &DRIVER_FALLBACK,
    &RELOADED,
    &RELOAD_REFUSED,
    &RECORDING,
    &SHELL_FALLBACK,
    &RECORDER_REPORT,
];

static IS_JSON: AtomicBool = AtomicBool::new(false);
static PROCESS: OnceLock<&'static str> = OnceLock::new();
/// stderr as it was at the start: while libpg_query parses it points that descriptor to a pipe of its own, in all threads.
static STDERR: OnceLock<File> = OnceLock::new();

/// Says once what this process is and how it writes. A panic is then told by its place alone: its words may hold data.
pub fn begin(process: &'static str, format: Format) {
    IS_JSON.store(format == Format::Json, Ordering::Relaxed);
    let _ = PROCESS.set(process);
    if let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() {
        let _ = STDERR.set(stderr.into());
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = format!("the thread {thread} has panicked at {location}");
        tell(&PANICKED, &[thread.into(), location.into()], message);
    }));
}

/// Writes one line. `values` belong to the fields of the kind, in order. A log that cannot be written stops nothing.
pub fn tell(kind: &Kind, values: &[Value], message: impl Display) {
    debug_assert_eq!(kind.fields.len(), values.len(), "{}", kind.name);
    let process = PROCESS.get().copied().unwrap_or("wireward");
    let line = match IS_JSON.load(Ordering::Relaxed) {
        true => json(kind, process, values, &message.to_string(), SystemTime::now()),
        false => text(process, &message.to_string()),
    };
    // One write a line: three processes share the descriptor.
    let _ = match STDERR.get() {
        Some(mut stderr) => stderr.write_all(line.as_bytes()),
        None => std::io::stderr().lock().write_all(line.as_bytes()),
    };
}

/// Control characters of others' words must not move a terminal's cursor or begin a line.
fn text(process: &str, message: &str) -> String {
    let plain = message.replace(char::is_control, " ");
    match process {
        "recorder" => format!("wireward recorder: {plain}\n"),
        _ => format!("wireward: {plain}\n"),
    }
}

fn json(kind: &Kind, process: &str, values: &[Value], message: &str, at: SystemTime) -> String {
    let head = [
        ("time", rfc3339(at).into()),
        ("level", kind.level.into()),
        ("event", kind.name.into()),
        ("process", process.into()),
    ];
    let fields = kind.fields.iter().copied().zip(values.iter().cloned());
    let all = head.into_iter().chain(fields).chain([("message", Value::from(message))]);
    let members: Vec<String> = all.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}\n", members.join(","))
}

/// UTC to the millisecond.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        for (unix_ms, written) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)), written);
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_stands_in_it() {
        let hostile = "a\n\"b\"\u{1b}[2J";
        let values = [hostile.into(), 3.into()];
        let line = json(&ACCEPT_FAILED, "dataplane", &values, hostile, SystemTime::UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&value["shard"], &value["listener"], &value["message"]),
            (&hostile.into(), &3.into(), &hostile.into())
        );
        assert!(
            line.starts_with("{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\"event\":\"accept_failed\","),
            "{line}"
        );
        assert_eq!(text("dataplane", hostile), "wireward: a \"b\" [2J\n");
    }

    #[test]
    fn the_document_tells_every_kind_and_no_other() {
        let document = include_str!("../METRICS.md");
        let (_, log) = document.split_once("\n## Log\n").expect("a chapter about the log");
        let rows = log.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| row.splitn(4, " | ").take(3));
        let told: Vec<String> = rows.map(|cells| cells.collect::<Vec<_>>().join(" | ")).collect();
        let written = |kind: &&Kind| {
            let fields: Vec<String> = kind.fields.iter().map(|field| format!("`{field}`")).collect();
            format!(
                "{}` | {} | {}",
                kind.name,
                kind.level,
                if fields.is_empty() { "–".into() } else { fields.join(", ") }
            )
        };
        assert_eq!(told, KINDS.iter().map(written).collect::<Vec<_>>());
    }
}
