use super::entry::{NeuronpediaActivation, NeuronpediaFeature};
use super::figures::{groups, histogram, largest, rounded, share};
use super::logits::{Direction, at_once, directions};
use super::spool::{Firing, Spool};
use super::{NeuronpediaOptions, NeuronpediaReport, NeuronpediaTarget};
use crate::export::folder::begin;
use crate::export::scratch::Scratch;
use crate::export::tokens::Tokens;
use crate::export::{ExportError, ExportProgress, check_width};
use crate::lens::{residual_map, written};
use crate::{Error, Result};
use activation_store::{ActivationBatch, ActivationSource, ExclusionCounts, ResolvedFilter, RowIndex};
use model_hooks::ResidualMap;
use serde_json::{Value, json};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use tensor_files::{AtomicFolder, write_atomically};

/// More ranges of features than this take too much memory: 64 KiB each.
const MOST_SPOOLS: usize = 256;
/// Tokens with the largest and the smallest logits, and entries of the decoder row.
const LOGITS: usize = 10;
const ENTRIES: usize = 3;
/// Ids beyond the tokenizer's vocabulary: rows that pad `W_U`.
const OUT_OF_RANGE: &str = "<|outofrange|>";

/// Runs over a source once and writes the folder `out`, which appears when all of it is written.
///
/// Memory: a forward pass and its sparse codes, 64 KiB for each of at most 256 ranges of features, then the activations of one range, and 64 MiB of logits. Disk:
/// 16 bytes an activation and 8 bytes a token beside the files.
///
/// # Errors
/// [`ExportError`]: a folder that exists, a source that shuffles or does not remember its rows, rows of different lengths, no text, activations that are not
/// finite; a dictionary of another width than its hook or whose output is not as wide as the model; the source's and the dictionary's own; I/O. Nothing is left
/// behind.
pub fn write_neuronpedia(
    source: &mut dyn ActivationSource,
    target: &NeuronpediaTarget<'_>,
    out: &Path,
    options: &NeuronpediaOptions,
    progress: &mut dyn FnMut(ExportProgress),
) -> Result<NeuronpediaReport> {
    options.check()?;
    check_width(source, target.hook, target.coder)?;
    let (left, right_size) = ("the source's hooks", target.hook + 1);
    let read = source.spec().hooks.get(target.hook);
    let read = read.ok_or(Error::SizeMismatch {
        left,
        left_size: source.spec().hooks.len(),
        right: "the target's",
        right_size,
    })?;
    let at = written(target.model, target.coder, read.selector())?;
    let map = residual_map(target.model, target.coder, at)?;
    let folder = begin(out)?;
    let mut text = Text::new(target, map, options, &folder)?;
    let (mut seen, wanted) = (0, options.rows.unwrap_or(u64::MAX));
    while !text.full(wanted) {
        let Some(batch) = source.next().transpose()? else { break };
        text.take(&batch, source.token_rows(), wanted)?;
        seen += batch.len() as u64;
        progress(ExportProgress::text(seen, options.rows.map(|rows| rows * text.tokens.context as u64)));
    }
    let report = text.write(folder.path(), progress)?;
    folder.finish()?;
    Ok(report)
}

/// What has been seen so far.
struct Text<'a> {
    target: &'a NeuronpediaTarget<'a>,
    /// From decoder rows to the residual stream.
    map: ResidualMap,
    options: &'a NeuronpediaOptions,
    files: Vec<Range<u32>>,
    spools: Vec<Spool>,
    /// Where all of them lie meanwhile.
    scratch: Scratch,
    tokens: Tokens,
    filter: ResolvedFilter,
    excluded: ExclusionCounts,
    negative: u64,
    /// The source's number of the latest row.
    latest: Option<u64>,
}

impl<'a> Text<'a> {
    fn new(
        target: &'a NeuronpediaTarget<'a>,
        map: ResidualMap,
        options: &'a NeuronpediaOptions,
        folder: &AtomicFolder,
    ) -> Result<Self> {
        let files = options.files(target.coder.d_sae());
        let n = files.len().min(MOST_SPOOLS);
        let border = |i: usize| i * files.len() / n;
        let spool = |i: usize| {
            let (first, last) = (border(i), border(i + 1));
            Spool::new(first..last, files[first].start..files[last - 1].end)
        };
        let spools = (0..n).map(spool).collect();
        let filter = options.filter.resolve(Some(target.tokenizer))?;
        let (tokens, excluded) = (Tokens::new(folder)?, ExclusionCounts::default());
        let scratch = Scratch::new(folder)?;
        Ok(Self { target, map, options, files, spools, scratch, tokens, filter, excluded, negative: 0, latest: None })
    }

    fn full(&self, rows: u64) -> bool {
        self.tokens.rows as u64 >= rows
    }

    /// Takes a batch in, up to the last row that is wanted.
    fn take(&mut self, batch: &ActivationBatch, index: Option<&RowIndex>, wanted: u64) -> Result<()> {
        let mut rows = Vec::with_capacity(batch.at.len());
        for at in &batch.at {
            if self.latest != Some(at.row) {
                if self.full(wanted) {
                    break;
                }
                if let Some(after) = self.latest.filter(|latest| *latest >= at.row) {
                    return Err(ExportError::Order { found: at.row, after }.into());
                }
                let row = index.and_then(|index| index.get(at.row)).ok_or(ExportError::NoRow { row: at.row })?;
                self.latest = Some(at.row);
                self.tokens.push(at.row, &row.tokens)?;
            }
            rows.push(self.tokens.rows as u32 - 1);
        }
        let (left, right_size) = ("the batch's tensors", self.target.hook + 1);
        let held = batch.rows.get(self.target.hook);
        let held =
            held.ok_or(Error::SizeMismatch { left, left_size: batch.rows.len(), right: "the hooks", right_size })?;
        let mut excluded = Vec::new();
        self.filter.exclusions_of_batch(batch, held, index, &mut excluded)?;
        excluded.iter().take(rows.len()).flatten().for_each(|exclusion| self.excluded.count(*exclusion));
        let codes = self.target.coder.encode(&held.narrow(0, 0, rows.len())?)?;
        for (line, (features, values)) in codes.features.iter().enumerate() {
            if excluded[line].is_some() {
                continue;
            }
            // Features rise, and so do the ranges.
            let mut spool = 0;
            for (&feature, &value) in features.iter().zip(values) {
                if !value.is_finite() {
                    return Err(ExportError::Value { feature, value, at: batch.at[line], most: f32::MAX }.into());
                }
                while feature >= self.spools[spool].features.end {
                    spool += 1;
                }
                if value != 0.0 {
                    self.negative += u64::from(value < 0.0);
                    let firing = Firing { row: rows[line], pos: batch.at[line].pos, value };
                    self.spools[spool].push(&mut self.scratch, feature, firing)?;
                }
            }
        }
        Ok(())
    }

    fn write(mut self, folder: &Path, progress: &mut dyn FnMut(ExportProgress)) -> Result<NeuronpediaReport> {
        if self.tokens.rows == 0 {
            return Err(ExportError::NoText.into());
        }
        let (rows, context, files) = (self.tokens.rows as u64, self.tokens.context, self.files.len());
        let activations = self.spools.iter().map(Spool::count).sum();
        let mut alive = 0;
        for spool in std::mem::take(&mut self.spools) {
            let (numbers, first) = (spool.files.clone(), spool.features.start);
            let mut firings = spool.read(&mut self.scratch)?;
            alive += firings.iter().filter(|firings| !firings.is_empty()).count();
            for number in numbers {
                let features = self.files[number].clone();
                let held = (features.start - first) as usize..(features.end - first) as usize;
                self.write_file(&folder.join(format!("batch-{number}.json")), features, &mut firings[held])?;
                progress(ExportProgress::files(number as u64 + 1, files as u64));
            }
        }
        let settings = self.settings();
        for (name, value) in [("run_settings.json", &settings.0), ("skipped_indexes.json", &settings.1)] {
            let path = folder.join(name);
            let io = |source| Error::Io { path: path.clone(), source };
            write_atomically::<Error>(&path, |file| write!(file, "{value:#}").map_err(io))?;
        }
        Ok(NeuronpediaReport {
            rows,
            context,
            files,
            alive,
            activations,
            negative: self.negative,
            excluded: self.excluded,
        })
    }

    /// `run_settings.json` and `skipped_indexes.json`.
    fn settings(&self) -> (Value, Value) {
        let options = self.options;
        let run = json!({
            "sae_set": options.sae_set, "sae_path": "", "outputs_dir": "", "model_id": options.model_id, "layer": options.layer,
            "np_sae_id_suffix": options.sae_id_suffix, "n_prompts_total": self.tokens.rows, "n_tokens_in_prompt": self.tokens.context,
            "n_features_at_a_time": options.features_per_file, "huggingface_dataset_path": options.dataset,
        });
        let skipped = json!({
            "model_id": options.model_id, "layer": options.layer.to_string(), "sae_set": options.sae_set,
            "log_sparsity": null, "skipped_indexes": [],
        });
        (run, skipped)
    }

    /// Writes a file, feature by feature.
    fn write_file(&mut self, path: &Path, features: Range<u32>, firings: &mut [Vec<Firing>]) -> Result<()> {
        let io = |source| Error::Io { path: path.into(), source };
        let options = self.options;
        let head = json!({
            "model_id": options.model_id, "layer": options.layer, "sae_set": options.sae_set, "sae_id_suffix": options.sae_id_suffix,
        });
        let head = head.to_string();
        write_atomically(path, |out| {
            write!(out, "{},\"features\":[", head.trim_end_matches('}')).map_err(io)?;
            let all: Vec<u32> = features.clone().collect();
            for part in all.chunks(at_once(self.target)) {
                for (&feature, direction) in part.iter().zip(directions(self.target, &self.map, part)?) {
                    let held = &mut firings[(feature - features.start) as usize];
                    held.iter_mut().for_each(|firing| firing.value *= direction.norm);
                    let entry = self.entry(feature, held, &direction)?;
                    if feature > features.start {
                        out.write_all(b",").map_err(io)?;
                    }
                    serde_json::to_writer(&mut *out, &entry).map_err(|error| io(error.into()))?;
                }
            }
            out.write_all(b"]}").map_err(io)
        })
    }

    fn entry(&mut self, feature: u32, firings: &[Firing], direction: &Direction) -> Result<NeuronpediaFeature> {
        let total = self.tokens.rows as u64 * self.tokens.context as u64;
        let values: Vec<f32> = firings.iter().map(|firing| firing.value).collect();
        let (freq_values, freq_heights) = histogram(&values);
        let (logit_values, logit_heights) = histogram(&direction.logits);
        let pos = largest(&direction.logits, LOGITS);
        let turned: Vec<f32> = direction.logits.iter().map(|logit| -logit).collect();
        let neg = largest(&turned, LOGITS);
        let logits = |ids: &[usize]| ids.iter().map(|id| rounded(f64::from(direction.logits[*id]))).collect();
        let strings = |ids: &[usize]| ids.iter().map(|id| self.print(*id as u32)).collect();
        let entries = largest(&direction.row, ENTRIES);
        let sum: f64 = direction.row.iter().map(|v| f64::from(v.abs())).sum();
        let of_row = |i: &usize| f64::from(direction.row[*i]);
        Ok(NeuronpediaFeature {
            feature_index: feature,
            neuron_alignment_values: entries.iter().map(|i| rounded(of_row(i))).collect(),
            neuron_alignment_l1: entries
                .iter()
                .map(|i| rounded(of_row(i).abs() / sum.max(f64::MIN_POSITIVE)))
                .collect(),
            neuron_alignment_indices: entries,
            neg_str: strings(&neg),
            neg_values: logits(&neg),
            pos_str: strings(&pos),
            pos_values: logits(&pos),
            frac_nonzero: share(firings.len(), total),
            freq_hist_data_bar_values: freq_values,
            freq_hist_data_bar_heights: freq_heights,
            logits_hist_data_bar_heights: logit_heights,
            logits_hist_data_bar_values: logit_values,
            n_prompts_total: self.tokens.rows as u64,
            n_tokens_in_prompt: self.tokens.context,
            dataset: self.options.dataset.clone(),
            activations: self.examples(feature, firings, total)?,
            ..NeuronpediaFeature::default()
        })
    }

    fn examples(&mut self, feature: u32, firings: &[Firing], total: u64) -> Result<Vec<NeuronpediaActivation>> {
        let mut examples = Vec::new();
        for group in groups(firings, feature, total, self.options.seed) {
            for chosen in &group.examples {
                let tokens = self.tokens.read(chosen.row)?;
                let mut values = vec![0.0; tokens.len()];
                let from = firings.partition_point(|firing| firing.row < chosen.row);
                for firing in firings[from..].iter().take_while(|firing| firing.row == chosen.row) {
                    values[firing.pos as usize] = rounded(f64::from(firing.value));
                }
                examples.push(NeuronpediaActivation {
                    bin_min: group.bin_min,
                    bin_max: group.bin_max,
                    bin_contains: group.bin_contains,
                    tokens: tokens[1..].iter().map(|token| self.print(*token)).collect(),
                    values: values.split_off(1),
                    qualifying_token_index: chosen.pos as usize - 1,
                });
            }
        }
        Ok(examples)
    }

    fn print(&self, token: u32) -> String {
        self.target.tokenizer.piece(token).unwrap_or(OUT_OF_RANGE).to_owned()
    }
}
