//! The feature frame (cell 21): kept tokens x features as Arrow, and frames as files.

use crate::{Error, KeptExamples, Result};
use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::csv::WriterBuilder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::path::Path;
use std::sync::Arc;

/// Kept tokens x features: one f32 column `feature_<id>` per feature, in the order of the features, one line per kept token.
///
/// # Errors
/// The columnar library's.
pub fn feature_frame(kept: &KeptExamples) -> Result<RecordBatch> {
    let columns = kept.features().iter().map(|&feature| {
        let column: ArrayRef = Arc::new(Float32Array::from(kept.activations(feature)?));
        Ok((format!("feature_{feature}"), column, false))
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns.collect::<Result<Vec<_>>>()?)?)
}

/// Two frames side by side: the columns of `left`, then those of `right`, line by line.
///
/// # Errors
/// Frames of different lengths.
pub fn beside(left: &RecordBatch, right: &RecordBatch) -> Result<RecordBatch> {
    if left.num_rows() != right.num_rows() {
        let (left_size, right_size) = (left.num_rows(), right.num_rows());
        return Err(Error::Misfit {
            left: "the left frame's length",
            left_size,
            right: "the right frame's",
            right_size,
        });
    }
    let columns = [left, right].into_iter().flat_map(|frame| {
        let schema = frame.schema();
        (0..frame.num_columns()).map(move |i| {
            let field = schema.field(i);
            (field.name().clone(), frame.column(i).clone(), field.is_nullable())
        })
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>())?)
}

/// Writes a frame as Parquet (zstd), whole or not at all.
///
/// # Errors
/// I/O, or the Parquet writer's.
pub fn write_parquet(frame: &RecordBatch, path: &Path) -> Result<()> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    tensor_files::write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, frame.schema(), Some(properties))?;
        writer.write(frame)?;
        writer.close()?;
        Ok(())
    })
}

/// Writes a frame as CSV with a header, whole or not at all.
///
/// # Errors
/// I/O, or a column type that CSV cannot hold.
pub fn write_csv(frame: &RecordBatch, path: &Path) -> Result<()> {
    tensor_files::write_atomically(path, |file| Ok(WriterBuilder::new().with_header(true).build(file).write(frame)?))
}
