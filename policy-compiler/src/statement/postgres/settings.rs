//! SET, RESET, DISCARD and set_config: which settings would change, and to what.

use pg_query::protobuf::{AExprKind, DiscardMode, VariableSetKind};

use super::super::{Dropped, Effect, Setting};
use super::tree::Node;
use super::walk::Walk;

/// Settings that steer the planner only and that drivers set from a parameter (asyncpg puts `jit` back so).
const SET_BY_PARAMETER: [&str; 1] = ["jit"];

/// The name under which RESET ALL and DISCARD ALL appear among the settings.
const EVERY_SETTING: &str = "all";

impl Walk {
    /// SET ROLE and SET SESSION AUTHORIZATION change who acts; RESET of them returns to the pinned user.
    pub fn variable_set(&mut self, node: &Node) {
        let name = node.text("name").to_ascii_lowercase();
        match kind(node) {
            Some(VariableSetKind::VarSetMulti) => self.effect(Effect::Transaction),
            Some(VariableSetKind::VarSetValue) => {
                let identity = matches!(name.as_str(), "role" | "session_authorization");
                self.effect(if identity { Effect::Dcl } else { Effect::Session });
                let value = Some(value_of(&name, node));
                self.out.settings.push(Setting { name, value });
            }
            Some(VariableSetKind::VarSetDefault | VariableSetKind::VarReset) => {
                self.effect(Effect::Session);
                self.out.settings.push(Setting { name, value: None });
            }
            // SET x FROM CURRENT stands only in CREATE FUNCTION.
            Some(VariableSetKind::VarSetCurrent) => self.effect(Effect::Session),
            Some(VariableSetKind::VarResetAll) => {
                self.effect(Effect::Session);
                self.out.settings.push(Setting { name: EVERY_SETTING.to_owned(), value: None });
            }
            _ => self.opaque("this form of SET"),
        }
    }

    pub fn discard(&mut self, node: &Node) {
        self.effect(Effect::Session);
        if node.int("target") == DiscardMode::DiscardAll as i64 {
            self.out.settings.push(Setting { name: EVERY_SETTING.to_owned(), value: None });
            self.out.drops = Some(Dropped::Everything);
        }
    }

    /// `set_config(name, value, is_local)`: with literals it is SET, with anything else its effect is unknown.
    pub fn set_config(&mut self, call: &Node) {
        let arguments: Vec<&Node> = call.list("args").collect();
        let (name, value) = match arguments.as_slice() {
            [name, value, _] => (text_of(name).or_else(|| self.row_of_pg_settings(name)), text_of(value)),
            _ => (None, None),
        };
        match (name.map(str::to_ascii_lowercase), value) {
            (Some(name), Some(value)) if !call.flag("func_variadic") => {
                let identity = matches!(name.as_str(), "role" | "session_authorization");
                self.effect(if identity { Effect::Dcl } else { Effect::Session });
                self.out.settings.push(Setting { name, value: Some(value.to_owned()) });
            }
            (Some(name), None) if SET_BY_PARAMETER.contains(&name.as_str()) && from_parameter(&arguments) => {
                self.effect(Effect::Session);
                self.out.settings.push(Setting { name, value: None });
            }
            _ => self.effect(Effect::Dynamic),
        }
    }

    fn row_of_pg_settings(&self, argument: &Node) -> Option<&str> {
        let is_name = argument.kind == "ColumnRef" && argument.name_parts("fields") == ["name"];
        self.pg_settings_row.as_deref().filter(|_| is_name)
    }
}

/// `… FROM pg_settings WHERE name = 'x'`, with which pg_dump sets what an older server may not have: the `name` of the
/// one row is then known.
pub fn pg_settings_row(select: &Node) -> Option<String> {
    let [from] = select.list("from_clause").collect::<Vec<_>>()[..] else { return None };
    let condition = select.node("where_clause").filter(|c| from.kind == "RangeVar" && c.kind == "AExpr")?;
    let (left, right) = (condition.node("lexpr")?, condition.node("rexpr")?);
    let plain = condition.int("kind") == AExprKind::AexprOp as i64 && condition.name_parts("name") == ["="];
    let on_name = left.kind == "ColumnRef" && left.name_parts("fields") == ["name"];
    let on_view = from.text("relname") == "pg_settings" && !from.has("alias");
    let of_system = matches!(from.text("schemaname"), "" | "pg_catalog");
    text_of(right).filter(|_| plain && on_name && on_view && of_system).map(str::to_owned)
}

fn from_parameter(arguments: &[&Node]) -> bool {
    arguments.get(1).is_some_and(|value| value.kind == "ParamRef")
}

fn kind(node: &Node) -> Option<VariableSetKind> {
    VariableSetKind::try_from(i32::try_from(node.int("kind")).ok()?).ok()
}

/// A string constant, also with a cast to text.
fn text_of(node: &Node) -> Option<&str> {
    match node.kind {
        "AConst" => node.node("val").filter(|v| v.kind == "String").map(|v| v.text("sval")),
        "TypeCast" => {
            let parts = node.node("type_name").map(|t| t.name_parts("names")).unwrap_or_default();
            let text = matches!(parts.as_slice(), ["text"] | ["pg_catalog", "text"]);
            node.node("arg").filter(|_| text).and_then(text_of)
        }
        _ => None,
    }
}

/// The value as the server would keep it: lists are joined by comma; the parts of a list of names are quoted.
fn value_of(setting: &str, node: &Node) -> String {
    let names = setting == "search_path" || setting == "temp_tablespaces" || setting.ends_with("preload_libraries");
    let part = |argument: &Node| {
        let text = scalar(argument);
        if names { quoted(&text) } else { text }
    };
    node.list("args").map(part).collect::<Vec<_>>().join(", ")
}

fn scalar(argument: &Node) -> String {
    match (argument.kind, argument.node_if("val"), argument.node_if("arg")) {
        ("AConst", Some(value), _) => match value.kind {
            "String" => value.text("sval").to_owned(),
            "Integer" => value.int("ival").to_string(),
            "Float" => value.text("fval").to_owned(),
            "BitString" => value.text("bsval").to_owned(),
            "Boolean" => value.flag("boolval").to_string(),
            _ => String::new(),
        },
        ("TypeCast", _, Some(inner)) => scalar(inner),
        _ => String::new(),
    }
}

fn quoted(name: &str) -> String {
    let simple = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let plain = name.bytes().all(simple) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
