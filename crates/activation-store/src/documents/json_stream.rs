//! An object of JSON as it streams by: strings and lists of any length in bounded memory.
//!
//! Names of fields are read whole; all else is passed on in chunks or skipped.

use super::emit::{Cutter, Emitter, Stop, Utf8};
use super::files::{Input, Kind};
use super::json_fields::MAX_FIELDS;
use super::jsonl::Fault;
use super::non_finite::NonFiniteAsNull;
use super::records::LongRecord;
use crate::{DocId, Place};
use std::io::Read;
use struson::reader::{
    JsonReader, JsonReaderPosition, JsonStreamReader, JsonSyntaxError, ReaderError, ReaderSettings, TransferError,
    ValueType,
};
use struson::writer::{JsonStreamWriter, JsonWriter};

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    /// A list of anything but objects and texts.
    List,
    /// A list that begins with a text.
    Texts,
    EmptyList,
    /// A list that begins with an object: the messages of a conversation.
    Objects,
    Object,
    Number,
    Boolean,
    Null,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::List | Self::EmptyList => "a list",
            Self::Texts => "a list of texts",
            Self::Objects => "a list of objects",
            Self::Object => "an object",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }

    /// Of the types of one field in two objects, the one that says more.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, _) => other,
            (Self::EmptyList, Self::List | Self::Texts | Self::Objects) => other,
            _ => self,
        }
    }
}

impl From<ValueType> for Type {
    fn from(value: ValueType) -> Self {
        match value {
            ValueType::String => Self::Text,
            ValueType::Array => Self::List,
            ValueType::Object => Self::Object,
            ValueType::Number => Self::Number,
            ValueType::Boolean => Self::Boolean,
            ValueType::Null => Self::Null,
        }
    }
}

/// Why reading a line ends early.
pub(super) enum Trouble {
    Fault(Fault),
    Stop(Stop),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ReaderError> for Trouble {
    fn from(error: ReaderError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<ReaderError> for Fault {
    fn from(error: ReaderError) -> Self {
        let column = |at: &JsonReaderPosition| at.line_pos.as_ref().map_or(0, |p| p.column) + 1;
        match error {
            ReaderError::SyntaxError(e) => Self::Syntax { column: column(&e.location), reason: e.kind.to_string() },
            ReaderError::UnexpectedValueType { actual, location, .. } => Self::Syntax {
                column: column(&location),
                reason: format!("expected an object with one document, found {}", Type::from(actual).name()),
            },
            ReaderError::MaxNestingDepthExceeded { location, max_nesting_depth } => {
                Self::Syntax { column: column(&location), reason: format!("nested more than {max_nesting_depth} deep") }
            }
            other => Self::Syntax { column: 1, reason: other.to_string() },
        }
    }
}

pub(super) type Json<R> = JsonStreamReader<NonFiniteAsNull<R>>;

pub(super) fn reader<R: Read>(bytes: R) -> Json<R> {
    let settings = ReaderSettings { track_path: false, restrict_number_values: false, ..ReaderSettings::default() };
    JsonStreamReader::new_custom(NonFiniteAsNull::new(bytes), settings)
}

/// Sends the document in a long record on, piece by piece.
pub(super) fn read(
    record: &mut LongRecord,
    input: &Input,
    place: Place,
    doc: DocId,
    out: &mut Emitter,
) -> Result<(), Stop> {
    object(record, input, place, doc, out).map_err(|trouble| match trouble {
        Trouble::Stop(stop) => stop,
        Trouble::Fault(fault) => fault.locate(input, place).into(),
    })
}

fn object(record: &mut LongRecord, input: &Input, place: Place, doc: DocId, out: &mut Emitter) -> Result<(), Trouble> {
    let mut json = reader(record);
    if json.peek()? == ValueType::Null {
        json.next_null()?;
        json.consume_trailing_whitespace()?;
        out.left_out.null_documents += 1;
        return Ok(());
    }
    let mut names = Vec::new();
    let found = field(&mut json, &input.keys, (input, place, doc), out, &mut names)?;
    json.consume_trailing_whitespace()?;
    if found { Ok(()) } else { Err(Fault::Missing { found: names }.into()) }
}

/// Finds the field that `keys` lead to in the object at hand; whether it is there. `names` are those that were passed over.
fn field<R: Read>(
    json: &mut Json<R>,
    keys: &[String],
    at: (&Input, Place, DocId),
    out: &mut Emitter,
    names: &mut Vec<String>,
) -> Result<bool, Trouble> {
    let (input, place, doc) = at;
    let (key, inner) = keys.split_first().map_or(("", &[][..]), |(key, inner)| (key.as_str(), inner));
    let (mut seen, mut found) = (false, false);
    json.begin_object()?;
    while json.has_next()? {
        let name = json.next_name_owned()?;
        if name != key {
            if names.len() < MAX_FIELDS {
                names.push(name);
            }
            json.skip_value()?;
            continue;
        }
        if seen {
            return Err(Fault::Repeated.into());
        }
        seen = true;
        found = true;
        match (json.peek()?, input.kind) {
            (ValueType::Object, _) if !inner.is_empty() => found = field(json, inner, at, out, names)?,
            (other, _) if !inner.is_empty() && other != ValueType::Null => {
                return Err(Fault::NoObject(Type::from(other)).into());
            }
            (_, Kind::Chat) => conversation(json, input, place, doc, out)?,
            (_, kind) => value(json, kind, doc, out)?,
        }
    }
    json.end_object()?;
    Ok(found)
}

fn value<R: Read>(json: &mut Json<R>, kind: Kind, doc: DocId, out: &mut Emitter) -> Result<(), Trouble> {
    match (json.peek()?, kind) {
        (ValueType::Null, _) => {
            json.next_null()?;
            out.left_out.null_documents += 1;
            Ok(())
        }
        (ValueType::String, Kind::Text) => text(json, doc, out),
        (ValueType::Array, Kind::Tokens) => tokens(json, doc, out),
        (other, _) => Err(Fault::WrongType(Type::from(other).name().into()).into()),
    }
}

/// Conversations above this are refused: a template needs all of one at once.
const MAX_CONVERSATION_BYTES: usize = 64 << 20;

fn conversation<R: Read>(
    json: &mut Json<R>,
    input: &Input,
    place: Place,
    doc: DocId,
    out: &mut Emitter,
) -> Result<(), Trouble> {
    match json.peek()? {
        ValueType::Null => {
            json.next_null()?;
            out.left_out.null_documents += 1;
            return Ok(());
        }
        ValueType::Array => {}
        ValueType::String if input.text_is_user => {}
        other => return Err(Fault::WrongType(Type::from(other).name().into()).into()),
    }
    let mut held = Bounded(Vec::new());
    let mut writer = JsonStreamWriter::new(&mut held);
    json.transfer_to(&mut writer).map_err(|error| match error {
        TransferError::ReaderError(error) => Trouble::from(error),
        TransferError::WriterError(error) => Fault::Syntax { column: 1, reason: error.to_string() }.into(),
    })?;
    writer.finish_document().map_err(|e| Fault::Syntax { column: 1, reason: e.to_string() })?;
    let text = String::from_utf8(held.0).map_err(|_| Fault::Syntax { column: 1, reason: "not UTF-8".into() })?;
    Ok(out.conversation(input, place, doc, &text)?)
}

/// Bytes up to a number.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_CONVERSATION_BYTES {
            let reason = format!("a conversation of more than {MAX_CONVERSATION_BYTES} bytes");
            return Err(std::io::Error::other(reason));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn text<R: Read>(json: &mut Json<R>, doc: DocId, out: &mut Emitter) -> Result<(), Trouble> {
    let mut string = json.next_string_reader()?;
    let mut cutter = Cutter::new(doc);
    let mut utf8 = Utf8::default();
    let mut chunk = vec![0; 16 << 10];
    loop {
        let n = string.read(&mut chunk).map_err(string_fault)?;
        if n == 0 {
            break;
        }
        let text = utf8
            .feed(chunk.get(..n).unwrap_or_default())
            .map_err(|_| Fault::Syntax { column: 1, reason: "not UTF-8".into() })?;
        cutter.push(text, out)?;
    }
    Ok(cutter.finish(out)?)
}

/// A string's reader wraps the parser's error in an I/O error.
fn string_fault(error: std::io::Error) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<JsonSyntaxError>()) {
        Some(syntax) => ReaderError::SyntaxError(syntax.clone()).into(),
        None => Fault::Syntax { column: 1, reason: error.to_string() },
    }
}

fn tokens<R: Read>(json: &mut Json<R>, doc: DocId, out: &mut Emitter) -> Result<(), Trouble> {
    let most = out.max_piece_tokens();
    let mut ids = Vec::new();
    let mut start = 0;
    json.begin_array()?;
    while json.has_next()? {
        if ids.len() == most {
            out.token_piece(doc, start, std::mem::take(&mut ids), false)?;
            start += most as u64;
        }
        let index = start + ids.len() as u64;
        let found = match json.peek()? {
            ValueType::Number => json.next_number_as_string()?,
            other => return Err(Fault::NotAToken { index, found: Type::from(other).name().into() }.into()),
        };
        ids.push(found.parse().map_err(|_| Fault::NotAToken { index, found: found.chars().take(40).collect() })?);
    }
    json.end_array()?;
    Ok(out.token_piece(doc, start, ids, true)?)
}
