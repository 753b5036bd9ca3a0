//! Parquet: one document a row.
//!
//! Memory: a page of the column (about 1 MB as most tools write them) and some rows of it. A value that is huge in itself has to fit: the
//! format gives no way to read it in parts.

use super::emit::{Emitter, Stop};
use super::files::{Input, Kind};
use super::inspect::Columns;
use super::rows::{self, arrow, damaged};
use crate::{DocId, Error, Result, parquet_checks};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;

/// Rows decoded at a time: about this many bytes, and never more than so many rows (sizes are known on average only).
const BATCH_BYTES: u64 = 2 << 20;
const MAX_BATCH_ROWS: u64 = 256;

fn file(input: &Input) -> Result<File> {
    File::open(&input.path).map_err(|source| Error::Io { path: input.path.clone(), source })
}

fn open(input: &Input) -> Result<(File, ArrowReaderMetadata)> {
    let file = file(input)?;
    parquet_checks::check_footer(&file).map_err(|reason| damaged(input, reason))?;
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
    Ok(rows::columns(metadata.schema().fields()))
}

pub(super) fn read(input: &Input, file: u32, out: &mut Emitter) -> std::result::Result<(), Stop> {
    let (handle, metadata) = open(input)?;
    let schema = metadata.parquet_schema();
    let leaves = (0..schema.num_columns()).filter(|i| schema.column(*i).path().parts().starts_with(&input.keys));
    let mask = ProjectionMask::leaves(schema, leaves);
    let rows = batch_rows(input, &metadata)?;
    let mut ordinal = 0;
    // Group by group, because what a group expands to is checked before it is read.
    for group in 0..metadata.metadata().num_row_groups() {
        let again = handle.try_clone().map_err(|source| Error::Io { path: input.path.clone(), source })?;
        parquet_checks::check_expansion(&again, metadata.metadata(), group, of_column(input))
            .map_err(|reason| damaged(input, reason))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(again, metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask.clone())
            .with_batch_size(rows);
        let mut batches = arrow(input, || builder.build())?;
        while let Some(batch) = arrow(input, || batches.next().transpose())? {
            let values = batch.columns().first().ok_or_else(|| damaged(input, "a part of it has no column"))?;
            rows::emit(input, values, DocId { file, ordinal }, out)?;
            ordinal += values.len() as u64;
        }
    }
    Ok(())
}

/// Whether a column of the file is, or is a part of, the column of documents.
fn of_column(input: &Input) -> impl Fn(&ColumnChunkMetaData) -> bool {
    |column| column.column_path().parts().starts_with(&input.keys)
}

/// How many rows of the column are about [`BATCH_BYTES`]: by its pages' own headers, not by what the footer says of them.
fn batch_rows(input: &Input, metadata: &ArrowReaderMetadata) -> Result<usize> {
    let of_column = of_column(input);
    let pages = parquet_checks::check_pages(&file(input)?, metadata.metadata(), 0, &of_column);
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
