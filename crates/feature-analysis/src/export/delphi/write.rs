use super::spool::Spool;
use super::{DelphiOptions, ExportSae};
use crate::export::folder::begin;
use crate::export::scratch::Scratch;
use crate::export::tokens::Tokens;
use crate::export::{ExportError, ExportProgress, check_width};
use crate::{Error, Result};
use activation_store::{ActivationBatch, ActivationSource, RowIndex};
use std::io::Write;
use std::path::Path;
use tensor_files::{AtomicFolder, write_atomically};

/// What a cache holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DelphiReport {
    /// Rows of tokens.
    pub rows: u64,
    /// Tokens in a row.
    pub context: usize,
    /// Activations of each dictionary, in the order given.
    pub activations: Vec<u64>,
}

/// Runs over a source once and writes the folder `out` with a cache for each dictionary. `out` appears when all of it is written.
///
/// Memory: a forward pass, its sparse codes, and 64 KiB for each range of features of each dictionary. Open files: four, whatever the ranges. Disk: 14 bytes an activation beside the cache itself
/// (8 bytes an activation, and 8 bytes a token in each file).
///
/// # Errors
/// [`ExportError`]: a folder that exists, names that are not plain, a source that shuffles or does not remember its rows, rows of different lengths, no text,
/// activations that f16 cannot hold; a dictionary of another width than its hook; the source's and the dictionaries' own; I/O. Nothing is left behind.
pub fn write_delphi(
    source: &mut dyn ActivationSource,
    targets: &[ExportSae<'_>],
    out: &Path,
    options: &DelphiOptions,
    progress: &mut dyn FnMut(ExportProgress),
) -> Result<DelphiReport> {
    options.check(targets)?;
    targets.iter().try_for_each(|target| check_width(source, target.hook, target.coder))?;
    let folder = begin(out)?;
    let mut cache = Cache::new(targets, &folder, options)?;
    let (mut seen, wanted) = (0, options.rows.unwrap_or(u64::MAX));
    while !cache.full(wanted) {
        let Some(batch) = source.next().transpose()? else { break };
        cache.take(&batch, source.token_rows(), wanted)?;
        seen += batch.len() as u64;
        progress(ExportProgress::text(seen, options.rows.map(|rows| rows * cache.tokens.context as u64)));
    }
    let report = cache.write(&folder, options, progress)?;
    folder.finish()?;
    Ok(report)
}

/// What has been seen so far.
struct Cache<'a> {
    targets: &'a [ExportSae<'a>],
    /// For each dictionary its ranges of features.
    spools: Vec<Vec<Spool>>,
    /// Where all of them lie meanwhile.
    scratch: Scratch,
    tokens: Tokens,
    /// The source's number of the latest row.
    latest: Option<u64>,
    /// For each line of a batch its row in the cache.
    rows: Vec<u32>,
}

impl<'a> Cache<'a> {
    fn new(targets: &'a [ExportSae<'a>], folder: &AtomicFolder, options: &DelphiOptions) -> Result<Self> {
        let spools =
            |target: &ExportSae<'_>| options.splits(target.coder.d_sae()).into_iter().map(Spool::new).collect();
        let (spools, scratch) = (targets.iter().map(spools).collect(), Scratch::new(folder)?);
        Ok(Self { targets, spools, scratch, tokens: Tokens::new(folder)?, latest: None, rows: Vec::new() })
    }

    fn full(&self, rows: u64) -> bool {
        // A row may go on in the next batch, but a source that says so delivers whole rows.
        self.tokens.rows as u64 >= rows
    }

    /// Takes a batch in, up to the last row that is wanted.
    fn take(&mut self, batch: &ActivationBatch, index: Option<&RowIndex>, wanted: u64) -> Result<()> {
        self.rows.clear();
        for at in &batch.at {
            if self.latest != Some(at.row) {
                if self.full(wanted) {
                    break;
                }
                self.begin_row(at.row, index)?;
            }
            self.rows.push(self.tokens.rows as u32 - 1);
        }
        for (target, spools) in self.targets.iter().zip(&mut self.spools) {
            let rows = batch.rows.get(target.hook).map(|rows| rows.narrow(0, 0, self.rows.len())).transpose()?;
            let (left, right_size) = ("the batch's tensors", target.hook + 1);
            let rows =
                rows.ok_or(Error::SizeMismatch { left, left_size: batch.rows.len(), right: "the hooks", right_size })?;
            let codes = target.coder.encode(&rows)?;
            for (line, (features, values)) in codes.features.iter().enumerate() {
                // Features rise, and so do the ranges.
                let mut spool = 0;
                for (&feature, &value) in features.iter().zip(values) {
                    while feature > *spools[spool].features.end() {
                        spool += 1;
                    }
                    spools[spool].push(&mut self.scratch, self.rows[line], batch.at[line], feature, value)?;
                }
            }
        }
        Ok(())
    }

    fn begin_row(&mut self, row: u64, index: Option<&RowIndex>) -> Result<()> {
        if let Some(after) = self.latest.filter(|latest| *latest >= row) {
            return Err(ExportError::Order { found: row, after }.into());
        }
        let tokens = index.and_then(|index| index.get(row)).ok_or(ExportError::NoRow { row })?;
        self.latest = Some(row);
        self.tokens.push(row, &tokens.tokens)
    }

    fn write(
        mut self,
        folder: &AtomicFolder,
        options: &DelphiOptions,
        progress: &mut dyn FnMut(ExportProgress),
    ) -> Result<DelphiReport> {
        let (rows, context) = (self.tokens.rows as u64, self.tokens.context);
        if rows == 0 {
            return Err(ExportError::NoText.into());
        }
        let count = |spools: &Vec<Spool>| spools.iter().map(Spool::count).sum();
        let activations = self.spools.iter().map(count).collect();
        let (mut done, files) = (0, self.spools.iter().map(Vec::len).sum::<usize>() as u64);
        for (target, spools) in self.targets.iter().zip(self.spools) {
            let folder = folder.path().join(&target.hookpoint);
            let io = |source| Error::Io { path: folder.clone(), source };
            std::fs::create_dir(&folder).map_err(io)?;
            for spool in spools {
                spool.write(&mut self.scratch, &folder, &mut self.tokens)?;
                done += 1;
                progress(ExportProgress::files(done, files));
            }
            let config = options.config(context, rows * context as u64);
            let text = serde_json::to_string_pretty(&config).map_err(|e| io(e.into()))?;
            write_atomically::<Error>(&folder.join("config.json"), |file| file.write_all(text.as_bytes()).map_err(io))?;
        }
        Ok(DelphiReport { rows, context, activations })
    }
}
