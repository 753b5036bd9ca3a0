//! Reading a cache back, a range of features at a time.

use crate::export::ExportError;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use tensor_files::{SafetensorsFile, read_bounded};

const MOST_CONFIG_BYTES: u64 = 16 << 20;

/// The cache of one hookpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct DelphiCache {
    /// What `config.json` says.
    pub config: Map<String, Value>,
    /// The ranges of features and their files, rising.
    splits: Vec<(RangeInclusive<u32>, PathBuf)>,
}

/// One activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DelphiActivation {
    /// The row of tokens, in the cache.
    pub row: u32,
    /// The position in it.
    pub pos: u32,
    /// The feature.
    pub feature: u32,
    /// Its activation, as f16 kept it.
    pub value: f32,
}

/// The rows of tokens of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelphiTokens {
    /// `[rows, context]`.
    pub ids: Vec<i64>,
    /// Tokens in a row.
    pub context: usize,
}

/// The activations of one range of features.
#[derive(Clone, Debug, PartialEq)]
pub struct DelphiSplit {
    /// The features.
    pub features: RangeInclusive<u32>,
    /// Their activations, in the file's order.
    pub activations: Vec<DelphiActivation>,
    /// All rows of the text, where the file has them.
    pub tokens: Option<DelphiTokens>,
}

impl DelphiCache {
    /// Looks into the folder of a hookpoint.
    ///
    /// # Errors
    /// I/O, a `config.json` that is not a JSON object, names of files that are not ranges, ranges that overlap.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let io = |source| Error::Io { path: folder.to_path_buf(), source };
        let malformed = |path: &Path, reason: String| ExportError::Malformed { path: path.into(), reason };
        let path = folder.join("config.json");
        let text = read_bounded(&path, MOST_CONFIG_BYTES).map_err(|source| Error::Io { path: path.clone(), source })?;
        let config = serde_json::from_slice(&text).map_err(|e| malformed(&path, e.to_string()))?;
        let mut splits = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                let range =
                    range(&path).ok_or_else(|| malformed(&path, "expected a name FIRST_LAST.safetensors".into()))?;
                splits.push((range, path));
            }
        }
        splits.sort_by_key(|(range, _)| *range.start());
        if let Some(pair) = splits.windows(2).find(|pair| pair[0].0.end() >= pair[1].0.start()) {
            return Err(malformed(&pair[1].1, format!("its features overlap those of {}", pair[0].1.display())).into());
        }
        Ok(Self { config, splits })
    }

    /// The ranges of features, rising.
    pub fn splits(&self) -> impl ExactSizeIterator<Item = &RangeInclusive<u32>> {
        self.splits.iter().map(|(range, _)| range)
    }

    /// Reads each range in turn; memory is that of one: 16 bytes an activation, 8 a token, and its file's tensors.
    ///
    /// # Errors
    /// Each item: a file that is not a whole safetensors file of the three tensors, locations outside the range or the tokens, NaN or infinity.
    pub fn read(&self) -> impl Iterator<Item = Result<DelphiSplit>> {
        self.splits.iter().map(|(features, path)| read(features.clone(), path))
    }
}

/// `FIRST_LAST`.
fn range(path: &Path) -> Option<RangeInclusive<u32>> {
    let (first, last) = path.file_stem()?.to_str()?.split_once('_')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn read(features: RangeInclusive<u32>, path: &Path) -> Result<DelphiSplit> {
    let malformed = |reason: String| Error::from(ExportError::Malformed { path: path.into(), reason });
    let file = SafetensorsFile::open(path)?;
    let shape = |name: &str| file.info(name).map(|info| info.shape.clone());
    let n = match shape("activations").as_deref() {
        Some(&[n]) => n,
        found => return Err(malformed(format!("`activations` has shape {found:?}, expected [n]"))),
    };
    let tokens = match shape("tokens").as_deref() {
        None => None,
        Some(&[rows, context]) => Some(DelphiTokens { ids: file.read_i64("tokens", &[rows, context])?, context }),
        Some(found) => return Err(malformed(format!("`tokens` has shape {found:?}, expected [rows, context]"))),
    };
    let values = file.read_f32("activations", &[n])?;
    let locations = file.read_i64("locations", &[n, 3])?;
    let mut activations = Vec::with_capacity(n);
    for (location, value) in locations.as_chunks::<3>().0.iter().zip(values) {
        let outside = || malformed(format!("location {location:?} is outside its features {features:?} or its tokens"));
        let [row, pos, latent] = location.map(u32::try_from);
        let (Ok(row), Ok(pos), Ok(latent)) = (row, pos, latent) else { return Err(outside()) };
        let feature = features.start().checked_add(latent).filter(|feature| features.contains(feature));
        let inside = |tokens: &DelphiTokens| {
            (pos as usize) < tokens.context && (row as usize) < tokens.ids.len() / tokens.context
        };
        match feature {
            Some(feature) if tokens.as_ref().is_none_or(inside) => {
                activations.push(DelphiActivation { row, pos, feature, value });
            }
            _ => return Err(outside()),
        }
    }
    Ok(DelphiSplit { features, activations, tokens })
}
