//! Rows of a table, whatever file it is in: one document a row, in a column of text, of lists of token ids, or of messages.

use super::arrow_json;
use super::emit::{Emitter, Stop};
use super::files::{Format, Input, Kind};
use super::inspect::{Column, Columns, Holds, LIST_OF_TEXTS};
use crate::{DocId, Error, Place, Result};
use arrow::array::{Array, ArrayRef, AsArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Fields, Int64Type, UInt64Type};

/// Columns inside of columns are looked at to this depth.
const MAX_DEPTH: usize = 16;

pub(super) fn damaged(input: &Input, reason: impl ToString) -> Error {
    let (path, reason) = (input.path.clone(), reason.to_string());
    if input.format == Format::Arrow { Error::Arrow { path, reason } } else { Error::Parquet { path, reason } }
}

/// Runs a part of the `parquet` and `arrow` crates, which are not written for hostile files: where they panic, the file is damaged.
pub(super) fn arrow<T, E: ToString>(input: &Input, run: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    match tensor_files::contained(run) {
        Ok(outcome) => outcome.map_err(|e| damaged(input, e)),
        Err(panicked) => Err(damaged(input, format!("the reader {panicked}"))),
    }
}

/// The columns of a table, those inside of structs among them.
pub(super) fn columns(fields: &Fields) -> Columns {
    let mut out = Columns::new();
    add_columns(fields, &[], &mut out);
    out
}

fn add_columns(fields: &Fields, around: &[String], out: &mut Columns) {
    for field in fields {
        let keys: Vec<String> = around.iter().chain([field.name()]).cloned().collect();
        let holds = match field.data_type() {
            DataType::Struct(_) => Holds::Fields("an object".into()),
            DataType::Null => Holds::Any,
            other => match kind_of(other) {
                Some(kind) => Holds::One(kind),
                None if is_list_of_texts(other) => Holds::Other(LIST_OF_TEXTS.into()),
                None => Holds::Other(other.to_string()),
            },
        };
        out.push(Column { keys: keys.clone(), holds });
        if let DataType::Struct(inner) = field.data_type()
            && keys.len() < MAX_DEPTH
        {
            add_columns(inner, &keys, out);
        }
    }
}

fn kind_of(data_type: &DataType) -> Option<Kind> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Kind::Text),
        DataType::Dictionary(_, value) => kind_of(value).filter(|kind| *kind == Kind::Text),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let is_message = matches!(item.data_type(), DataType::Struct(_));
            item.data_type().is_integer().then_some(Kind::Tokens).or(is_message.then_some(Kind::Chat))
        }
        _ => None,
    }
}

fn is_list_of_texts(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            kind_of(item.data_type()) == Some(Kind::Text)
        }
        _ => false,
    }
}

/// Sends the documents of some rows on. `column` is the table's column in which the field is; `first` is the document of its first row.
pub(super) fn emit(input: &Input, column: &ArrayRef, first: DocId, out: &mut Emitter) -> std::result::Result<(), Stop> {
    let values = &arrow(input, || inside(column, input.keys.get(1..).unwrap_or_default()))?;
    match input.kind {
        // A dictionary or a column of type null has nulls that only this tells.
        _ if values.logical_null_count() == values.len() => {
            out.left_out.null_documents += values.len() as u64;
            Ok(())
        }
        Kind::Text => texts(input, values, first, out),
        Kind::Tokens => tokens(input, values, first, out),
        Kind::Chat => conversations(input, values, first, out),
    }
}

/// The column inside of structs; what is in a null struct is null.
fn inside(column: &ArrayRef, keys: &[String]) -> std::result::Result<ArrayRef, String> {
    let mut column = column.clone();
    for key in keys {
        let around = column.as_struct_opt().ok_or("a column is no struct as its schema says")?;
        let inner = around.column_by_name(key).ok_or("a struct lacks a column that its schema names")?;
        column = match around.nulls() {
            Some(nulls) if inner.data_type() != &DataType::Null => {
                let nulls = NullBuffer::union(Some(nulls), inner.nulls());
                let data = inner.to_data().into_builder().nulls(nulls).build();
                make_array(data.map_err(|e| e.to_string())?)
            }
            _ => inner.clone(),
        };
    }
    Ok(column)
}

fn texts(input: &Input, values: &ArrayRef, first: DocId, out: &mut Emitter) -> std::result::Result<(), Stop> {
    let values = arrow(input, || cast(values, &DataType::LargeUtf8))?;
    for (i, text) in values.as_string::<i64>().iter().enumerate() {
        let doc = DocId { ordinal: first.ordinal + i as u64, ..first };
        match text {
            Some(text) => out.text(doc, text.to_owned())?,
            None => out.left_out.null_documents += 1,
        }
    }
    Ok(())
}

fn conversations(input: &Input, values: &ArrayRef, first: DocId, out: &mut Emitter) -> std::result::Result<(), Stop> {
    let mut json = String::new();
    for i in 0..values.len() {
        let doc = DocId { ordinal: first.ordinal + i as u64, ..first };
        json.clear();
        arrow(input, || arrow_json::write(values.as_ref(), i, &mut json))?;
        match json.as_str() {
            "null" => out.left_out.null_documents += 1,
            json => out.conversation(input, Place::Row(doc.ordinal + 1), doc, json)?,
        }
    }
    Ok(())
}

fn tokens(input: &Input, values: &ArrayRef, first: DocId, out: &mut Emitter) -> std::result::Result<(), Stop> {
    for i in 0..values.len() {
        if values.is_null(i) {
            out.left_out.null_documents += 1;
            continue;
        }
        let list = match values.data_type() {
            DataType::List(_) => values.as_list::<i32>().value(i),
            DataType::LargeList(_) => values.as_list::<i64>().value(i),
            _ => values.as_fixed_size_list().value(i),
        };
        let doc = DocId { ordinal: first.ordinal + i as u64, ..first };
        out.tokens(doc, &ids(input, &list, doc.ordinal + 1)?)?;
    }
    Ok(())
}

fn ids(input: &Input, list: &ArrayRef, row: u64) -> Result<Vec<u32>> {
    let bad = |index: usize, found: String| Error::NotAToken {
        path: input.path.clone(),
        place: Place::Row(row),
        field: input.field.clone(),
        index: index as u64,
        found,
    };
    if let Some(index) = (0..list.len()).find(|i| list.is_null(*i)) {
        return Err(bad(index, "null".into()));
    }
    let unsigned = list.data_type() == &DataType::UInt64;
    let wide = if unsigned { DataType::UInt64 } else { DataType::Int64 };
    let list = arrow(input, || cast(list, &wide))?;
    (0..list.len())
        .map(|i| {
            if unsigned {
                let id = list.as_primitive::<UInt64Type>().value(i);
                u32::try_from(id).map_err(|_| bad(i, id.to_string()))
            } else {
                let id = list.as_primitive::<Int64Type>().value(i);
                u32::try_from(id).map_err(|_| bad(i, id.to_string()))
            }
        })
        .collect()
}
