//! One object of JSON that is whole in memory: finds one field, passes over the others without building them.

use super::files::{Input, Kind};
use super::json_fields;
use super::json_stream::Type;
use super::json_text::JsonText;
use super::jsonl::Fault;
use super::non_finite;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// What the field holds.
pub(super) enum Document {
    Text(String),
    Tokens(Vec<u32>),
    /// A conversation, as JSON.
    Chat(String),
    Null,
}

/// Reads the document in an object.
pub(super) fn parse(line: &str, input: &Input) -> Result<Document, Fault> {
    match strict(line, input) {
        // Rare, so that only a line that is no JSON is searched for it.
        Err(fault @ Fault::Syntax { .. }) => match non_finite::as_null(line) {
            Some(line) => strict(&line, input),
            None => Err(fault),
        },
        outcome => outcome,
    }
}

fn strict(line: &str, input: &Input) -> Result<Document, Fault> {
    if line.trim_ascii() == "null" {
        return Ok(Document::Null);
    }
    let mut json = serde_json::Deserializer::from_str(line);
    let found = json
        .deserialize_map(Line { keys: &input.keys, kind: input.kind })
        .and_then(|found| json.end().map(|()| found))
        .map_err(syntax)?;
    match (found, input.kind) {
        (Found::Nothing, _) => Err(missing(line)),
        (Found::Twice, _) => Err(Fault::Repeated),
        (Found::NoObject(found), _) => Err(Fault::NoObject(found)),
        (Found::Once(Value::Other(Type::Null)), _) => Ok(Document::Null),
        (Found::Once(Value::Text(text)), Kind::Text) => Ok(Document::Text(text)),
        (Found::Once(Value::Tokens(ids)), Kind::Tokens) => Ok(Document::Tokens(ids)),
        (Found::Once(Value::NotAToken { index, found }), Kind::Tokens) => Err(Fault::NotAToken { index, found }),
        (Found::Once(Value::Raw(json)), _) => match json.bytes().next() {
            Some(b'n') => Ok(Document::Null),
            Some(b'[') => Ok(Document::Chat(json)),
            Some(b'"') if input.text_is_user => Ok(Document::Chat(json)),
            first => Err(Fault::WrongType(raw_type(first).name().into())),
        },
        (Found::Once(value), _) => Err(Fault::WrongType(value.name().into())),
    }
}

/// The type of a value that begins so.
fn raw_type(first: Option<u8>) -> Type {
    match first {
        Some(b'"') => Type::Text,
        Some(b'[') => Type::List,
        Some(b'{') => Type::Object,
        Some(b't' | b'f') => Type::Boolean,
        Some(b'n') | None => Type::Null,
        Some(_) => Type::Number,
    }
}

fn syntax(error: serde_json::Error) -> Fault {
    let text = error.to_string();
    // The parser counts lines too, but it sees one only.
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_string();
    Fault::Syntax { column: error.column() as u64, reason }
}

fn missing(line: &str) -> Fault {
    let names = json_fields::fields(&mut line.as_bytes(), &|_| false);
    let names = names.ok().flatten().unwrap_or_default().into_iter().filter(|(_, kind)| *kind != Type::Object);
    Fault::Missing { found: names.map(|(keys, _)| keys.join(".")).collect() }
}

enum Found {
    Nothing,
    Once(Value),
    Twice,
    /// Something else where an object should be around the field.
    NoObject(Type),
}

enum Value {
    Text(String),
    Tokens(Vec<u32>),
    NotAToken {
        index: u64,
        found: String,
    },
    /// A number: the token id that it is, or else how it reads.
    Number(Result<u32, String>),
    Other(Type),
    /// Any value, as JSON.
    Raw(String),
}

impl Value {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => Type::Text.name(),
            Self::Tokens(_) | Self::NotAToken { .. } => Type::List.name(),
            Self::Number(_) => Type::Number.name(),
            Self::Other(other) => other.name(),
            Self::Raw(json) => raw_type(json.bytes().next()).name(),
        }
    }
}

/// An object, of which one field matters, or one inside of another.
struct Line<'f> {
    keys: &'f [String],
    kind: Kind,
}

impl<'de> DeserializeSeed<'de> for Line<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Line<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with one document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let (key, inner) = self.keys.split_first().map_or(("", &[][..]), |(key, inner)| (key.as_str(), inner));
        let (mut found, mut seen) = (Found::Nothing, false);
        while let Some(wanted) = map.next_key_seed(IsName(key))? {
            if !wanted {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = match self.kind {
                _ if !inner.is_empty() => map.next_value_seed(Line { keys: inner, kind: self.kind })?,
                Kind::Chat => Found::Once(Value::Raw(map.next_value::<JsonText>()?.0)),
                Kind::Text | Kind::Tokens => Found::Once(map.next_value_seed(AnyValue)?),
            };
            found = if seen { Found::Twice } else { value };
            seen = true;
        }
        Ok(found)
    }

    // What follows is asked of objects inside alone.

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Once(Value::Other(Type::Null)))
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::NoObject(Type::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::NoObject(Type::List))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::NoObject(Type::Boolean))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::NoObject(Type::Number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::NoObject(Type::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::NoObject(Type::Number))
    }
}

/// Whether a name is this one.
struct IsName<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// The value of the field: a wrong one is not this visitor's business, but is remembered by name.
struct AnyValue;

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut ids = Vec::new();
        while let Some(element) = list.next_element_seed(AnyValue)? {
            let found = match element {
                Value::Number(Ok(id)) => {
                    ids.push(id);
                    continue;
                }
                Value::Number(Err(number)) => number,
                other => other.name().into(),
            };
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::NotAToken { index: ids.len() as u64, found });
        }
        Ok(Value::Tokens(ids))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other(Type::Object))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other(Type::Null))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other(Type::Boolean))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.try_into().map_err(|_| number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(Err(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(Err(format!("{number:?}"))))
    }
}
