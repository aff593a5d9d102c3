//! What happened in a session, and how it is shown.

use serde_json::{Value, json};

use super::text;

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The upstream, as the client saw it.
    Server,
}

/// Something worth showing. Strings are raw: they are escaped when shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A statement was run; parameters as shown, `None` is NULL.
    Statement { sql: String, params: Vec<Option<String>> },
    /// A statement was prepared.
    Prepare { name: String, sql: String },
    /// One row.
    Row { columns: Vec<String>, values: Vec<Option<String>> },
    /// Rows that were not shown.
    MoreRows { rows: u64 },
    /// A statement ended; its command tag.
    Complete { tag: String },
    /// ErrorResponse or NoticeResponse.
    Message { is_error: bool, severity: String, code: String, message: String },
    /// COPY data.
    Copy { from: Side, data: String },
    /// Any other message worth a line.
    Other { what: String },
    /// What policy decided.
    Verdict { action: &'static str, policy: String, rule: String },
    /// Records that were dropped.
    Gap { records: u64 },
    /// What gateway or recorder told about the session.
    Told { name: &'static str, value: Value },
    /// Bytes that do not make sense.
    Malformed(String),
}

impl Event {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Statement { .. } => "statement",
            Event::Prepare { .. } => "prepare",
            Event::Row { .. } => "row",
            Event::MoreRows { .. } => "rows",
            Event::Complete { .. } => "complete",
            Event::Message { is_error: true, .. } => "error",
            Event::Message { .. } => "notice",
            Event::Copy { .. } => "copy",
            Event::Other { .. } => "message",
            Event::Verdict { .. } => "verdict",
            Event::Gap { .. } => "gap",
            Event::Told { name, .. } => name,
            Event::Malformed(_) => "malformed",
        }
    }

    /// One line of text, safe to print.
    pub fn line(&self) -> String {
        let value = |value: &Option<String>| value.as_ref().map_or("NULL".into(), |text| format!("'{text}'"));
        let list = |values: &[Option<String>]| values.iter().map(value).collect::<Vec<_>>();
        match self {
            Event::Statement { sql, params } if params.is_empty() => text::escape(sql),
            Event::Statement { sql, params } => {
                let params =
                    list(params).iter().enumerate().map(|(n, v)| format!("${} = {v}", n + 1)).collect::<Vec<_>>();
                format!("{}  [{}]", text::escape(sql), params.join(", "))
            }
            Event::Prepare { name, sql } => format!("{}: {}", text::escape(name), text::escape(sql)),
            Event::Row { columns, values } => {
                let label =
                    |n: usize| columns.get(n).map(|name| format!("{}=", text::escape(name))).unwrap_or_default();
                let cells =
                    list(values).iter().enumerate().map(|(n, v)| format!("{}{v}", label(n))).collect::<Vec<_>>();
                cells.join(", ")
            }
            Event::MoreRows { rows } => format!("… {rows} rows more; --all shows them"),
            Event::Complete { tag } => text::escape(tag),
            Event::Message { severity, code, message, .. } => text::escape(&format!("{severity} {code}: {message}")),
            Event::Copy { from: Side::Client, data } => format!("from the client: {data}"),
            Event::Copy { data, .. } => format!("to the client: {data}"),
            Event::Other { what } | Event::Malformed(what) => text::escape(what),
            Event::Verdict { action, policy, rule, .. } => {
                format!("{action} by {} (policy {policy})", text::escape(rule))
            }
            Event::Gap { records } => format!("{records} records were dropped here (level L0, ring full)"),
            Event::Told { value, .. } => text::escape(&value.to_string()),
        }
    }

    /// The same as JSON.
    pub fn object(&self) -> Value {
        match self {
            Event::Statement { sql, params } => json!({"sql": sql, "params": params}),
            Event::Prepare { name, sql } => json!({"name": name, "sql": sql}),
            Event::Row { columns, values } => json!({"columns": columns, "values": values}),
            Event::MoreRows { rows } => json!({"not_shown": rows}),
            Event::Complete { tag } => json!({"tag": tag}),
            Event::Message { severity, code, message, .. } => {
                json!({"severity": severity, "code": code, "message": message})
            }
            Event::Copy { from, data } => json!({"from_client": *from == Side::Client, "data": data}),
            Event::Other { what } | Event::Malformed(what) => json!({"what": what}),
            Event::Verdict { action, policy, rule } => json!({"action": action, "policy": policy, "rule": rule}),
            Event::Gap { records } => json!({"records": records}),
            Event::Told { value, .. } => json!({"value": value}),
        }
    }
}
