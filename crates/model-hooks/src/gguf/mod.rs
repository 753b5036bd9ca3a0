//! Models in GGUF files, the single-file format of llama.cpp.
//!
//! [`GgufFile`] reads the file without trusting it, [`dequantize`] expands its blocks exactly as the reference does. What they
//! mean for a model is built on these two and reached through [`load`](crate::load()): the header becomes a configuration in Hugging
//! Face's words (`words.rs`, `rope.rs`), the tensors get Hugging Face's names and order of rows (`source.rs`), both by what is known of
//! each architecture (`arch/`); a family reads them as it reads a folder. The tokenizer becomes the `tokenizer.json` that it was made
//! from (`tokenizer.rs`, `pre_tokenizer.rs`, `sentencepiece.rs`).

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod arch;
mod dequant;
mod file;
mod header;
mod pre_tokenizer;
mod rope;
mod sentencepiece;
mod source;
mod tensor_type;
mod tokenizer;
mod value;
mod words;

pub use dequant::dequantize;
pub use file::{GgufFile, GgufTensor};
pub use tensor_type::TensorType;
pub use value::{Array, Value};

pub(crate) use pre_tokenizer::PreTokenizer;
pub(crate) use tokenizer::read_tokenizer;

use crate::families::AnyModel;
use crate::{ProcessingSteps, Result};
use arch::Architecture;
use source::Source;
use tensor_kernels::Engine;
use words::Words;

/// Reads configuration and weights, and builds the model.
///
/// # Errors
/// [`Error::GgufUnsupported`](crate::Error::GgufUnsupported) for another architecture or a part of a split file;
/// [`Error::MissingKey`](crate::Error::MissingKey), [`Error::BadKey`](crate::Error::BadKey) and
/// [`Error::UnexpectedTensors`](crate::Error::UnexpectedTensors) where the file is not a model that is known here to the last detail.
pub(crate) fn load_model(file: &GgufFile, processing: ProcessingSteps, engine: Engine) -> Result<AnyModel> {
    refuse_parts(file)?;
    let arch = Architecture::of(file)?;
    let mut words = Words::of(file, arch)?;
    let sizes = words.say_sizes(&arch.sizes)?;
    (arch.describe)(&mut words, &sizes)?;
    AnyModel::from_source(&Source::new(file, arch, sizes), &words.finish(), processing, engine)
}

/// Large models are distributed as several files (`NAME-00001-of-00003.gguf`), each with a part of the tensors.
fn refuse_parts(file: &GgufFile) -> Result<()> {
    match file.u32("split.count")? {
        None | Some(0 | 1) => Ok(()),
        Some(count) => {
            let found = match file.u32("split.no")? {
                Some(part) => format!("part {} of {count}", u64::from(part) + 1),
                None => format!("a part of {count}"),
            };
            let whole = "whole files: put the parts together with `llama-gguf-split --merge`";
            Err(file.unsupported("split file (split.count)", found, whole))
        }
    }
}
