//! Before reading: which field of a file holds the documents, and of what kind they are.

use super::files::{Format, Input, Kind};
use super::json_stream::Type;
use super::{DocumentOptions, ipc, jsonl, table};
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
    /// Fields of its own, in words.
    Fields(String),
    /// Something else, in words.
    Other(String),
}

/// In words, for a message that says what to do.
pub(super) const LIST_OF_TEXTS: &str = "a list of texts (join them to one text, or write a row for each)";

/// A field or column: the names that lead to it, and what it holds.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) keys: Vec<String>,
    pub(super) holds: Holds,
}

impl Column {
    fn name(&self) -> String {
        self.keys.join(".")
    }
}

/// All of a file.
pub(super) type Columns = Vec<Column>;

/// Finds the field with documents, and whether they are text or tokens.
pub(super) fn inspect(path: &Path, options: &DocumentOptions) -> Result<Input> {
    let mut input = Input::named(path.to_path_buf(), options.max_zstd_window_bytes)?;
    let some = |(name, kind)| (name, Some(kind));
    let wanted: Vec<(&str, Option<Kind>)> = match &options.field {
        Some(name) => vec![(name, None)],
        None if options.use_chat_formatting => CHAT_FIELDS.map(some).to_vec(),
        None => FIELDS.map(some).to_vec(),
    };
    if matches!(input.format, Format::Text | Format::JsonLines) {
        input.check_encoding()?;
    }
    let (place, columns) = match input.format {
        Format::Text if options.use_chat_formatting => {
            let (found, expected) = (format!("true for {}", path.display()), "files of JSON or Parquet".into());
            return Err(Error::Option { option: "use_chat_formatting", found, expected });
        }
        Format::Text => return Ok(input),
        Format::JsonLines => {
            let decided = |columns: &Columns| {
                let first = wanted.iter().find_map(|(name, _)| find(columns, name));
                first.is_none_or(|(_, column)| column.holds != Holds::Any)
            };
            jsonl::columns(&input, &|name| wanted.iter().any(|(wanted, _)| *wanted == name), decided)?
        }
        Format::Parquet => (Place::Schema, table::columns(&input)?),
        Format::Arrow => (Place::Schema, ipc::columns(&input)?),
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

pub(super) fn holds(kind: Type) -> Holds {
    match kind {
        Type::Text => Holds::One(Kind::Text),
        Type::List => Holds::One(Kind::Tokens),
        Type::EmptyList | Type::Null => Holds::Any,
        Type::Objects => Holds::One(Kind::Chat),
        Type::Texts => Holds::Other(LIST_OF_TEXTS.into()),
        Type::Object => Holds::Fields(kind.name().into()),
        Type::Number | Type::Boolean => Holds::Other(kind.name().into()),
    }
}

/// The column of this name: one of this very name before one inside of others. Where an object around it has held nothing so far, it may be
/// inside. Gives the keys that lead to it.
fn find<'c>(columns: &'c Columns, name: &str) -> Option<(Vec<String>, &'c Column)> {
    let named = columns.iter().filter(|column| column.name() == name).min_by_key(|column| column.keys.len());
    if let Some(column) = named {
        return Some((column.keys.clone(), column));
    }
    let keys: Vec<String> = name.split('.').map(str::to_string).collect();
    let around = |column: &&Column| {
        column.holds == Holds::Any && column.keys.len() < keys.len() && keys.starts_with(&column.keys)
    };
    columns.iter().find(around).map(|column| (keys.clone(), column))
}

/// The fields for a message; those inside of others in place of what is around them.
fn names(columns: &Columns) -> Vec<String> {
    let is_around =
        |keys: &[String]| columns.iter().any(|other| other.keys.len() > keys.len() && other.keys.starts_with(keys));
    columns.iter().filter(|column| !is_around(&column.keys)).map(Column::name).collect()
}

/// Takes the first wanted field that is there; of several, one that holds something.
fn choose(input: &mut Input, place: Place, columns: Columns, wanted: &[(&str, Option<Kind>)]) -> Result<()> {
    let mut there = wanted
        .iter()
        .filter_map(|(name, kind)| find(&columns, name).map(|(keys, column)| (*name, keys, *kind, &column.holds)));
    let Some(first) = there.next() else {
        let wanted: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let found = names(&columns);
        let path = input.path.clone();
        return Err(Error::MissingField { path, place, wanted: jsonl::quoted(&wanted), found: jsonl::quoted(&found) });
    };
    let (name, keys, expected, holds) =
        std::iter::once(first.clone()).chain(there).find(|(_, _, _, holds)| **holds != Holds::Any).unwrap_or(first);
    input.field = name.into();
    input.kind = expected.unwrap_or(Kind::Text);
    match holds {
        Holds::One(kind) if expected.is_none_or(|expected| expected == *kind) => input.kind = *kind,
        Holds::Any => {}
        Holds::One(kind) => return Err(input.wrong_type(place, kind.expected())),
        Holds::Other(other) => return Err(input.wrong_type(place, other)),
        Holds::Fields(other) => {
            let inside: Vec<Column> =
                columns.iter().filter(|c| c.keys.len() > keys.len() && c.keys.starts_with(&keys)).cloned().collect();
            let inside = jsonl::quoted(&names(&inside));
            return Err(input.wrong_type(place, format!("{other} with {inside}")));
        }
    }
    input.keys = keys;
    Ok(())
}
