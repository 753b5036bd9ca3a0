//! Published file formats, one file each: all of them read into the one convention of [`Sae`](crate::Sae).
//!
//! [`open`] takes a folder or a file, detects the format (or takes it as an argument) and returns a [`Dictionary`]. Each reader is a
//! module with three functions: whether files look like its own, which files of a repository it needs, and the reading itself.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod circuit_tracer;
mod clt;
mod connor_rob;
mod dictionary_learning;
mod gemma_scope;
mod gemma_scope_2;
pub(crate) mod json_keys;
mod llama_scope;
mod mwhanna;
mod openai;
mod sae_format;
pub(crate) mod saelens;
mod single_pt;
mod slt;
mod source;
mod sparsify;
mod temporal;
mod weights;
mod yaml;

use crate::{Dictionary, Engine, Error, LoadOptions, Result};
pub use sae_format::SaeFormat;
use source::Source;
pub use source::{HubPath, OpenOptions, RequiredFiles};
use std::path::Path;

/// One format's three functions.
struct Reader {
    format: SaeFormat,
    /// Whether the folder or file looks like this format. Cheap: names, and at most a configuration or a header.
    recognizes: fn(&Path) -> bool,
    /// Files to fetch for the SAE at `path` of a repository.
    files: fn(path: &str) -> RequiredFiles,
    open: fn(&Source<'_>) -> Result<Dictionary>,
}

/// In the order of detection: the first that recognizes the files reads them.
const READERS: &[Reader] = &[
    saelens::reader::READER,
    sparsify::READER,
    llama_scope::LLAMA_SCOPE,
    llama_scope::R1,
    dictionary_learning::READER,
    gemma_scope::READER,
    gemma_scope_2::READER,
    connor_rob::READER,
    openai::READER,
    single_pt::QWEN_SCOPE,
    single_pt::DEEPSEEK_R1,
    single_pt::GOODFIRE,
    // Before `slt`: these have a `config.yaml` and `layer_L.safetensors` as well.
    mwhanna::READER,
    clt::READER,
    slt::READER,
    temporal::READER,
];

/// Opens an SAE of any format.
///
/// `path` is a folder, or a file of the formats that publish one file per SAE. What is read is brought to the convention of
/// [`Sae`](crate::Sae); [`OpenOptions::norm_scaling_factor`], or the factor that the files hold, is folded into the weights. What was folded,
/// ignored or left out is in [`SaeMetadata::notes`](crate::SaeMetadata::notes).
///
/// # Errors
/// [`Error::UnknownDialect`] when no format recognizes the files, and everything that reading can find: each error names the file.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Dictionary> {
    let path = path.as_ref();
    let format = options.format.map_or_else(|| detect(path), Ok)?;
    let read = |options: &OpenOptions| {
        let source = Source::new(path, options);
        let opened = (reader(format)?.open)(&source)?;
        source.finish(format, opened)
    };
    // A fold needs the exact weights, which packing for the engine may round: so it comes first.
    if options.norm_scaling_factor.is_some() && format != SaeFormat::SaeLens {
        let load = LoadOptions { engine: Engine::Reference, ..options.load.clone() };
        if let Dictionary::Sae(sae) = read(&OpenOptions { load, ..options.clone() })? {
            return Ok(sae.with_engine(options.load.engine)?.into());
        }
    }
    read(options)
}

/// The format that files look like.
///
/// # Errors
/// [`Error::UnknownDialect`], [`Error::Io`] when there is nothing at `path`.
pub fn detect(path: impl AsRef<Path>) -> Result<SaeFormat> {
    let path = path.as_ref();
    if let Some(reader) = READERS.iter().find(|reader| (reader.recognizes)(path)) {
        return Ok(reader.format);
    }
    std::fs::metadata(path).map_err(|source| Error::Io { path: path.into(), source })?;
    Err(Error::UnknownDialect { path: path.into(), held: held(path) })
}

impl SaeFormat {
    /// The files that the SAE at `path` of a repository consists of.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a format that cannot be read yet.
    pub fn files(self, path: &str) -> Result<RequiredFiles> {
        Ok((reader(self)?.files)(path.trim_matches('/')))
    }
}

fn reader(format: SaeFormat) -> Result<&'static Reader> {
    READERS.iter().find(|reader| reader.format == format).ok_or_else(|| Error::Parameter {
        name: "format",
        expected: READERS.iter().map(|reader| reader.format.name()).collect::<Vec<_>>().join(", "),
        found: format!("`{format}`"),
    })
}

/// A short description of the files at `path`.
fn held(path: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(path) else { return "one file".into() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let more = names.len().saturating_sub(8);
    names.truncate(8);
    let listed = names.join(", ");
    if more == 0 { format!("a folder of [{listed}]") } else { format!("a folder of [{listed}, and {more} more]") }
}
