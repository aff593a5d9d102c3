//! Dotted names and the names that the server gives to columns without an alias.

use super::tree::Node;

/// Schema and name of a dotted name; a leading database name is dropped.
pub fn schema_and_name(parts: &[&str]) -> Option<(Option<String>, String)> {
    match parts {
        [.., schema, name] => Some((Some((*schema).to_owned()), (*name).to_owned())),
        [name] => Some((None, (*name).to_owned())),
        [] => None,
    }
}

/// Schema and name of a `RangeVar`.
pub fn relation(node: &Node) -> (Option<String>, String) {
    let schema = Some(node.text("schemaname")).filter(|s| !s.is_empty());
    (schema.map(str::to_owned), node.text("relname").to_owned())
}

/// The name of an `Alias` below `node`, and its column names.
pub fn alias(node: &Node) -> (Option<String>, Vec<&str>) {
    match node.node("alias") {
        Some(alias) => (Some(alias.text("aliasname").to_owned()), alias.name_parts("colnames")),
        None => (None, Vec::new()),
    }
}

/// The name of a result column (`FigureColname` of the server); `None` where it is not followed here, which only makes
/// later lookups of it unknown. A wrong name would send a lookup past the column to a harmless one.
pub fn of_target(target: &Node) -> Option<String> {
    let given = target.text("name");
    if !given.is_empty() {
        return Some(given.to_owned());
    }
    target.node("val").and_then(figured).map(|(name, _)| name)
}

/// The name, and whether it holds against the name of a type that the value is cast to.
fn figured(node: &Node) -> Option<(String, bool)> {
    let last = |parts: Vec<&str>| parts.last().map(|p| ((*p).to_owned(), true));
    match node.kind {
        "ColumnRef" if node.list("fields").any(|field| field.kind == "AStar") => None,
        "ColumnRef" => last(node.name_parts("fields")),
        "FuncCall" => last(node.name_parts("funcname")),
        "TypeCast" => match figured(node.node("arg")?)? {
            (_, false) => last(node.node("type_name")?.name_parts("names")).map(|(name, _)| (name, false)),
            held => Some(held),
        },
        "CollateClause" => figured(node.node("arg")?),
        "SubLink" if node.int("sub_link_type") == pg_query::protobuf::SubLinkType::ExprSublink as i64 => {
            let select = node.node("subselect").filter(|s| s.kind == "SelectStmt")?;
            of_target(select.list("target_list").next()?).map(|name| (name, true))
        }
        "AExpr" | "AConst" | "BoolExpr" | "ParamRef" | "NullTest" | "BooleanTest" if !is_nullif(node) => {
            Some(("?column?".to_owned(), false))
        }
        "CoalesceExpr" => Some(("coalesce".to_owned(), true)),
        "RowExpr" => Some(("row".to_owned(), true)),
        "AArrayExpr" => Some(("array".to_owned(), true)),
        _ => None,
    }
}

fn is_nullif(node: &Node) -> bool {
    node.kind == "AExpr" && node.int("kind") == pg_query::protobuf::AExprKind::AexprNullif as i64
}
