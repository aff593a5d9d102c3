//! One generic tree for every node of the grammar.
//!
//! `pg_query`'s own visitor skips many fields (a FILTER clause, a policy's expression). Here each node is taken over
//! with all its fields through its `serde` form, so that a walker which visits all children can forget none: a kind
//! of node that nobody thought of is still descended into.

use serde::Serialize;
use serde::ser::{self, Impossible};

/// Deepest nesting that is analysed, in nodes of this tree. Beyond it the text is refused.
pub const LEVELS_MAX: usize = 12_000;

/// The kind of node that a literal is, and the field with its value.
const CONSTANT: &str = "AConst";
const CONSTANT_VALUE: &str = "val";

/// A node of the parse tree. Fields that are zero, false, empty or absent are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name of the grammar's struct: `SelectStmt`, `AExpr`.
    pub kind: &'static str,
    pub fields: Vec<(&'static str, Value)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Absent,
    Int(i64),
    Text(String),
    List(Vec<Value>),
    Node(Node),
}

/// Takes over a parsed statement. Fails when it is nested deeper than [`LEVELS_MAX`].
pub fn build(statement: &pg_query::Node) -> Result<Node, String> {
    match statement.serialize(Builder { level: 0 }).map_err(|e| e.0)? {
        Value::Node(node) => Ok(node),
        _ => Err("the statement has no content".to_owned()),
    }
}

impl Node {
    /// A constant's value is not among what can be asked for by name: see [`Node::constant`].
    fn field(&self, name: &str) -> Option<&Value> {
        #[cfg(test)]
        seen::check(self.kind, name);
        let is_value = self.kind == CONSTANT && name == CONSTANT_VALUE;
        self.fields.iter().find(|(n, _)| *n == name && !is_value).map(|(_, v)| v)
    }

    /// The value of a constant. Only [`super::walk::Walk`] asks for it, and notes that the literal matters.
    pub fn constant(&self) -> Option<&Node> {
        let value = self.fields.iter().find(|(n, _)| self.kind == CONSTANT && *n == CONSTANT_VALUE);
        value.and_then(|(_, v)| v.as_node())
    }

    /// The names of the fields that are there.
    pub fn field_names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|(name, _)| *name)
    }

    /// A field that says no more than that there is nothing of its kind.
    pub fn is_neutral(&self, name: &str) -> bool {
        matches!((name, self.int(name)), ("limit_option", 1) | ("op", 1))
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.field(name).and_then(Value::as_node)
    }

    /// As [`Node::node`], for callers that look at nodes of several kinds: the field may not exist.
    pub fn node_if(&self, name: &str) -> Option<&Node> {
        self.fields.iter().find(|(n, _)| *n == name).and_then(|(_, v)| v.as_node())
    }

    /// As [`Node::int`], for callers that look at nodes of several kinds.
    pub fn int_if(&self, name: &str) -> i64 {
        if self.fields.iter().any(|(n, _)| *n == name) { self.int(name) } else { 0 }
    }

    /// As [`Node::name_parts`], for callers that look at nodes of several kinds.
    pub fn name_parts_if(&self, name: &str) -> Vec<&str> {
        if self.fields.iter().any(|(n, _)| *n == name) { self.name_parts(name) } else { Vec::new() }
    }

    /// The nodes of a list; empty when the field is absent or no list.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &Node> + Clone + use<'_> {
        match self.field(name) {
            Some(Value::List(values)) => values.as_slice(),
            _ => &[],
        }
        .iter()
        .filter_map(Value::as_node)
    }

    /// The text of a field; empty when absent.
    pub fn text(&self, name: &str) -> &str {
        match self.field(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The number of a field (flags are 1, enumerations their protobuf number); 0 when absent.
    pub fn int(&self, name: &str) -> i64 {
        match self.field(name) {
            Some(Value::Int(number)) => *number,
            _ => 0,
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        self.int(name) != 0
    }

    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// The strings of a list of `String` nodes: a dotted name.
    pub fn name_parts(&self, name: &str) -> Vec<&str> {
        self.list(name).filter(|n| n.kind == "String").map(|n| n.text("sval")).collect()
    }

    /// Every node directly below, lists opened; none below a constant.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.fields
            .iter()
            .filter(|_| self.kind != CONSTANT)
            .flat_map(|(_, value)| match value {
                Value::List(values) => values.as_slice(),
                single => std::slice::from_ref(single),
            })
            .filter_map(Value::as_node)
    }
}

impl Value {
    fn as_node(&self) -> Option<&Node> {
        match self {
            Value::Node(node) => Some(node),
            _ => None,
        }
    }

    fn is_default(&self) -> bool {
        match self {
            Value::Absent | Value::Int(0) => true,
            Value::Text(text) => text.is_empty(),
            Value::List(values) => values.is_empty(),
            _ => false,
        }
    }
}

/// Too deep, or a form that the grammar's structs do not have today.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[derive(Clone, Copy)]
struct Builder {
    level: usize,
}

struct Fields {
    node: Node,
    level: usize,
}

struct Items {
    values: Vec<Value>,
    level: usize,
}

fn foreign<T>(form: &str) -> Result<T, Refused> {
    Err(Refused(format!("the grammar gave a {form}, which is not known here")))
}

impl ser::SerializeStruct for Fields {
    type Ok = Value;
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Refused> {
        #[cfg(test)]
        seen::note(self.node.kind, name);
        let value = value.serialize(Builder { level: self.level })?;
        if !value.is_default() {
            self.node.fields.push((name, value));
        }
        Ok(())
    }

    /// `Node { node: Some(X) }` is only a wrapper of the protobuf form: X itself stands for it.
    fn end(mut self) -> Result<Value, Refused> {
        match self.node.kind {
            "Node" => Ok(self.node.fields.pop().map_or(Value::Absent, |(_, value)| value)),
            _ => Ok(Value::Node(self.node)),
        }
    }
}

impl ser::SerializeSeq for Items {
    type Ok = Value;
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.values.push(value.serialize(Builder { level: self.level })?);
        Ok(())
    }

    fn end(self) -> Result<Value, Refused> {
        Ok(Value::List(self.values))
    }
}

impl ser::Serializer for Builder {
    type Ok = Value;
    type Error = Refused;
    type SerializeSeq = Items;
    type SerializeTuple = Impossible<Value, Refused>;
    type SerializeTupleStruct = Impossible<Value, Refused>;
    type SerializeTupleVariant = Impossible<Value, Refused>;
    type SerializeMap = Impossible<Value, Refused>;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Value, Refused>;

    fn serialize_struct(self, kind: &'static str, _: usize) -> Result<Fields, Refused> {
        let level = self.level + 1;
        if level > LEVELS_MAX {
            return Err(Refused(format!("nested deeper than {LEVELS_MAX} levels")));
        }
        Ok(Fields { node: Node { kind, fields: Vec::new() }, level })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<Value, Refused> {
        Ok(Value::Absent)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items, Refused> {
        Ok(Items { values: Vec::with_capacity(len.unwrap_or(0)), level: self.level })
    }

    fn serialize_str(self, v: &str) -> Result<Value, Refused> {
        Ok(Value::Text(v.to_owned()))
    }

    fn serialize_bool(self, v: bool) -> Result<Value, Refused> {
        Ok(Value::Int(v.into()))
    }

    fn serialize_i32(self, v: i32) -> Result<Value, Refused> {
        Ok(Value::Int(v.into()))
    }

    fn serialize_i64(self, v: i64) -> Result<Value, Refused> {
        Ok(Value::Int(v))
    }

    fn serialize_u32(self, v: u32) -> Result<Value, Refused> {
        Ok(Value::Int(v.into()))
    }

    /// Only sets of planner numbers are of this width; raw trees have none, so the sign does not matter.
    fn serialize_u64(self, v: u64) -> Result<Value, Refused> {
        Ok(Value::Int(v.cast_signed()))
    }

    /// Only the planner's costs and row estimates are floating; a raw tree leaves them at zero.
    fn serialize_f64(self, v: f64) -> Result<Value, Refused> {
        Ok(Value::Int(v as i64))
    }

    fn serialize_i8(self, _: i8) -> Result<Value, Refused> {
        foreign("i8")
    }
    fn serialize_i16(self, _: i16) -> Result<Value, Refused> {
        foreign("i16")
    }
    fn serialize_u8(self, _: u8) -> Result<Value, Refused> {
        foreign("u8")
    }
    fn serialize_u16(self, _: u16) -> Result<Value, Refused> {
        foreign("u16")
    }
    fn serialize_f32(self, _: f32) -> Result<Value, Refused> {
        foreign("f32")
    }
    fn serialize_char(self, _: char) -> Result<Value, Refused> {
        foreign("char")
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Value, Refused> {
        foreign("byte string")
    }
    fn serialize_unit(self) -> Result<Value, Refused> {
        foreign("unit")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Refused> {
        foreign("unit struct")
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Value, Refused> {
        foreign("unit variant")
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Refused> {
        foreign("tuple")
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Refused> {
        foreign("tuple struct")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Refused> {
        foreign("tuple variant")
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Refused> {
        foreign("map")
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Refused> {
        foreign("struct variant")
    }
}

/// A misspelt field name would silently read as absent; in tests it panics.
#[cfg(test)]
mod seen {
    use std::cell::RefCell;
    use std::collections::HashSet;

    thread_local!(static FIELDS: RefCell<HashSet<(&'static str, &'static str)>> = RefCell::default());

    pub fn note(kind: &'static str, field: &'static str) {
        FIELDS.with_borrow_mut(|fields| fields.insert((kind, field)));
    }

    pub fn check(kind: &'static str, field: &str) {
        let known = FIELDS.with_borrow(|fields| fields.iter().any(|f| *f == (kind, field)));
        assert!(known, "{kind} has no field {field}");
    }
}
