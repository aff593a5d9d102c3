//! SET, RESET, DISCARD and set_config: which settings would change, and to what.

use pg_query::protobuf::{AExprKind, DiscardMode, VariableSetKind};

use super::super::{Dropped, Effect, NewValue, Setting};
use super::tree::Node;
use super::walk::Walk;

/// The name under which RESET ALL and DISCARD ALL appear among the settings.
const EVERY_SETTING: &str = "all";

impl Walk<'_> {
    /// SET ROLE and SET SESSION AUTHORIZATION change who acts; RESET of them returns to the pinned user.
    pub fn variable_set(&mut self, node: &Node) {
        let name = node.text("name").to_ascii_lowercase();
        match kind(node) {
            Some(VariableSetKind::VarSetMulti) => self.effect(Effect::Transaction),
            Some(VariableSetKind::VarSetValue) => {
                let identity = matches!(name.as_str(), "role" | "session_authorization");
                self.effect(if identity { Effect::Dcl } else { Effect::Session });
                let value = NewValue::Is(self.value_of(&name, node));
                self.out.settings.push(Setting { name, value });
            }
            Some(VariableSetKind::VarSetDefault | VariableSetKind::VarReset) => {
                self.effect(Effect::Session);
                self.out.settings.push(Setting { name, value: NewValue::Default });
            }
            // SET x FROM CURRENT stands only in CREATE FUNCTION.
            Some(VariableSetKind::VarSetCurrent) => self.effect(Effect::Session),
            Some(VariableSetKind::VarResetAll) => {
                self.effect(Effect::Session);
                self.out.settings.push(Setting { name: EVERY_SETTING.to_owned(), value: NewValue::Default });
            }
            _ => self.opaque("this form of SET"),
        }
    }

    pub fn discard(&mut self, node: &Node) {
        self.effect(Effect::Session);
        if node.int("target") == DiscardMode::DiscardAll as i64 {
            self.out.settings.push(Setting { name: EVERY_SETTING.to_owned(), value: NewValue::Default });
            self.out.drops = Some(Dropped::Everything);
        }
    }

    /// `set_config(name, value, is_local)` is SET where the name is a literal; the value may be anything, which only settings
    /// that change no meaning may become. With any other name its effect is unknown.
    pub fn set_config(&mut self, call: &Node) {
        let arguments: Vec<&Node> = call.list("args").collect();
        let [name, value, _] = arguments[..] else { return self.effect(Effect::Dynamic) };
        let name = match self.literal(name) {
            Some(name) => Some(name.to_ascii_lowercase()),
            None => self.row_of_pg_settings(name),
        };
        let Some(name) = name.filter(|_| !call.flag("func_variadic")) else { return self.effect(Effect::Dynamic) };
        let value = self.literal(value).map_or(NewValue::Any, |value| NewValue::Is(value.to_owned()));
        let identity = matches!(name.as_str(), "role" | "session_authorization");
        self.effect(if identity { Effect::Dcl } else { Effect::Session });
        self.out.settings.push(Setting { name, value });
    }

    fn row_of_pg_settings(&self, argument: &Node) -> Option<String> {
        let is_name = argument.kind == "ColumnRef" && argument.name_parts("fields") == ["name"];
        self.pg_settings_row.clone().filter(|_| is_name)
    }

    /// A setting that a role or a database begins its later sessions with, or the whole server.
    pub fn set_for_later(&mut self, set: Option<&Node>) {
        let Some(set) = set else { return };
        let name = set.text("name").to_ascii_lowercase();
        if let Some(VariableSetKind::VarSetValue) = kind(set) {
            let value = NewValue::Is(self.value_of(&name, set));
            self.out.settings.push(Setting { name, value });
        } else if let Some(VariableSetKind::VarSetCurrent) = kind(set) {
            self.out.settings.push(Setting { name, value: NewValue::Any });
        }
    }

    /// The value as the server would keep it: lists are joined by comma; the parts of a list of names are quoted.
    fn value_of(&mut self, setting: &str, node: &Node) -> String {
        let names = setting == "search_path" || setting == "temp_tablespaces" || setting.ends_with("preload_libraries");
        let part = |argument: &Node| {
            let text = self.scalar(argument);
            if names { quoted(&text) } else { text }
        };
        node.list("args").map(part).collect::<Vec<_>>().join(", ")
    }

    fn scalar(&mut self, argument: &Node) -> String {
        self.literal_matters = true;
        let inner = if argument.kind == "TypeCast" { argument.node("arg") } else { None };
        let Some(value) = inner.unwrap_or(argument).constant() else { return String::new() };
        match value.kind {
            "String" => value.text("sval").to_owned(),
            "Integer" => value.int("ival").to_string(),
            "Float" => value.text("fval").to_owned(),
            "BitString" => value.text("bsval").to_owned(),
            "Boolean" => value.flag("boolval").to_string(),
            _ => String::new(),
        }
    }
}

/// pg_dump sets what an older server may not have by
/// `SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'y'`: in this very form, compared as a tree, the `name`
/// of the one row is known. In any other `name` may be another column.
pub fn pg_settings_row(walk: &mut Walk<'_>, select: &Node) -> Option<String> {
    const FIELDS: [&str; 3] = ["target_list", "from_clause", "where_clause"];
    let only_these = select.field_names().all(|field| FIELDS.contains(&field) || select.is_neutral(field));
    let ([target], [from]) =
        (&select.list("target_list").collect::<Vec<_>>()[..], &select.list("from_clause").collect::<Vec<_>>()[..])
    else {
        return None;
    };
    let condition = select.node("where_clause").filter(|c| from.kind == "RangeVar" && c.kind == "AExpr")?;
    let (left, right) = (condition.node("lexpr")?, condition.node("rexpr")?);
    let plain = condition.int("kind") == AExprKind::AexprOp as i64 && condition.name_parts("name") == ["="];
    let on_name = left.kind == "ColumnRef" && left.name_parts("fields") == ["name"];
    let on_view = from.text("relname") == "pg_settings" && !from.has("alias") && !from.has("catalogname");
    let of_system = matches!(from.text("schemaname"), "" | "pg_catalog");
    let call = target.node("val").filter(|call| call.kind == "FuncCall")?;
    let sets = matches!(call.name_parts("funcname").as_slice(), ["set_config"] | ["pg_catalog", "set_config"]);
    let constants = call.list("args").skip(1).all(|argument| argument.kind == "AConst");
    let in_no_with = walk.ctes.is_empty();
    if !(only_these && plain && on_name && on_view && of_system && sets && constants && in_no_with) {
        return None;
    }
    walk.literal(right).map(str::to_owned)
}

fn kind(node: &Node) -> Option<VariableSetKind> {
    VariableSetKind::try_from(i32::try_from(node.int("kind")).ok()?).ok()
}

fn quoted(name: &str) -> String {
    let simple = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let plain = name.bytes().all(simple) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
