//! The feature frame (cell 21): kept tokens x features as Arrow, and frames as files.

use crate::{CollectReport, Error, FeatureExamples, Result};
use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::csv::WriterBuilder;
use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::path::Path;
use std::sync::Arc;

/// Writes into a frame's metadata what was looked at and what was left out: the keys `counts` (in words), `batches`, `tokens`,
/// `excluded`. Parquet files keep it.
///
/// # Errors
/// The columnar library's.
pub fn with_report(frame: RecordBatch, counts: &CollectReport) -> Result<RecordBatch> {
    let excluded = counts.excluded.total();
    let numbers = [("batches", counts.batches_done), ("tokens", counts.tokens), ("excluded", excluded)];
    let mut metadata = frame.schema().metadata().clone();
    metadata.insert("counts".into(), counts.to_string());
    metadata.extend(numbers.map(|(key, number)| (key.to_owned(), number.to_string())));
    let schema = Arc::new(frame.schema().as_ref().clone().with_metadata(metadata));
    Ok(frame.with_schema(schema)?)
}

/// Kept tokens x features: one f32 column `feature_<id>` per feature, in the order of the features, one line per kept token.
///
/// # Errors
/// The columnar library's.
pub fn feature_frame(kept: &FeatureExamples) -> Result<RecordBatch> {
    let columns = kept.features().iter().map(|&feature| {
        let column: ArrayRef = Arc::new(Float32Array::from(kept.activations(feature)?));
        Ok((format!("feature_{feature}"), column, false))
    });
    let frame = RecordBatch::try_from_iter_with_nullable(columns.collect::<Result<Vec<_>>>()?)?;
    with_report(frame, kept.counts())
}

/// Two frames side by side: the columns of `left`, then those of `right`, line by line; the metadata of both, `right`'s where they differ.
///
/// # Errors
/// Frames of different lengths.
pub fn beside(left: &RecordBatch, right: &RecordBatch) -> Result<RecordBatch> {
    if left.num_rows() != right.num_rows() {
        let (left_size, right_size) = (left.num_rows(), right.num_rows());
        return Err(Error::SizeMismatch {
            left: "the left frame's length",
            left_size,
            right: "the right frame's",
            right_size,
        });
    }
    let (of_left, of_right) = (left.schema(), right.schema());
    let fields: Vec<_> = of_left.fields().iter().chain(of_right.fields()).cloned().collect();
    let mut metadata = of_left.metadata().clone();
    metadata.extend(of_right.metadata().clone());
    let columns = [left.columns(), right.columns()].concat();
    Ok(RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), columns)?)
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
