//! The parts of a signed JWT in compact form, read strictly (RFC 7515 section 7.1, RFC 8725).

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

pub type Object = Map<String, Value>;

/// The longest header that is looked at, bytes.
const HEADER_BYTES_MAX: usize = 4096;

/// A token whose signature nobody has checked yet.
pub struct Jwt<'a> {
    pub header: Object,
    pub claims: Object,
    /// What the signature is over.
    pub signed: &'a str,
    pub signature: &'a str,
}

impl<'a> Jwt<'a> {
    /// # Errors
    /// Why it is not a signed JWT.
    pub fn parse(token: &'a [u8]) -> Result<Self, &'static str> {
        const WRONG: &str = "the token is not a JWT";
        let token = std::str::from_utf8(token).map_err(|_| WRONG)?;
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the token is not a signed JWT: give an identity token as the password");
        };
        if header.len() > HEADER_BYTES_MAX {
            return Err("the token's header is too long");
        }
        let signed = &token[..header.len() + 1 + claims.len()];
        let object = |part| decode_base64url(part).and_then(|bytes| parse_object(&bytes)).ok_or(WRONG);
        Ok(Self { header: object(header)?, claims: object(claims)?, signed, signature })
    }
}

/// A claim that must be a text where it is there.
///
/// # Errors
/// It is something else.
pub fn string<'a>(claims: &'a Object, name: &str) -> Result<Option<&'a str>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a claim of the token has the wrong type"),
    }
}

/// A JSON object in which no name stands twice, at any depth: of two values, readers could take either.
pub fn parse_object(bytes: &[u8]) -> Option<Object> {
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Object(object))) => Some(object),
        _ => None,
    }
}

/// Base64url without padding (RFC 4648 section 5), canonical only.
fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(out)
}

struct Strict(Value);

impl<'de> de::Deserialize<'de> for Strict {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique).map(Strict)
    }
}

struct Unique;

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_read_as_it_stands_and_refused_where_a_name_stands_twice() {
        let whole = json!({"a": [null, true, -1, 1.5, u64::MAX, {"b": "x\n"}], "c": {"a": {}}});
        assert_eq!(parse_object(whole.to_string().as_bytes()).map(Value::Object), Some(whole));
        for refused in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"roles":[],"roles":["dba"]}}"#,
            r#"{"a":[{"b":1,"\u0062":2}]}"#,
            r#"{"a":1e999}"#,
            r#"{"a":1} x"#,
            "[]",
            "7",
            "",
        ] {
            assert_eq!(parse_object(refused.as_bytes()), None, "{refused}");
        }
        let deep = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        assert_eq!(parse_object(deep.as_bytes()), None, "nested without end");
    }

    #[test]
    fn base64url_has_one_way_of_writing() {
        for (text, bytes) in [("", Some(&b""[..])), ("Zg", Some(b"f")), ("Zm8", Some(b"fo")), ("Zm9v", Some(b"foo"))] {
            assert_eq!(decode_base64url(text).as_deref(), bytes, "{text}");
        }
        for refused in ["Z", "Zh", "Zg==", "Zm9v\n", "Zm+/", "Zm9vZ"] {
            assert_eq!(decode_base64url(refused), None, "{refused}");
        }
    }
}
