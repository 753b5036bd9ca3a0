//! Parquet: one document a row, in a column of text or of lists of token ids.
//!
//! Memory: a page of the column (about 1 MB as most tools write them) and some rows of it. A value that is huge in itself has to fit: the
//! format gives no way to read it in parts.

use super::arrow_json;
use super::emit::{Emitter, Stop};
use super::files::{Input, Kind};
use super::inspect::{Columns, Holds};
use crate::{DocId, Error, Place, Result, parquet_claims};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;

/// Rows decoded at a time: about this many bytes, and never more than so many rows (sizes are known on average only).
const BATCH_BYTES: u64 = 2 << 20;
const MAX_BATCH_ROWS: u64 = 256;

fn damaged(input: &Input, reason: impl ToString) -> Error {
    Error::Parquet { path: input.path.clone(), reason: reason.to_string() }
}

fn file(input: &Input) -> Result<File> {
    File::open(&input.path).map_err(|source| Error::Io { path: input.path.clone(), source })
}

/// Runs a part of the `parquet` and `arrow` crates, which are not written for hostile files: where they panic, the file is damaged.
fn arrow<T, E: ToString>(input: &Input, run: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    match tensor_files::contained(run) {
        Ok(outcome) => outcome.map_err(|e| damaged(input, e)),
        Err(panicked) => Err(damaged(input, format!("the Parquet reader {panicked}"))),
    }
}

fn open(input: &Input) -> Result<(File, ArrowReaderMetadata)> {
    let file = file(input)?;
    parquet_claims::check_footer(&file).map_err(|reason| damaged(input, reason))?;
    // The Arrow schema that some tools put beside the table's own says nothing that is needed here.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = arrow(input, || ArrowReaderMetadata::load(&file, options))?;
    Ok((file, metadata))
}

/// The columns of the table.
///
/// # Errors
/// A table without rows.
pub(super) fn columns(input: &Input) -> Result<Columns> {
    let (_, metadata) = open(input)?;
    if metadata.metadata().file_metadata().num_rows() <= 0 {
        return Err(Error::EmptyFile { path: input.path.clone() });
    }
    let holds = |data_type: &DataType| match kind_of(data_type) {
        Some(kind) => Holds::One(kind),
        // A column of nothing but nulls, as pandas writes it.
        None if data_type.is_null() => Holds::Any,
        None => Holds::Other(format!("{data_type}")),
    };
    Ok(metadata.schema().fields().iter().map(|field| (field.name().clone(), holds(field.data_type()))).collect())
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

pub(super) fn read(input: &Input, file: u32, out: &mut Emitter) -> std::result::Result<(), Stop> {
    let (handle, metadata) = open(input)?;
    let column = metadata.schema().index_of(&input.field).map_err(|e| damaged(input, e))?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), [column]);
    let rows = batch_rows(input, &metadata)?;
    let mut ordinal = 0;
    // Group by group, because what a group expands to is checked before it is read.
    for group in 0..metadata.metadata().num_row_groups() {
        let again = handle.try_clone().map_err(|source| Error::Io { path: input.path.clone(), source })?;
        parquet_claims::check_expansion(&again, metadata.metadata(), group, of_column(input))
            .map_err(|reason| damaged(input, reason))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(again, metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask.clone())
            .with_batch_size(rows);
        let mut batches = arrow(input, || builder.build())?;
        while let Some(batch) = arrow(input, || batches.next().transpose())? {
            let values = batch.columns().first().ok_or_else(|| damaged(input, "a part of it has no column"))?;
            let first = DocId { file, ordinal };
            match input.kind {
                // A dictionary or a column of type null has nulls that only this tells.
                _ if values.logical_null_count() == values.len() => out.left_out.null_documents += values.len() as u64,
                Kind::Text => texts(input, values, first, out)?,
                Kind::Tokens => tokens(input, values, first, out)?,
                Kind::Chat => conversations(input, values, first, out)?,
            }
            ordinal += values.len() as u64;
        }
    }
    Ok(())
}

/// Whether a column of the file is, or is a part of, the column of documents.
fn of_column(input: &Input) -> impl Fn(&ColumnChunkMetaData) -> bool {
    |column| column.column_path().parts().first() == Some(&input.field)
}

/// How many rows of the column are about [`BATCH_BYTES`]: by its pages' own headers, not by what the footer says of them.
fn batch_rows(input: &Input, metadata: &ArrowReaderMetadata) -> Result<usize> {
    let of_column = of_column(input);
    let pages = parquet_claims::check_pages(&file(input)?, metadata.metadata(), 0, &of_column);
    let pages = pages.map_err(|reason| damaged(input, reason))?;
    let groups = metadata.metadata().row_groups().iter();
    let stated = groups.map(|group| {
        let bytes = group.columns().iter().filter(|c| of_column(c)).map(|c| c.uncompressed_size().max(0));
        bytes.fold(0, i64::saturating_add) / group.num_rows().max(1)
    });
    let stated = u64::try_from(stated.max().unwrap_or(0)).unwrap_or(0);
    // A row of a dictionary's text may be all of the dictionary.
    let dictionary = if input.kind == Kind::Tokens { 0 } else { pages.dictionary };
    let rows = BATCH_BYTES / stated.max(pages.value_bytes).max(dictionary).max(1);
    Ok(usize::try_from(rows.clamp(1, MAX_BATCH_ROWS)).unwrap_or(1))
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
