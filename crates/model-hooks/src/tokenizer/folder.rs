//! A tokenizer from a Hugging Face folder, with its special tokens from the small files beside it.

use super::side_files::{SideFiles, bounded, unusable};
use super::{Tokenizer, added, caught, patterns, roles};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Larger files are refused. The largest published ones have 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 1 << 28;

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder.
    ///
    /// Tokens that `tokenizer_config.json` adds are added. Special tokens come from `tokenizer_config.json`, else from
    /// `special_tokens_map.json`; a BOS or EOS that neither names comes from `config.json`, else from `generation_config.json` (GPT-2's
    /// folder on the hub is such a case). [`eos_ids`](Self::eos_ids) has every id that any of these names as an end of text. Where two
    /// files differ, or name what the vocabulary does not have, [`warnings`](Self::warnings) says so.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] when there is no `tokenizer.json`; [`Error::Tokenizer`] naming the file for malformed files, or a BOS that
    /// is to be added but not there.
    pub fn from_folder(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Err(Error::NoTokenizer { path });
        }
        let mut warnings = Vec::new();
        let files = SideFiles::read(dir, &mut warnings)?;
        let bytes = bounded(&path, MAX_TOKENIZER_BYTES)?;
        patterns::check(&bytes).map_err(|reason| unusable(&path, reason))?;
        let mut inner =
            caught(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|reason| unusable(&path, reason))?;
        added::add(&files, &mut inner, &mut warnings)?;
        let special = roles::special_tokens(&files, &inner, &roles::RoleDefaults::default(), &mut warnings)?;
        let tokenizer = Self::from_parts(inner, special).map_err(|e| match e {
            Error::Tokenizer { path: None, reason } => unusable(&path, reason),
            other => other,
        })?;
        Ok(tokenizer.with_warnings(warnings))
    }
}

/// The ids that end a text by a folder's configurations, for a model without a tokenizer.
pub(crate) fn eos_ids_of_folder(dir: &Path) -> Result<BTreeSet<u32>> {
    Ok(roles::eos_ids(&SideFiles::read(dir, &mut Vec::new())?))
}
