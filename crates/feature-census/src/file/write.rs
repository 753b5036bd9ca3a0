//! Writing.

use crate::census::FeatureCensus;
use crate::coverage::{Edges, Run};
use crate::error::Result;
use crate::file::digest::Digest;
use crate::file::header::{DIGEST, Header, KEY};
use crate::file::schema::{bin_fields, example_fields, item, sample_fields, schema};
use crate::shard::{SHARD, Shard};
use crate::stats::FeatureStats;
use crate::tally::{FeatureParts, Kept};
use activation_store::TokenPos;
use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StructArray, UInt8Array, UInt32Array,
    UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Fields;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

impl FeatureCensus {
    /// Writes the census as a Parquet file (see the [format](crate::file)): whole or not at all, and the same bytes for the same tokens. Beside the
    /// census it takes up to four times what the census has for 4,096 features.
    ///
    /// # Errors
    /// I/O, or the Parquet writer's.
    pub fn save(&self, path: &Path) -> Result<()> {
        tensor_files::write_atomically(path, |file| self.write(file))
    }

    /// As [`save`](Self::save), into anything.
    ///
    /// # Errors
    /// I/O, or the Parquet writer's.
    pub fn write(&self, to: impl Write + Send) -> Result<()> {
        let (runs, twice) = self.coverage.runs(self.in_latest_document());
        let header = serde_json::to_string(&Header::of(self, &runs));
        let header = header.map_err(|e| arrow::error::ArrowError::JsonError(e.to_string()))?;
        let mut digest = Digest::new(&header);
        // One key only: a map's order would be another each time.
        let schema = Arc::new(schema().with_metadata(HashMap::from([(KEY.into(), header)])));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(false)
            .set_max_row_group_row_count(Some(SHARD))
            .build();
        let mut writer = ArrowWriter::try_new(to, schema.clone(), Some(properties))?;
        let mut twice_of = HashMap::new();
        twice.into_iter().for_each(|feature| *twice_of.entry(feature).or_insert(0u64) += 1);
        let edges = edges(&runs);
        for shard in &self.shards {
            let place = |place: usize| Row::of(shard, place, &twice_of, &edges, self);
            let rows: Vec<Row> = (0..shard.tallies.len()).into_par_iter().map(place).collect::<Result<_>>()?;
            rows.iter().for_each(|row| digest.feature(&row.parts, row.edges));
            writer.write(&RecordBatch::try_new(schema.clone(), columns(&rows))?)?;
            writer.flush()?;
        }
        writer.append_key_value_metadata(KeyValue::new(DIGEST.into(), digest.finish()));
        writer.close()?;
        Ok(())
    }
}

/// A feature as the file has it.
struct Row<'a> {
    stats: FeatureStats,
    parts: FeatureParts,
    edges: &'a [u32],
}

impl<'a> Row<'a> {
    fn of(
        shard: &Shard,
        place: usize,
        twice: &HashMap<u32, u64>,
        edges: &'a BTreeMap<u32, Vec<u32>>,
        census: &FeatureCensus,
    ) -> Result<Self> {
        let feature = shard.start + place as u32;
        let twice = twice.get(&feature).copied().unwrap_or(0);
        let stats = census.stats_with(feature, twice)?;
        let edges = edges.get(&feature).map_or(&[][..], Vec::as_slice);
        Ok(Self { stats, parts: shard.parts(place, twice), edges })
    }
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let floats = |of: fn(&FeatureStats) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| of(&row.stats))))
    };
    let extremes = |of: fn(&FeatureParts) -> f32| -> ArrayRef {
        Arc::new(rows.iter().map(|row| (row.parts.count > 0).then(|| of(&row.parts))).collect::<Float32Array>())
    };
    let whole = |of: fn(&FeatureParts) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| of(&row.parts))))
    };
    vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.stats.feature))),
        whole(|parts| parts.count),
        floats(|stats| stats.density),
        floats(|stats| stats.mean),
        floats(|stats| stats.std),
        extremes(|parts| parts.min),
        extremes(|parts| parts.max),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| (row.parts.sum >> 64) as i64))),
        whole(|parts| parts.sum as u64),
        whole(|parts| (parts.squares >> 64) as u64),
        whole(|parts| parts.squares as u64),
        Arc::new(rows.iter().map(|row| row.stats.documents).collect::<UInt64Array>()),
        histograms(rows),
        list(rows.iter().map(|row| row.parts.top.len()), {
            let all = rows.iter().flat_map(|row| &row.parts.top);
            records(example_fields(), examples(all))
        }),
        samples(rows),
        list(rows.iter().map(|row| row.parts.together.len()), {
            let all = rows.iter().flat_map(|row| row.parts.together.iter().copied());
            Arc::new(UInt64Array::from_iter_values(all))
        }),
        list(rows.iter().map(|row| row.edges.len()), {
            Arc::new(UInt32Array::from_iter_values(rows.iter().flat_map(|row| row.edges.iter().copied())))
        }),
    ]
}

/// For each feature the edges in whose documents it fired, rising.
fn edges(runs: &BTreeMap<u64, Run>) -> BTreeMap<u32, Vec<u32>> {
    let mut of = BTreeMap::<u32, Vec<u32>>::new();
    for (i, run) in (0..).zip(runs.values()) {
        let sides = match &run.edges {
            Edges::None => vec![],
            Edges::Whole(only) => vec![(2 * i, only)],
            Edges::Two(head, tail) => vec![(2 * i, head), (2 * i + 1, tail)],
        };
        for (number, edge) in sides {
            edge.features.iter().for_each(|&feature| of.entry(feature).or_default().push(number));
        }
    }
    of
}

/// Lists of `lengths` items each.
fn list(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> ArrayRef {
    Arc::new(ListArray::new(item(values.data_type().clone()), OffsetBuffer::from_lengths(lengths), values, None))
}

fn records(fields: Fields, columns: Vec<ArrayRef>) -> ArrayRef {
    Arc::new(StructArray::new(fields, columns, None))
}

fn histograms(rows: &[Row]) -> ArrayRef {
    let all = || rows.iter().flat_map(|row| row.parts.histogram.iter().copied());
    let bins: ArrayRef = Arc::new(UInt8Array::from_iter_values(all().map(|(bin, _)| bin)));
    let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(all().map(|(_, count)| count)));
    list(rows.iter().map(|row| row.parts.histogram.len()), records(bin_fields(), vec![bins, counts]))
}

/// The columns of a list of examples.
fn examples<'a>(examples: impl Iterator<Item = &'a Kept> + Clone) -> Vec<ArrayRef> {
    let at = |example: &Kept| TokenPos::from_u64(example.address);
    vec![
        Arc::new(UInt64Array::from_iter_values(examples.clone().map(|e| at(e).row))),
        Arc::new(UInt32Array::from_iter_values(examples.clone().map(|e| at(e).pos))),
        Arc::new(UInt32Array::from_iter_values(examples.clone().map(|e| e.token))),
        Arc::new(Float32Array::from_iter_values(examples.map(|e| e.value))),
    ]
}

fn samples(rows: &[Row]) -> ArrayRef {
    let all = || rows.iter().flat_map(|row| &row.parts.samples);
    let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt8Array::from_iter_values(all().map(|(bin, _)| *bin)))];
    columns.extend(examples(all().map(|(_, kept)| kept)));
    list(rows.iter().map(|row| row.parts.samples.len()), records(sample_fields(), columns))
}
