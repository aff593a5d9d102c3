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

/// The name of a result column (`FigureColname` of the server): `None` where it would be `?column?` or is not followed
/// here. A column of unknown name only makes later lookups of it unknown.
pub fn of_target(target: &Node) -> Option<String> {
    let given = target.text("name");
    if given.is_empty() { target.node("val").and_then(of_expression) } else { Some(given.to_owned()) }
}

fn of_expression(node: &Node) -> Option<String> {
    let last = |parts: Vec<&str>| parts.last().map(|p| (*p).to_owned());
    match node.kind {
        "ColumnRef" => last(node.name_parts("fields")),
        "FuncCall" => last(node.name_parts("funcname")),
        "TypeCast" => {
            let inner = node.node("arg").and_then(of_expression);
            inner.or_else(|| node.node("type_name").and_then(|t| last(t.name_parts("names"))))
        }
        "CollateClause" => node.node("arg").and_then(of_expression),
        "SubLink" if node.int("sub_link_type") == pg_query::protobuf::SubLinkType::ExprSublink as i64 => {
            let select = node.node("subselect").filter(|s| s.kind == "SelectStmt")?;
            let first = select.list("target_list").next()?;
            of_target(first)
        }
        "AExpr" | "AConst" | "BoolExpr" | "ParamRef" | "NullTest" | "BooleanTest" if !is_nullif(node) => {
            Some("?column?".to_owned())
        }
        "CoalesceExpr" => Some("coalesce".to_owned()),
        "RowExpr" => Some("row".to_owned()),
        "AArrayExpr" => Some("array".to_owned()),
        _ => None,
    }
}

fn is_nullif(node: &Node) -> bool {
    node.kind == "AExpr" && node.int("kind") == pg_query::protobuf::AExprKind::AexprNullif as i64
}
