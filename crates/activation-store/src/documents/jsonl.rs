//! JSON: one object a line, or a list of objects, one document in one field of each.
//!
//! An object that fits into a piece is parsed whole ([`super::json_line`]); a longer one is parsed as it streams by
//! ([`super::json_stream`]), so that no line has to fit into memory.

use super::emit::{Emitter, Stop};
use super::files::Input;
use super::inspect::{Column, Columns, holds};
use super::records::{At, Body, Records};
use super::{json_fields, json_line, json_stream};
use crate::{DocId, Error, Place};

/// What is wrong with a line; [`Fault::locate`] adds where.
pub(super) enum Fault {
    Syntax {
        column: u64,
        reason: String,
    },
    Missing {
        found: Vec<String>,
    },
    Repeated,
    WrongType(String),
    /// The field is inside of an object, and there is this instead of one.
    NoObject(json_stream::Type),
    NotAToken {
        index: u64,
        found: String,
    },
}

impl Fault {
    pub(super) fn locate(self, input: &Input, place: Place) -> Error {
        let (path, field) = (input.path.clone(), input.field.clone());
        match self {
            Self::Syntax { column, reason } => Error::Json { path, place, column, reason },
            Self::Missing { found } => {
                Error::MissingField { path, place, wanted: quoted(&[field]), found: quoted(&found) }
            }
            Self::Repeated => Error::RepeatedField { path, place, field },
            Self::WrongType(found) => input.wrong_type(place, found),
            Self::NoObject(found) => {
                input.wrong_type(place, format!("nothing: there is {} in place of an object around it", found.name()))
            }
            Self::NotAToken { index, found } => Error::NotAToken { path, place, field, index, found },
        }
    }
}

/// Names for a message: the first few, shortened.
pub(super) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 12;
    let mut list: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", name.as_ref().chars().take(40).collect::<String>()))
        .collect();
    if names.len() > SHOWN {
        list.push(format!("and {} more", names.len() - SHOWN));
    }
    if list.is_empty() { "no fields".into() } else { list.join(", ") }
}

pub(super) fn read(input: &Input, file: u32, out: &mut Emitter) -> Result<(), Stop> {
    let mut records = Records::open(input)?;
    let mut record = Vec::new();
    loop {
        let outcome = records.next(&mut record, out.max_piece_bytes, |at, body| {
            let doc = DocId { file, ordinal: at.ordinal };
            match body {
                Body::Whole(record) => whole(input, at, doc, record, out),
                Body::Long(long) => json_stream::read(long, input, at.place, doc, out),
            }
        });
        match outcome? {
            Some(outcome) => outcome?,
            None => return Ok(()),
        }
    }
}

fn whole(input: &Input, at: At, doc: DocId, record: &[u8], out: &mut Emitter) -> Result<(), Stop> {
    let text = utf8(input, at, record)?;
    if text.bytes().all(|b| b.is_ascii_whitespace()) {
        return Ok(());
    }
    match json_line::parse(text, input).map_err(|fault| fault.locate(input, at.place))? {
        json_line::Document::Text(text) => out.text(doc, text),
        json_line::Document::Tokens(ids) => out.tokens(doc, &ids),
        json_line::Document::Chat(json) => out.conversation(input, at.place, doc, &json),
        json_line::Document::Null => {
            out.left_out.null_documents += 1;
            Ok(())
        }
    }
}

fn utf8<'r>(input: &Input, at: At, record: &'r [u8]) -> crate::Result<&'r str> {
    std::str::from_utf8(record).map_err(|e| input.not_utf8(at.place, format!(", column {}", e.valid_up_to() + 1)))
}

/// Records that are looked at for the field of documents, and what is read of one at a time.
const PROBED: usize = 1000;
const PROBED_BYTES: usize = 64 << 10;

/// The fields of the first records, in their order, and of each the first type that says something; and where the first record is.
///
/// `keep` says which names matter, however many there are; `enough` ends the search early.
///
/// # Errors
/// A file of nothing but blank lines or nulls; a record that is not an object.
pub(super) fn columns(
    input: &Input,
    keep: &dyn Fn(&str) -> bool,
    enough: impl Fn(&Columns) -> bool,
) -> crate::Result<(Place, Columns)> {
    let mut records = Records::open(input)?;
    let mut found = json_fields::Fields::new();
    let (mut record, mut first) = (Vec::new(), None);
    let columns = |found: &json_fields::Fields| -> Columns {
        found.iter().map(|(keys, kind)| Column { keys: keys.clone(), holds: holds(*kind) }).collect()
    };
    for _ in 0..PROBED {
        let next = records.next(&mut record, PROBED_BYTES, |at, body| {
            let fields = match body {
                Body::Whole(record) => match utf8(input, at, record)?.trim_ascii() {
                    "" => Ok(None),
                    text => json_fields::fields(&mut text.as_bytes(), keep),
                },
                Body::Long(long) => json_fields::fields(long, keep),
            };
            Ok::<_, Error>((at.place, fields.map_err(|fault| fault.locate(input, at.place))))
        });
        let Some(outcome) = next? else { break };
        let (place, fields) = outcome?;
        let Some(fields) = fields? else { continue };
        first.get_or_insert(place);
        for (keys, kind) in fields {
            match found.iter_mut().find(|(known, _)| *known == keys) {
                Some((_, known)) => *known = known.or(kind),
                None => found.push((keys, kind)),
            }
        }
        if enough(&columns(&found)) {
            break;
        }
    }
    let first = first.ok_or_else(|| Error::EmptyFile { path: input.path.clone() })?;
    Ok((first, columns(&found)))
}
