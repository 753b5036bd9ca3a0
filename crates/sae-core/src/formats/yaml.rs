//! Configurations in YAML, as JSON values: within bounds, because aliases make small files large.

use crate::Error;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;
use tensor_files::read_bounded;

/// A configuration is a few kilobytes; the largest that training tools write beside weights are some hundred.
const MAX_BYTES: u64 = 4 << 20;
/// Values in the tree, those that aliases repeat counted each time.
const MAX_VALUES: usize = 100_000;
const MAX_DEPTH: usize = 64;

/// Reads a file that must hold one mapping.
pub(super) fn read_object(path: &Path) -> crate::Result<Map<String, Value>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let bad = |reason: String| Error::NotYaml { path: path.to_path_buf(), reason };
    let text = String::from_utf8(read_bounded(path, MAX_BYTES).map_err(io)?).map_err(|e| bad(e.to_string()))?;
    match parse(&text).map_err(bad)? {
        Value::Object(map) => Ok(map),
        other => Err(bad(format!("the file holds {}", crate::formats::json_keys::kind(&other)))),
    }
}

/// The first document of a text.
fn parse(text: &str) -> Result<Value, String> {
    let mut tree = Tree { events: Parser::new_from_str(text), anchors: HashMap::new(), values: 0 };
    loop {
        match tree.next()? {
            Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(Value::Null),
            event => return tree.value(event, 0),
        }
    }
}

struct Tree<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Values that were given a name, and how many values each holds.
    anchors: HashMap<usize, (Value, usize)>,
    values: usize,
}

impl<'a> Tree<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        let said = |error: ScanError| error.to_string();
        self.events.next().ok_or("the text ends too early")?.map(|(event, _)| event).map_err(said)
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values += values;
        if self.values > MAX_VALUES { Err(format!("more than {MAX_VALUES} values")) } else { Ok(()) }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} deep"));
        }
        let before = self.values;
        self.count(1)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (if plain { scalar(&text) } else { Value::from(text.as_ref()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => {
                let incomplete = "an alias of a value that is not complete";
                let size = self.anchors.get(&anchor).ok_or(incomplete)?.1;
                self.count(size)?;
                return Ok(self.anchors.get(&anchor).ok_or(incomplete)?.0.clone());
            }
            other => return Err(format!("{other:?} where a value is expected")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), self.values - before));
        }
        Ok(value)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::Array(items)),
                event => items.push(self.value(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(Value::Object(map)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err("a key that is not a scalar".into()),
            };
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            if map.insert(key.clone(), value).is_some() {
                return Err(format!("key `{key}` is there twice"));
            }
        }
    }
}

/// A plain scalar: null, a boolean, a number, else text. What is not finite stays text.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let whole = text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok().map(Value::from);
            let number = || text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Value::from);
            whole.or_else(number).unwrap_or_else(|| Value::from(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_configurations_hold() {
        let text = "a: 16\nb: \"16\"\nc: 0.37\nd: null\ne: ~\nf:\ng: True\nh: 1e-3\ni: text here # not this\nj:\n  - x\n  - k: {v: [1, 2]}\n";
        let expected = json!({"a": 16, "b": "16", "c": 0.37, "d": null, "e": null, "f": null, "g": true, "h": 1e-3,
            "i": "text here", "j": ["x", {"k": {"v": [1, 2]}}]});
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), Value::Null);
        assert_eq!(parse("a: &x [1]\nb: *x").unwrap(), json!({"a": [1], "b": [1]}));
    }

    #[test]
    fn what_would_grow_is_refused() {
        let mut laughs = String::from("a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n");
        for at in 1..10 {
            let before = format!("*a{}, ", at - 1).repeat(10);
            laughs += &format!("a{at}: &a{at} [{before}]\n");
        }
        assert!(parse(&laughs).unwrap_err().contains("more than 100000 values"));
        assert!(parse("a: &x [*x]").is_err());
        assert!(parse(&"[".repeat(60)).is_err());
        assert!(
            parse(&format!("{}1{}", "[".repeat(66), "]".repeat(66))).unwrap_err().contains("nested more than 64 deep")
        );
        // The parser has a bound of its own.
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"- ".repeat(100_000)).unwrap_err().contains("nested more than 64 deep"));
        assert!(parse("a: 1\na: 2").unwrap_err().contains("twice"));
        assert!(parse("a: [1").is_err());
        assert!(parse("? [1]\n: 2").unwrap_err().contains("scalar"));
    }
}
