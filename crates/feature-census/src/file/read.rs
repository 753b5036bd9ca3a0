//! Reading. A file is not trusted: everything is checked before it is used.

use crate::census::FeatureCensus;
use crate::error::{Error, Result};
use crate::file::digest::Digest;
use crate::file::header::{DIGEST, Header, KEY};
use crate::file::schema::schema;
use crate::fixed_point::{LIMIT, MOST_TOKENS};
use crate::histogram::{BINS, bin_of};
use crate::tally::{FeatureParts, Kept};
use activation_store::{TokenPos, parquet_checks};
use arrow::array::{Array, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray, RecordBatch, StructArray};
use arrow::datatypes::{Float32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::path::Path;

/// Rows read at a time.
const ROWS: usize = 1024;

impl FeatureCensus {
    /// Reads a census that [`save`](Self::save) wrote. It goes on where it stopped: it can take in more rows, be merged, and be saved, with the bytes that it
    /// would have had without the detour.
    ///
    /// A file may ask for much memory with few bytes; more than `most_bytes` is an error before anything is allocated.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is no census, is damaged or is of another version; I/O.
    pub fn load(path: &Path, most_bytes: u64) -> Result<Self> {
        let damaged = |reason: String| Error::File { path: path.to_owned(), reason };
        let file = tensor_files::open_regular(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        read(file, most_bytes).map_err(damaged)
    }
}

type Checked<T> = std::result::Result<T, String>;

/// Runs a part of the `parquet` crate, which is not written for hostile files: where it panics, the file is damaged.
fn parquet<T, E: ToString>(run: impl FnOnce() -> std::result::Result<T, E>) -> Checked<T> {
    match tensor_files::contained(run) {
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
        Err(panicked) => Err(format!("the Parquet reader {panicked}")),
    }
}

fn read(file: File, most_bytes: u64) -> Checked<FeatureCensus> {
    parquet_checks::check_footer(&file)?;
    let again = file.try_clone().map_err(|e| e.to_string())?;
    let builder = parquet(|| ParquetRecordBatchReaderBuilder::try_new(file))?;
    let header = builder.schema().metadata().get(KEY).ok_or("it is a Parquet file, but no census")?;
    let mut digest = Digest::new(header);
    let header = Header::parse(header)?;
    if builder.schema().fields() != schema().fields() {
        return Err(format!("its columns are not those of a census: {:?}", names(builder.schema().fields())));
    }
    let stated = builder.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let stated = stated.filter(|pair| pair.key == DIGEST).find_map(|pair| pair.value.clone());
    let rows = builder.metadata().file_metadata().num_rows();
    if u64::try_from(rows).ok() != Some(header.d_sae as u64) {
        return Err(format!("it has {rows} rows for {} features", header.d_sae));
    }
    let mut census = empty(&header, most_bytes)?;
    check_lists(builder.metadata(), &header)?;
    parquet_checks::check_pages(&again, builder.metadata(), most_bytes, |_| true)?;
    for group in 0..builder.metadata().num_row_groups() {
        parquet_checks::check_expansion(&again, builder.metadata(), group, |_| true)?;
    }
    let mut edges = vec![Vec::new(); header.edges()];
    let mut next = 0;
    let mut batches = parquet(|| builder.with_batch_size(ROWS).build())?;
    while let Some(batch) = parquet(|| batches.next().transpose())? {
        let columns = Columns::of(&batch)?;
        for row in 0..batch.num_rows() {
            if next as usize >= header.d_sae {
                return Err(format!("it has more rows than the {} features it states", header.d_sae));
            }
            columns
                .restore(row, next, &mut census, &mut edges, &mut digest)
                .map_err(|e| format!("feature {next}: {e}"))?;
            next += 1;
        }
    }
    if next as usize != header.d_sae {
        return Err(format!("it has {next} rows for {} features", header.d_sae));
    }
    if stated.as_ref() != Some(&digest.finish()) {
        return Err("its digest is not that of its content".into());
    }
    census.coverage = header.coverage(edges)?;
    Ok(census)
}

fn names(fields: &arrow::datatypes::Fields) -> Vec<&str> {
    fields.iter().map(|field| field.name().as_str()).collect()
}

/// The census of the header, with nothing in it yet.
fn empty(header: &Header, most_bytes: u64) -> Checked<FeatureCensus> {
    let options = header.options();
    options.check(header.d_sae).map_err(|e| e.to_string())?;
    let bytes = options.memory_bytes(header.d_sae);
    if bytes > most_bytes {
        return Err(format!("it needs {bytes} bytes of memory, allowed are {most_bytes}"));
    }
    if header.tokens > MOST_TOKENS {
        return Err(format!("it has {} tokens, possible are {MOST_TOKENS}", header.tokens));
    }
    let mut census = FeatureCensus::new(header.d_sae, options).map_err(|e| e.to_string())?.named(header.names());
    census.tokens = header.tokens;
    census.excluded = header.excluded;
    Ok(census)
}

/// No more list entries than the options allow, by the file's own directory: they are in memory before they can be looked at one by one.
fn check_lists(metadata: &ParquetMetaData, header: &Header) -> Checked<()> {
    let options = header.options();
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows()).map_err(|_| "a row group has a negative number of rows")?;
        for column in group.columns() {
            let name = column.column_path().parts().first().map_or("", String::as_str);
            let each = match name {
                "histogram" => BINS,
                "top" => options.top,
                "samples" => options.sample_bins.saturating_mul(options.samples_per_bin),
                "together" => options.together.len(),
                "edges" => header.edges(),
                _ => 1,
            };
            // An empty list has an entry of its own.
            let most = rows.saturating_mul(each.max(1) as u64);
            if u64::try_from(column.num_values()).map_or(true, |found| found > most) {
                return Err(format!("its column `{name}` has {} entries, possible are {most}", column.num_values()));
            }
        }
    }
    Ok(())
}

/// The columns of a batch by their types.
struct Columns<'a> {
    feature: &'a PrimitiveArray<UInt32Type>,
    count: &'a PrimitiveArray<UInt64Type>,
    min: &'a PrimitiveArray<Float32Type>,
    max: &'a PrimitiveArray<Float32Type>,
    sum_high: &'a PrimitiveArray<Int64Type>,
    sum_low: &'a PrimitiveArray<UInt64Type>,
    squares_high: &'a PrimitiveArray<UInt64Type>,
    squares_low: &'a PrimitiveArray<UInt64Type>,
    documents: &'a PrimitiveArray<UInt64Type>,
    histogram: &'a ListArray,
    top: &'a ListArray,
    samples: &'a ListArray,
    together: &'a ListArray,
    edges: &'a ListArray,
}

fn primitive<'a, T: ArrowPrimitiveType>(array: &'a dyn Array, name: &str) -> Checked<&'a PrimitiveArray<T>> {
    array.as_primitive_opt().ok_or_else(|| format!("column `{name}` is of type {}", array.data_type()))
}

fn column<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Checked<&'a PrimitiveArray<T>> {
    primitive(batch.column_by_name(name).ok_or("a column is missing")?, name)
}

fn lists<'a>(batch: &'a RecordBatch, name: &str) -> Checked<&'a ListArray> {
    let column = batch.column_by_name(name).ok_or("a column is missing")?;
    column.as_list_opt().ok_or_else(|| format!("column `{name}` is of type {}", column.data_type()))
}

fn field<T: ArrowPrimitiveType>(records: &StructArray, name: &str) -> Checked<Vec<T::Native>> {
    let column = records.column_by_name(name).ok_or("a column is missing")?;
    Ok(primitive::<T>(column, name)?.values().to_vec())
}

fn records(lists: &ListArray, row: usize) -> Checked<StructArray> {
    let items = lists.value(row);
    items.as_struct_opt().cloned().ok_or_else(|| format!("a list is of type {}", items.data_type()))
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Checked<Self> {
        Ok(Self {
            feature: column(batch, "feature")?,
            count: column(batch, "count")?,
            min: column(batch, "min")?,
            max: column(batch, "max")?,
            sum_high: column(batch, "sum_high")?,
            sum_low: column(batch, "sum_low")?,
            squares_high: column(batch, "squares_high")?,
            squares_low: column(batch, "squares_low")?,
            documents: column(batch, "documents")?,
            histogram: lists(batch, "histogram")?,
            top: lists(batch, "top")?,
            samples: lists(batch, "samples")?,
            together: lists(batch, "together")?,
            edges: lists(batch, "edges")?,
        })
    }

    /// Puts one row into its place in the census.
    fn restore(
        &self,
        row: usize,
        feature: u32,
        census: &mut FeatureCensus,
        edges: &mut [Vec<u32>],
        digest: &mut Digest,
    ) -> Checked<()> {
        if self.feature.value(row) != feature {
            return Err(format!("its number is {}", self.feature.value(row)));
        }
        let parts = FeatureParts {
            count: self.count.value(row),
            sum: i128::from(self.sum_high.value(row)) << 64 | i128::from(self.sum_low.value(row)),
            squares: u128::from(self.squares_high.value(row)) << 64 | u128::from(self.squares_low.value(row)),
            min: if self.min.is_null(row) { 0.0 } else { self.min.value(row) },
            max: if self.max.is_null(row) { 0.0 } else { self.max.value(row) },
            documents: if self.documents.is_null(row) { 0 } else { self.documents.value(row) },
            histogram: self.histogram(row)?,
            top: examples(&records(self.top, row)?)?,
            samples: self.samples(row)?,
            together: primitive::<UInt64Type>(&self.together.value(row), "together")?.values().to_vec(),
        };
        if parts.count > census.tokens || parts.documents > parts.count {
            return Err(format!("it fires on {} tokens in {} documents", parts.count, parts.documents));
        }
        if (parts.count == 0) != (self.min.is_null(row) || self.max.is_null(row)) {
            return Err("it has extremes without activations, or none with".into());
        }
        let of_feature = primitive::<UInt32Type>(&self.edges.value(row), "edges")?.values().to_vec();
        digest.feature(&parts, &of_feature);
        if !of_feature.is_sorted_by(|a, b| a < b) {
            return Err("its edges are out of order".into());
        }
        // A document at an edge is one of those in which it fires.
        if of_feature.len() as u64 > parts.documents {
            return Err(format!("it fires in {} documents, but at {} edges", parts.documents, of_feature.len()));
        }
        for edge in of_feature {
            edges.get_mut(edge as usize).ok_or_else(|| format!("it fired in edge {edge}"))?.push(feature);
        }
        census.restore(feature, &parts)
    }

    fn histogram(&self, row: usize) -> Checked<Vec<(u8, u64)>> {
        let records = records(self.histogram, row)?;
        let (bins, counts) = (field::<UInt8Type>(&records, "bin")?, field::<UInt64Type>(&records, "count")?);
        if !bins.is_sorted_by(|a, b| a < b) || bins.last().is_some_and(|&bin| usize::from(bin) >= BINS) {
            return Err("its histogram's bins are out of order".into());
        }
        Ok(bins.into_iter().zip(counts).collect())
    }

    fn samples(&self, row: usize) -> Checked<Vec<(u8, Kept)>> {
        let records = records(self.samples, row)?;
        let bins = field::<UInt8Type>(&records, "bin")?;
        let samples: Vec<_> = bins.into_iter().zip(examples(&records)?).collect();
        match samples.iter().find(|(bin, kept)| usize::from(*bin) != bin_of(kept.value)) {
            Some((bin, kept)) => Err(format!("it has a sample of {} in bin {bin}", kept.value)),
            None => Ok(samples),
        }
    }
}

/// Examples with addresses and activations that can be.
fn examples(records: &StructArray) -> Checked<Vec<Kept>> {
    let (rows, positions) = (field::<UInt64Type>(records, "row")?, field::<UInt32Type>(records, "pos")?);
    let (tokens, values) = (field::<UInt32Type>(records, "token")?, field::<Float32Type>(records, "activation")?);
    let mut examples = Vec::with_capacity(rows.len());
    for (((row, pos), token), value) in rows.into_iter().zip(positions).zip(tokens).zip(values) {
        let at = TokenPos { row, pos };
        let address = at.to_u64().ok_or_else(|| Error::Address { at }.to_string())?;
        if value == 0.0 || value.is_nan() || value.abs() >= LIMIT {
            return Err(format!("it has an example with activation {value}"));
        }
        examples.push(Kept { address, value, token });
    }
    Ok(examples)
}
