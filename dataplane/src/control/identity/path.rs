//! Where in a token a claim stands: names of nested objects, fixed by the configuration and never guessed from the token.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The names that lead to a claim. Without any the claim is never there.
///
/// Written as `"realm_access.roles"` (dots part the names), as a JSON Pointer `"/realm_access/roles"` (RFC 6901), or as a
/// list of names that may hold any character: `["https://example.com/roles"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct ClaimPath(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a claim is a text such as \"realm_access.roles\" or \"/a/b\", or a list of names")]
enum Written {
    Text(String),
    Names(Vec<String>),
}

impl ClaimPath {
    /// # Errors
    /// The text names no claim, or could be meant in two ways.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(pointer) = text.strip_prefix('/') {
            return pointer.split('/').map(unescape).collect::<Result<_, _>>().map(Self);
        }
        if text.contains("://") {
            return Err(format!("claim `{text}`: its dots could part names; write it as a list: [\"{text}\"]"));
        }
        match text.split('.').any(str::is_empty) {
            true => Err(format!("claim `{text}`: a name between its dots is empty")),
            false => Ok(Self(text.split('.').map(str::to_owned).collect())),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is this one claim at the top of the token.
    pub fn is(&self, name: &str) -> bool {
        matches!(&self.0[..], [only] if only == name)
    }

    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (last, objects) = self.0.split_last()?;
        objects.iter().try_fold(claims, |object, name| object.get(name)?.as_object())?.get(last)
    }
}

impl TryFrom<Written> for ClaimPath {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Text(text) => Self::parse(&text),
            Written::Names(names) => Ok(Self(names)),
        }
    }
}

/// A name of a JSON Pointer: `~1` is a slash, `~0` a tilde.
fn unescape(name: &str) -> Result<String, String> {
    let mut rest = name.split('~');
    let mut out = rest.next().unwrap_or_default().to_owned();
    for part in rest {
        match part.split_at_checked(1) {
            Some(("0", tail)) => out.extend(["~", tail]),
            Some(("1", tail)) => out.extend(["/", tail]),
            _ => return Err(format!("claim `/{name}`: after ~ stands 0 or 1 (RFC 6901)")),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Deserialize)]
    struct Holder {
        claim: ClaimPath,
    }

    fn read(written: &str) -> Result<ClaimPath, String> {
        toml::from_str::<Holder>(&format!("claim = {written}")).map(|h| h.claim).map_err(|e| e.to_string())
    }

    #[test]
    fn each_way_of_writing_leads_to_one_claim_and_no_other() {
        let claims = json!({
            "roles": "top",
            "realm_access": {"roles": "nested"},
            "realm_access.roles": "a name with a dot",
            "https://example.com/roles": "namespaced",
            "a": {"b/c": {"~": "escaped"}, "": "empty name"},
            "list": [{"roles": "in a list"}],
        });
        let claims = claims.as_object().expect("an object");
        for (written, found) in [
            ("'roles'", Some("top")),
            ("'realm_access.roles'", Some("nested")),
            ("'/realm_access/roles'", Some("nested")),
            ("['realm_access', 'roles']", Some("nested")),
            ("['realm_access.roles']", Some("a name with a dot")),
            ("'/realm_access.roles'", Some("a name with a dot")),
            ("['https://example.com/roles']", Some("namespaced")),
            ("'/https:~1~1example.com~1roles'", Some("namespaced")),
            ("'/a/b~1c/~0'", Some("escaped")),
            ("'/a/'", Some("empty name")),
            ("[]", None),
            ("'absent'", None),
            ("'roles.more'", None),
            ("'list.0.roles'", None),
        ] {
            let path = read(written).unwrap_or_else(|why| panic!("{written}: {why}"));
            assert_eq!(path.find(claims).and_then(Value::as_str), found, "{written}");
        }
    }

    #[test]
    fn what_could_be_meant_in_two_ways_is_refused() {
        for (written, why) in [
            ("'https://example.com/roles'", "write it as a list"),
            ("''", "is empty"),
            ("'a..b'", "is empty"),
            ("'.a'", "is empty"),
            ("'/a~2b'", "RFC 6901"),
            ("'/a~'", "RFC 6901"),
            ("7", "a claim is a text"),
        ] {
            let complaint = read(written).expect_err(written);
            assert!(complaint.contains(why), "{written}: {complaint}");
        }
    }
}
