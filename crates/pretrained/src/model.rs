//! Models by name.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::cache::Kind;
use crate::hub_client::is_local;
use crate::registry::model_names;
use crate::session::Session;
use crate::{Error, Hub, Result, names};
use model_hooks::{LanguageModel, LoadOptions, load};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tensor_files::read_weight_map;

const SMALL: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];
/// What a tokenizer is built from where there is no `tokenizer.json`.
const TOKENIZER_PARTS: [&str; 3] = ["tokenizer.model", "vocab.json", "merges.txt"];
/// One file of weights, or the index of its shards: the first that a repository has is fetched.
const WEIGHTS: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

/// A model's files, here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadedModel {
    /// Its name, as its repository calls it.
    pub name: String,
    /// The folder that [`model_hooks::load`] takes, or a GGUF file.
    pub path: PathBuf,
    /// The files in it that a model needs.
    pub files: Vec<PathBuf>,
    /// The commit of its repository; `None` for a local path.
    pub revision: Option<String>,
}

impl DownloadedModel {
    /// Loads it.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub fn load(&self, options: &LoadOptions) -> Result<LanguageModel> {
        // A snapshot's folder is called after its commit.
        Ok(load(&self.path, options)?.named(&self.name))
    }
}

impl Hub {
    /// Brings a model here: a name of TransformerLens (`gpt2-small`), a repository of the hub, or a local folder or GGUF file.
    ///
    /// Fetches `config.json`, what tokenizers are read from, and weights, one file or all shards of the index: safetensors, or where there are
    /// none `pytorch_model.bin` (read without executing anything).
    ///
    /// # Errors
    /// [`Error::NoWeights`] for a repository with neither, [`Error::UnsafeName`] for an index that names something outside of its
    /// folder, and everything that a download can meet.
    pub fn model(&self, name: &str) -> Result<DownloadedModel> {
        if is_local(name) {
            let path = Path::new(name).to_path_buf();
            let name = path.file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy().into_owned());
            return Ok(DownloadedModel { name, path, files: Vec::new(), revision: None });
        }
        let session = self.model_session(name)?;
        let mut required = vec!["config.json".to_owned()];
        required.extend(weights(&session, name)?);
        let mut optional = SMALL.map(str::to_owned).to_vec();
        if !session.has("tokenizer.json") {
            optional.extend(TOKENIZER_PARTS.map(str::to_owned));
        }
        let files = session.get(&required, &optional)?;
        let name = name.rsplit('/').next().unwrap_or(name).into();
        Ok(DownloadedModel { name, path: session.folder()?, files, revision: Some(session.commit) })
    }

    /// Opens the first of the model's names that the hub has; offline, the first that is in the cache.
    fn model_session(&self, name: &str) -> Result<Session<'_>> {
        let revision = self.revision_or_main();
        let mut names = model_names(name);
        names.retain(|other| *other == name || other.contains('/') || *other == "gpt2");
        let mut failure = None;
        for other in names {
            match Session::open(self, Kind::Model, other, revision) {
                Err(error @ Error::NotInCache { .. }) => failure = failure.or(Some(error)),
                opened => return opened,
            }
        }
        Err(failure.unwrap_or_else(|| self.unknown(name)))
    }
}

/// The files of weights in a repository: all of the first format that it has.
fn weights(session: &Session<'_>, name: &str) -> Result<Vec<String>> {
    for (single, index) in WEIGHTS {
        if session.has(single) {
            return Ok(vec![single.into()]);
        }
        if session.has(index) {
            let path = session.get(&[index.to_owned()], &[])?.remove(0);
            return Ok(std::iter::once(index.into()).chain(shards(&path)?).collect());
        }
    }
    Err(Error::NoWeights { repo: name.into() })
}

/// The files that an index names: plain names, in its own folder.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let wrong = |reason: &str| Error::BadIndex { path: index.into(), reason: reason.into() };
    let map = read_weight_map(index).map_err(|source| match source.kind() {
        std::io::ErrorKind::InvalidData => wrong(&source.to_string()),
        _ => Error::Io { path: index.into(), source },
    })?;
    let map = map.ok_or_else(|| wrong("it has no `weight_map`"))?;
    let mut found = BTreeSet::new();
    for file in map.values() {
        names::file(file)?;
        if file.contains('/') {
            return Err(Error::UnsafeName {
                what: "shard",
                name: file.clone(),
                reason: "it must be a plain file name inside the folder",
            });
        }
        found.insert(file.clone());
    }
    Ok(found)
}
