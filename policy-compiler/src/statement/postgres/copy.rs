//! COPY: what it reads or writes, and how its bytes are laid out.

use super::super::{Copy, CopyDirection, CopyFormat, Effect, Output};
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
        match layout(node) {
            Ok(layout) if !outside => {
                let table = node.node("relation").map(names::relation);
                let direction = if from { CopyDirection::FromClient } else { CopyDirection::ToClient };
                self.out.copy = Some(Copy { direction, table, columns, ..layout });
            }
            Ok(_) => {}
            Err(why) => self.opaque(&why),
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

/// The options as the server reads them. An encoding of its own would change the bytes that masks look at.
fn layout(node: &Node) -> Result<Copy, String> {
    let option = |name: &str| node.list("options").filter(|o| o.text("defname") == name).last();
    let text = |name: &str| option(name).map(argument);
    let format = match text("format").as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv,
        Some("binary") => CopyFormat::Binary,
        Some(other) => return Err(format!("COPY with the format {other}; use text, csv or binary")),
    };
    if let Some(encoding) = text("encoding")
        && !matches!(encoding.to_ascii_lowercase().as_str(), "utf8" | "utf-8")
    {
        return Err(format!("COPY with ENCODING {encoding}; use UTF8"));
    }
    let csv = format == CopyFormat::Csv;
    let byte = |name: &str, default: u8| match text(name) {
        None => Ok(default),
        Some(value) => match value.as_bytes() {
            [byte] => Ok(*byte),
            _ => Err(format!("COPY with a {name} that is not one byte")),
        },
    };
    let quote = byte("quote", b'"')?;
    Ok(Copy {
        direction: CopyDirection::ToClient,
        format,
        table: None,
        columns: Vec::new(),
        delimiter: byte("delimiter", if csv { b',' } else { b'\t' })?,
        quote,
        escape: byte("escape", quote)?,
        null: text("null").unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() }),
        header: option("header").is_some_and(is_on),
    })
}

/// An option's argument as text; empty when it has none.
pub fn argument(option: &Node) -> String {
    let Some(argument) = option.node("arg") else { return String::new() };
    match argument.kind {
        "String" => argument.text("sval").to_owned(),
        "Integer" => argument.int("ival").to_string(),
        "Float" => argument.text("fval").to_owned(),
        "Boolean" => argument.flag("boolval").to_string(),
        "TypeName" => argument.name_parts("names").last().map_or_else(String::new, |n| (*n).to_owned()),
        _ => String::new(),
    }
}

/// Whether a switch is on. Present without a value means on; only the server's own words for "off" turn it off.
pub fn is_on(option: &Node) -> bool {
    !option.has("arg") || !matches!(argument(option).to_ascii_lowercase().as_str(), "false" | "off" | "0")
}
