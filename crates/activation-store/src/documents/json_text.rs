//! Re-serializes a JSON value with its key order kept, for chat templates.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt::{self, Write};

/// JSON without the whitespace that was between its values.
pub(super) struct JsonText(pub(super) String);

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyText)
    }
}

struct AnyText;

fn text<E>(value: impl fmt::Display) -> Result<JsonText, E> {
    Ok(JsonText(value.to_string()))
}

impl<'de> Visitor<'de> for AnyText {
    type Value = JsonText;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, value: &str) -> Result<JsonText, E> {
        text(serde_json::Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<JsonText, E> {
        text("null")
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonText, E> {
        text(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonText, E> {
        text(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonText, E> {
        text(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonText, E> {
        text(format_args!("{value:?}"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<JsonText, A::Error> {
        let mut out = String::from("[");
        while let Some(JsonText(element)) = list.next_element()? {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&element);
        }
        out.push(']');
        Ok(JsonText(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonText, A::Error> {
        let mut out = String::from("{");
        while let Some((name, JsonText(value))) = map.next_entry::<String, JsonText>()? {
            if out.len() > 1 {
                out.push(',');
            }
            // Writing to a string cannot fail.
            let _ = write!(out, "{}:{value}", serde_json::Value::from(name));
        }
        out.push('}');
        Ok(JsonText(out))
    }
}
