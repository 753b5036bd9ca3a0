//! Which fields an object of JSON has, and of what types, as it streams by.

use super::json_stream::{Json, Type, reader};
use super::jsonl::Fault;
use std::io::Read;
use struson::reader::{JsonReader, ValueType};

/// Fields that are remembered of a record, beside those that matter, and how deep objects are looked into.
pub(super) const MAX_FIELDS: usize = 1024;
const MAX_DEPTH: usize = 16;

/// Fields: the names that lead to each, and its type.
pub(super) type Fields = Vec<(Vec<String>, Type)>;

/// The names and types of an object's fields, those of the objects inside among them; the values are skipped. `None` where there is `null`
/// instead of an object. `keep` says which names matter, however many there are.
pub(super) fn fields<R: Read>(record: &mut R, keep: &dyn Fn(&str) -> bool) -> Result<Option<Fields>, Fault> {
    let mut json = reader(record);
    let mut found = Fields::new();
    if json.peek()? == ValueType::Null {
        json.next_null()?;
        json.consume_trailing_whitespace()?;
        return Ok(None);
    }
    fields_inside(&mut json, &[], keep, &mut found)?;
    json.consume_trailing_whitespace()?;
    Ok(Some(found))
}

fn fields_inside<R: Read>(
    json: &mut Json<R>,
    around: &[String],
    keep: &dyn Fn(&str) -> bool,
    found: &mut Fields,
) -> Result<(), Fault> {
    json.begin_object()?;
    while json.has_next()? {
        let mut keys = around.to_vec();
        keys.push(json.next_name_owned()?);
        let is_kept = found.len() < MAX_FIELDS || keep(&keys.join("."));
        let first = json.peek()?;
        if is_kept && first == ValueType::Object && keys.len() < MAX_DEPTH {
            found.push((keys.clone(), Type::Object));
            fields_inside(json, &keys, keep, found)?;
            continue;
        }
        let kind = match first {
            ValueType::Array => list_type(json)?,
            other => {
                json.skip_value()?;
                other.into()
            }
        };
        if is_kept {
            found.push((keys, kind));
        }
    }
    json.end_object()?;
    Ok(())
}

/// What a list begins with; all of it is passed over.
fn list_type<R: Read>(json: &mut Json<R>) -> Result<Type, Fault> {
    json.begin_array()?;
    let mut kind = Type::EmptyList;
    while json.has_next()? {
        let element = match json.peek()? {
            ValueType::Object => Type::Objects,
            ValueType::String => Type::Texts,
            _ => Type::List,
        };
        kind = kind.or(element);
        json.skip_value()?;
    }
    json.end_array()?;
    Ok(kind)
}
