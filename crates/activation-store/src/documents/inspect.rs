//! Before reading: which field of a file holds the documents, and of what kind they are.

use super::files::{Format, Input, Kind};
use super::json_stream::Type;
use super::{DocumentOptions, jsonl, table};
use crate::{Error, Place, Result};
use std::path::Path;

/// Fields that hold documents, in SAELens' order: the first that is there is taken.
const FIELDS: [(&str, Kind); 7] = [
    ("tokens", Kind::Tokens),
    ("input_ids", Kind::Tokens),
    ("text", Kind::Text),
    ("problem", Kind::Text),
    ("conversation", Kind::Chat),
    ("conversations", Kind::Chat),
    ("messages", Kind::Chat),
];
/// SAELens' order under `use_chat_formatting`.
const CHAT_FIELDS: [(&str, Kind); 4] =
    [("conversation", Kind::Chat), ("conversations", Kind::Chat), ("messages", Kind::Chat), ("text", Kind::Text)];

/// The kinds of documents that a field may hold. A field with nothing in it so far may hold any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    One(Kind),
    Any,
    /// Something else, in words.
    Other(String),
}

/// The names of fields or columns, and what each holds.
pub(super) type Columns = Vec<(String, Holds)>;

/// Finds the field with documents, and whether they are text or tokens.
pub(super) fn inspect(path: &Path, options: &DocumentOptions) -> Result<Input> {
    let mut input = Input::named(path.to_path_buf(), options.max_zstd_window_bytes)?;
    let some = |(name, kind)| (name, Some(kind));
    let wanted: Vec<(&str, Option<Kind>)> = match &options.field {
        Some(name) => vec![(name, None)],
        None if options.use_chat_formatting => CHAT_FIELDS.map(some).to_vec(),
        None => FIELDS.map(some).to_vec(),
    };
    if input.format != Format::Parquet {
        input.check_encoding()?;
    }
    let (place, columns) = match input.format {
        Format::Text if options.use_chat_formatting => {
            let (found, expected) = (format!("true for {}", path.display()), "files of JSON or Parquet".into());
            return Err(Error::Option { option: "use_chat_formatting", found, expected });
        }
        Format::Text => return Ok(input),
        Format::JsonLines => {
            let decided = |fields: &[(String, Type)]| {
                let first = wanted.iter().find_map(|(name, _)| fields.iter().find(|(field, _)| field == name));
                first.is_none_or(|(_, kind)| !matches!(kind, Type::Null | Type::EmptyList))
            };
            let (place, fields) = jsonl::fields(&input, decided)?;
            (place, fields.into_iter().map(|(name, kind)| (name, holds(kind))).collect())
        }
        Format::Parquet => (Place::Schema, table::columns(&input)?),
    };
    choose(&mut input, place, columns, &wanted)?;
    if options.use_chat_formatting && input.kind == Kind::Text {
        (input.kind, input.text_is_user) = (Kind::Chat, true);
    }
    if input.kind == Kind::Chat {
        input.chat.clone_from(&options.chat_template);
        if input.chat.is_none() {
            return Err(Error::NoChatTemplate { path: input.path, field: input.field });
        }
    }
    Ok(input)
}

fn holds(kind: Type) -> Holds {
    match kind {
        Type::Text => Holds::One(Kind::Text),
        Type::List => Holds::One(Kind::Tokens),
        Type::EmptyList | Type::Null => Holds::Any,
        Type::Objects => Holds::One(Kind::Chat),
        Type::Object | Type::Number | Type::Boolean => Holds::Other(kind.name().into()),
    }
}

/// Takes the first wanted field that is there; of several, one that holds something.
fn choose(input: &mut Input, place: Place, columns: Columns, wanted: &[(&str, Option<Kind>)]) -> Result<()> {
    let mut there = wanted.iter().filter_map(|(name, kind)| {
        columns.iter().find(|(column, _)| column == name).map(|(column, holds)| (column, *kind, holds))
    });
    let Some(first) = there.next() else {
        let wanted: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let found: Vec<&String> = columns.iter().map(|(name, _)| name).collect();
        let path = input.path.clone();
        return Err(Error::MissingField { path, place, wanted: jsonl::quoted(&wanted), found: jsonl::quoted(&found) });
    };
    let (name, expected, holds) =
        std::iter::once(first).chain(there).find(|(_, _, holds)| **holds != Holds::Any).unwrap_or(first);
    input.field.clone_from(name);
    input.kind = expected.unwrap_or(Kind::Text);
    match holds {
        Holds::One(kind) if expected.is_none_or(|expected| expected == *kind) => input.kind = *kind,
        Holds::Any => {}
        Holds::One(kind) => return Err(input.wrong_type(place, kind.expected())),
        Holds::Other(other) => return Err(input.wrong_type(place, other)),
    }
    Ok(())
}
