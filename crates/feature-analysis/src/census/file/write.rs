//! Writing.

use super::super::coverage::{Edges, Run};
use super::super::shard::{Kept, SHARD, Shard};
use super::super::{FeatureCensus, FeatureStats, address};
use super::header::{Header, KEY};
use super::schema::{bin_fields, example_fields, item, sample_fields, schema};
use crate::{Error, Result};
use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StructArray, UInt8Array, UInt32Array,
    UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

impl FeatureCensus {
    /// Writes the census as a Parquet file (see the [format](super::file)): whole or not at all, and the same bytes for the same tokens. Beside the
    /// census it takes memory for 4,096 features at a time, about as much again as the census has for them.
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
        let header = serde_json::to_string(&Header::of(self, &runs))
            .map_err(|e| Error::Arrow(arrow::error::ArrowError::JsonError(e.to_string())))?;
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
            writer.write(&self.columns(shard, &twice_of, &edges, &schema)?)?;
            writer.flush()?;
        }
        writer.close()?;
        Ok(())
    }

    fn columns(
        &self,
        shard: &Shard,
        twice: &HashMap<u32, u64>,
        edges: &BTreeMap<u32, Vec<u32>>,
        schema: &Arc<Schema>,
    ) -> Result<RecordBatch> {
        let n = shard.tallies.len();
        let features = shard.start..shard.start + n as u32;
        let twice_of = |feature: u32| twice.get(&feature).copied().unwrap_or(0);
        let stats: Vec<FeatureStats> =
            features.clone().map(|feature| self.stats_with(feature, twice_of(feature))).collect::<Result<_>>()?;
        let floats = |of: fn(&FeatureStats) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(stats.iter().map(of)))
        };
        let extremes = |of: fn(&FeatureStats) -> f32| -> ArrayRef {
            Arc::new(stats.iter().map(|s| (s.count > 0).then(|| of(s))).collect::<Float32Array>())
        };
        let whole = |of: &dyn Fn(usize) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values((0..n).map(of))) };
        let tallies = &shard.tallies;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values(features.clone())),
            whole(&|i| tallies[i].count),
            floats(|s| s.density),
            floats(|s| s.mean),
            floats(|s| s.std),
            extremes(|s| s.min),
            extremes(|s| s.max),
            Arc::new(Int64Array::from_iter_values(tallies.iter().map(|t| (t.sum >> 64) as i64))),
            whole(&|i| tallies[i].sum as u64),
            whole(&|i| (tallies[i].squares >> 64) as u64),
            whole(&|i| tallies[i].squares as u64),
            Arc::new(stats.iter().map(|s| s.documents).collect::<UInt64Array>()),
            histograms(shard),
            tops(shard),
            samples(shard),
            together(shard, self.options.together.len()),
            edge_lists(features, edges),
        ];
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
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

fn histograms(shard: &Shard) -> ArrayRef {
    let (mut lengths, mut bins, mut counts) = (vec![], vec![], vec![]);
    for place in 0..shard.tallies.len() {
        let before = bins.len();
        for (bin, count) in (0..).zip(shard.counts(place)).filter(|(_, count)| *count > 0) {
            bins.push(bin);
            counts.push(count);
        }
        lengths.push(bins.len() - before);
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(UInt8Array::from(bins)), Arc::new(UInt64Array::from(counts))];
    list(lengths.into_iter(), records(bin_fields(), columns))
}

/// The columns of a list of examples.
fn examples(examples: &[Kept]) -> Vec<ArrayRef> {
    let at = |example: &Kept| address::unpack(example.address);
    vec![
        Arc::new(UInt64Array::from_iter_values(examples.iter().map(|e| at(e).row))),
        Arc::new(UInt32Array::from_iter_values(examples.iter().map(|e| at(e).pos))),
        Arc::new(UInt32Array::from_iter_values(examples.iter().map(|e| e.token))),
        Arc::new(Float32Array::from_iter_values(examples.iter().map(|e| e.value))),
    ]
}

fn tops(shard: &Shard) -> ArrayRef {
    let (mut lengths, mut all) = (vec![], vec![]);
    for place in 0..shard.tallies.len() {
        let ranked = shard.top.ranked(place);
        lengths.push(ranked.len());
        all.extend(ranked.into_iter().map(|e| Kept { address: e.address, value: e.value, token: e.note }));
    }
    list(lengths.into_iter(), records(example_fields(), examples(&all)))
}

fn samples(shard: &Shard) -> ArrayRef {
    let (mut lengths, mut bins, mut all) = (vec![], vec![], vec![]);
    for place in 0..shard.tallies.len() {
        let before = all.len();
        for bin in shard.window(place) {
            all.extend(shard.samples(place, bin..bin + 1));
            bins.resize(all.len(), bin as u8);
        }
        lengths.push(all.len() - before);
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt8Array::from(bins))];
    columns.extend(examples(&all));
    list(lengths.into_iter(), records(sample_fields(), columns))
}

fn together(shard: &Shard, chosen: usize) -> ArrayRef {
    let n = shard.tallies.len();
    let counts =
        (0..n).flat_map(|place| (0..chosen).map(move |c| (c, place))).map(|(c, place)| shard.together[c * n + place]);
    list(std::iter::repeat_n(chosen, n), Arc::new(UInt64Array::from_iter_values(counts)))
}

fn edge_lists(features: std::ops::Range<u32>, edges: &BTreeMap<u32, Vec<u32>>) -> ArrayRef {
    let of = |feature: u32| edges.get(&feature).map_or(&[][..], Vec::as_slice);
    let values: Vec<u32> = features.clone().flat_map(of).copied().collect();
    let values: ArrayRef = Arc::new(UInt32Array::from(values));
    list(features.map(|feature| of(feature).len()), values)
}
