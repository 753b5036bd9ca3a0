//! State of a run on disk, from which a killed run goes on: [`Checkpoints`].

use crate::census::FeatureCensus;
use crate::error::{Error, Result};
use activation_store::{StreamDifference, StreamId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tensor_files::{AtomicFolder, read_bounded, remove_folder, remove_stale_partials};

const PREFIX: &str = "checkpoint-";
const STATE: &str = "state.json";
const VERSION: u32 = 2;
/// `state.json` has a few thousand bytes, and some for each hook point and each file of the text.
const MOST_STATE_BYTES: u64 = 64 << 20;

/// Checkpoint schedule and folder of a census run.
///
/// The folder holds one folder `checkpoint-<batches>` with the censuses (as [files](crate::file)) and `state.json`. A new one is written under a temporary name, synced
/// and renamed, and only then the old one is removed, by a rename as well: a process that is killed at any moment leaves a whole one. One run
/// at a time may use a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    folder: PathBuf,
    batches: u64,
    tokens: u64,
    time: Duration,
}

/// Content of `state.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    batches: u64,
    tokens: u64,
    identity: Identity,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Identity of a run: its stream and its SAEs. A run goes on only from a checkpoint of the same identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) stream: StreamId,
    /// Digests of the SAEs, in the order in which they were added.
    pub(crate) saes: Vec<String>,
}

/// A checkpoint that could not be read, so that a run went on from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedCheckpoint {
    /// Its folder.
    pub path: PathBuf,
    /// The reason.
    pub reason: String,
}

/// A run as a checkpoint stores it.
pub(crate) struct Found {
    pub(crate) batches: u64,
    pub(crate) tokens: u64,
    pub(crate) censuses: Vec<FeatureCensus>,
    /// Later checkpoints that could not be read.
    pub(crate) damaged: Vec<DamagedCheckpoint>,
}

impl Checkpoints {
    /// Checkpoints every five minutes, in this folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), batches: u64::MAX, tokens: u64::MAX, time: Duration::from_secs(300) }
    }

    /// Adds a checkpoint after every `batches` batches.
    #[must_use]
    pub fn every_batches(mut self, batches: u64) -> Self {
        self.batches = batches;
        self
    }

    /// Adds a checkpoint after every `tokens` tokens, at the end of the batch that completes them.
    #[must_use]
    pub fn every_tokens(mut self, tokens: u64) -> Self {
        self.tokens = tokens;
        self
    }

    /// Sets the time between checkpoints, five minutes by default.
    #[must_use]
    pub fn every(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Returns whether a checkpoint is due after this much time, this many batches or this many tokens.
    pub(crate) fn due(&self, time: Duration, batches: u64, tokens: u64) -> bool {
        time >= self.time || batches >= self.batches || tokens >= self.tokens
    }

    fn io(&self) -> impl Fn(std::io::Error) -> Error {
        |source| Error::Io { path: self.folder.clone(), source }
    }

    /// Whether a run can be resumed from here: the folder has a checkpoint, whatever it is of.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn exist(&self) -> Result<bool> {
        Ok(!self.all()?.is_empty())
    }

    /// Writes a checkpoint.
    pub(crate) fn write(
        &self,
        identity: &Identity,
        batches: u64,
        tokens: u64,
        censuses: &[&FeatureCensus],
    ) -> Result<()> {
        let target = self.folder.join(format!("{PREFIX}{batches:020}"));
        // One that could not be read; the one that the run went on from is there as well.
        remove_folder(&target)?;
        let new = AtomicFolder::create(&target)?;
        let state = State { version: VERSION, batches, tokens, identity: identity.clone() };
        for (i, census) in censuses.iter().enumerate() {
            census.save(&new.path().join(census_name(i)))?;
        }
        tensor_files::write_atomically::<Error>(&new.path().join(STATE), |file| {
            serde_json::to_writer(file, &state).map_err(|e| self.io()(e.into()))
        })?;
        new.finish()?;
        self.remove_all_but(Some(&target))
    }

    /// The latest checkpoint that can be read, if any, of these censuses over this source. Nothing is removed.
    pub(crate) fn latest(&self, identity: &Identity, censuses: &[&FeatureCensus]) -> Result<Option<Found>> {
        let mut damaged = Vec::new();
        for path in self.all()?.into_iter().rev() {
            match read(&path, identity, censuses) {
                Ok(found) => return Ok(Some(Found { damaged, ..found })),
                Err(error) if is_damage(&error) => {
                    damaged.push(DamagedCheckpoint { path, reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        match damaged.into_iter().next() {
            None => Ok(None),
            Some(DamagedCheckpoint { path, reason }) => Err(Error::Checkpoint { path, reason }),
        }
    }

    /// Removes everything that was written down, and the folder if nothing else is in it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_all_but(None)?;
        // Not empty, or never made: neither matters.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }

    fn remove_all_but(&self, wanted: Option<&Path>) -> Result<()> {
        // The oldest first: what is killed in between leaves the newest.
        let unwanted = self.all()?.into_iter().filter(|folder| Some(folder.as_path()) != wanted);
        unwanted.into_iter().try_for_each(|folder| remove_folder(&folder))?;
        remove_stale_partials(&self.folder);
        Ok(())
    }

    /// The checkpoints, oldest first.
    fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(self.io())?,
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(self.io())?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                folders.push(entry.path());
            }
        }
        folders.sort();
        Ok(folders)
    }
}

/// Reads one checkpoint, and checks that it is of these censuses over this source.
fn read(folder: &Path, identity: &Identity, censuses: &[&FeatureCensus]) -> Result<Found> {
    let state = read_state(&folder.join(STATE))?;
    check_same(folder, &state.identity, identity)?;
    let load = |(i, census): (usize, &&FeatureCensus)| {
        // Files larger than ours are read, so that a census of other options is reported as such and not as too large.
        let most = census.options().memory_bytes(census.d_sae()).saturating_mul(64);
        let loaded = FeatureCensus::load(&folder.join(census_name(i)), most)?;
        loaded.check_like(census).map(|()| loaded)
    };
    let censuses = censuses.iter().enumerate().map(load).collect::<Result<_>>()?;
    Ok(Found { batches: state.batches, tokens: state.tokens, censuses, damaged: Vec::new() })
}

fn check_same(folder: &Path, found: &Identity, expected: &Identity) -> Result<()> {
    let other = |what: String, found: String, expected: String| {
        Err(Error::OtherRun { path: folder.into(), what, found, expected })
    };
    if let Some(StreamDifference { field, left, right, .. }) = found.stream.difference(&expected.stream) {
        return other(field, left, right);
    }
    if found.saes.len() != expected.saes.len() {
        return other("number of SAEs".into(), found.saes.len().to_string(), expected.saes.len().to_string());
    }
    let differs = found.saes.iter().zip(&expected.saes).enumerate().find(|(_, (found, expected))| found != expected);
    match differs {
        None => Ok(()),
        Some((i, (found, expected))) => other(format!("SAE {i} (digest)"), found.clone(), expected.clone()),
    }
}

/// Whether a file is missing or is not what it should be, in contrast to one of another run or version.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::File { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn census_name(i: usize) -> String {
    format!("census-{i}.parquet")
}

fn read_state(path: &Path) -> Result<State> {
    let damaged = |reason: String| Error::File { path: path.to_owned(), reason };
    let text = read_bounded(path, MOST_STATE_BYTES).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    // A state of another version has other fields.
    let Version { version } = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    match version {
        VERSION => Ok(serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?),
        version => Err(Error::CheckpointVersion { path: path.to_owned(), found: version, expected: VERSION }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_by_time_batches_or_tokens() {
        let checkpoints = Checkpoints::new("x").every_batches(10).every_tokens(1000);
        let due = |seconds, batches, tokens| checkpoints.due(Duration::from_secs(seconds), batches, tokens);
        assert!(!due(299, 9, 999));
        assert!(due(300, 0, 0) && due(0, 10, 0) && due(0, 0, 1000));
    }
}
