//! COPY: what it reads or writes, and how its bytes are laid out.

use super::super::{Copy, CopyDirection, CopyFormat, Effect, Output, Unmodelled};
use super::lineage::{Column, Rows, Scope, Source};
use super::names;
use super::tree::Node;
use super::walk::Walk;

impl Walk<'_> {
    /// A path or a program is the server's own; else the rows go to or come from the client.
    pub fn copy(&mut self, node: &Node) -> Vec<Column> {
        let from = node.flag("is_from");
        let outside = node.has("filename") || node.flag("is_program");
        if outside {
            self.effect(Effect::File);
        }
        let columns: Vec<String> = node.name_parts("attlist").iter().map(|c| (*c).to_owned()).collect();
        let rows = match (node.node("relation"), node.node("query")) {
            (Some(relation), _) => self.copy_table(relation, from, &columns),
            (None, Some(query)) => self.run(query),
            (None, None) => Vec::new(),
        };
        self.copy_where(node);
        if !outside {
            let table = node.node("relation").map(names::relation);
            let direction = if from { CopyDirection::FromClient } else { CopyDirection::ToClient };
            self.out.copy = Some(Copy { direction, table, columns, ..layout(node) });
        }
        if from || outside { Vec::new() } else { rows }
    }

    fn copy_table(&mut self, relation: &Node, from: bool, columns: &[String]) -> Vec<Column> {
        self.relation(relation, if from { Effect::Insert } else { Effect::Read });
        let (schema, name) = names::relation(relation);
        let listed = if columns.is_empty() { vec!["*"] } else { columns.iter().map(String::as_str).collect() };
        for column in listed {
            self.column(Some(name.clone()), column);
        }
        if columns.is_empty() {
            let output = Output::All { schema, relation: name };
            return vec![Column { name: None, output, open: true, row: 0 }];
        }
        let column = |column: &String| Column {
            name: Some(column.clone()),
            output: Output::Column { relation: Some(name.clone()), name: column.clone() },
            open: false,
            row: 0,
        };
        columns.iter().map(column).collect()
    }

    fn copy_where(&mut self, node: &Node) {
        let Some(condition) = node.node("where_clause") else { return };
        let mut scope = Scope::default();
        if let Some(relation) = node.node("relation") {
            let (schema, name) = names::relation(relation);
            let row = self.new_row();
            scope.sources.push(Source { alias: Some(name.clone()), rows: Rows::Relation { schema, name }, row });
        }
        self.scopes.push(scope);
        self.conditions(Some(condition));
        self.scopes.pop();
    }
}

/// The options as the server reads them. What masking does not model exactly is named, for who is masked.
fn layout(node: &Node) -> Copy {
    let mut options = Options { node, unmodelled: None };
    options.names();
    let format = options.format();
    options.encoding();
    let csv = format == CopyFormat::Csv;
    let delimiter = options.byte("delimiter", if csv { b',' } else { b'\t' });
    let quote = options.byte("quote", b'"');
    let escape = options.byte("escape", quote);
    let null = options.value("null").unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
    let header = options.header();
    if csv && [quote, escape].contains(&delimiter) {
        options.refuse("a DELIMITER that is the QUOTE or ESCAPE too", "choose different characters");
    }
    let special = [delimiter, quote, escape];
    options.null(&null, if csv { &special } else { &special[..1] });
    let unmodelled = options.unmodelled.filter(|_| format != CopyFormat::Binary);
    let (direction, table, columns) = (CopyDirection::ToClient, None, Vec::new());
    Copy { direction, format, table, columns, delimiter, quote, escape, null, header, unmodelled }
}

/// A row of COPY TO has the form that these give it.
const LAYOUT: [&str; 7] = ["format", "delimiter", "null", "header", "quote", "escape", "encoding"];

/// These leave its form as it is: quotes are read wherever they stand.
const FORMLESS: [&str; 2] = ["force_quote", "freeze"];

/// Room for a marker in each of 1,664 fields must not be much.
const NULL_BYTES_MAX: usize = 64;

struct Options<'a> {
    node: &'a Node,
    unmodelled: Option<Unmodelled>,
}

impl Options<'_> {
    fn refuse(&mut self, what: &str, remedy: &str) {
        self.unmodelled.get_or_insert_with(|| Unmodelled { what: what.to_owned(), remedy: remedy.to_owned() });
    }

    fn all(&self) -> impl Iterator<Item = &Node> {
        self.node.list("options")
    }

    /// All 15 options of PostgreSQL 15 to 18 that are not in [`LAYOUT`] or [`FORMLESS`] are of COPY FROM.
    fn names(&mut self) {
        let names: Vec<String> = self.all().map(|option| option.text("defname").to_owned()).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                self.refuse(&format!("{} given twice", name.to_uppercase()), "give it once");
            }
            if !LAYOUT.contains(&name.as_str()) && !FORMLESS.contains(&name.as_str()) {
                self.refuse(&format!("the option {name}"), "leave it out");
            }
        }
    }

    /// The value of an option that is given. One that is a list cannot be told.
    fn value(&mut self, name: &str) -> Option<String> {
        let option = self.node.list("options").filter(|option| option.text("defname") == name).last()?;
        if matches!(option.node("arg").map(|argument| argument.kind), Some("List" | "TypeName")) {
            self.refuse(&format!("{} that is no string", name.to_uppercase()), "write its value as a string");
        }
        Some(argument(option))
    }

    fn format(&mut self) -> CopyFormat {
        match self.value("format").as_deref() {
            None | Some("text") => CopyFormat::Text,
            Some("csv") => CopyFormat::Csv,
            Some("binary") => CopyFormat::Binary,
            Some(other) => {
                self.refuse(&format!("FORMAT {other}"), "use text or csv");
                CopyFormat::Text
            }
        }
    }

    /// An encoding of its own would change the bytes that masks look at.
    fn encoding(&mut self) {
        let encoding = self.value("encoding").unwrap_or_else(|| "utf8".to_owned());
        if !matches!(encoding.to_ascii_lowercase().as_str(), "utf8" | "utf-8") {
            self.refuse(&format!("ENCODING {encoding}"), "leave it out, or use UTF8");
        }
    }

    fn header(&mut self) -> bool {
        let on = self.value("header").map(|value| value.to_ascii_lowercase());
        match on.as_deref() {
            None | Some("false" | "off" | "0") => false,
            Some("" | "true" | "on" | "1") => true,
            Some(other) => {
                self.refuse(&format!("HEADER {other}"), "use on or off");
                true
            }
        }
    }

    /// Whatever is part of a value that detectors know, or that a mask writes, would split or end values.
    fn byte(&mut self, name: &str, default: u8) -> u8 {
        let Some(value) = self.value(name) else { return default };
        let stands_apart = |byte: u8| {
            byte == b'\t' && name == "delimiter"
                || byte == b'\\' && name == "escape"
                || byte.is_ascii_graphic() && !byte.is_ascii_alphanumeric() && !b"\\@.-+*_%".contains(&byte)
        };
        match value.as_bytes() {
            [byte] if stands_apart(*byte) => *byte,
            _ => {
                let what = format!("{} '{}'", name.to_uppercase(), value.escape_debug());
                self.refuse(&what, if name == "delimiter" { "use a tab, a comma, ; or |" } else { "use \" or '" });
                value.bytes().next().unwrap_or(default)
            }
        }
    }

    fn null(&mut self, marker: &str, special: &[u8]) {
        let is_special = |byte: u8| special.contains(&byte) || byte < b' ' || byte == b'\\';
        if marker.len() > NULL_BYTES_MAX || marker != "\\N" && marker.bytes().any(is_special) {
            let what = format!("NULL '{}'", marker.chars().take(NULL_BYTES_MAX).collect::<String>().escape_debug());
            self.refuse(&what, "use \\N, an empty string, or a short word like NULL");
        }
    }
}

/// An option's argument as text; empty when it has none.
pub fn argument(option: &Node) -> String {
    let Some(argument) = option.node("arg") else { return String::new() };
    match argument.kind {
        "String" => argument.text("sval").to_owned(),
        "Integer" => argument.int("ival").to_string(),
        "Float" => argument.text("fval").to_owned(),
        "AStar" => "*".to_owned(),
        "Boolean" => argument.flag("boolval").to_string(),
        "TypeName" => argument.name_parts("names").last().map_or_else(String::new, |n| (*n).to_owned()),
        _ => String::new(),
    }
}

/// Whether a switch is on. Present without a value means on; only the server's own words for "off" turn it off.
pub fn is_on(option: &Node) -> bool {
    !option.has("arg") || !matches!(argument(option).to_ascii_lowercase().as_str(), "false" | "off" | "0")
}
