//! From a path to a model.

use crate::config::Config;
use crate::families::AnyModel;
use crate::gguf::{self, GgufFile};
use crate::tokenizer::eos_ids_of_folder;
use crate::{Error, LanguageModel, Processing, ProcessingSteps, Result, Tokenizer};
use candle_core::Device;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tensor_kernels::{Engine, Precision};

/// Options for loading a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Processing of the weights.
    pub processing: ProcessingSteps,
    /// Device; the kernels of this crate run on the CPU.
    pub device: Device,
    /// Engine: the kernels (default), or the reference, which gradients need.
    pub engine: Engine,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::new(Processing::None)
    }
}

impl LoadOptions {
    /// On the CPU, with this processing, computed by the kernels in [`Precision::F32Fast`].
    #[must_use]
    pub fn new(processing: impl Into<ProcessingSteps>) -> Self {
        Self { processing: processing.into(), device: Device::Cpu, engine: Engine::default() }
    }

    /// Computed by this engine.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Computed by the kernels in this precision, on the machine's best back end.
    ///
    /// Over every hook point of the small models in `tests/golden`, errors against TransformerLens are at most 3.4e-5 of a point's rms in
    /// `F32`; in `Bf16` the rms of the errors is up to 2.3e-2 of the point's rms, and the worst single value (in a pattern) is off by 0.36.
    /// `F32Fast` is `F32` on machines without AMX; with it, measured in software, 7e-4 at a pattern and 2.4e-4 at the logits.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        self.engine(Engine::kernels(precision))
    }
}

/// Loads a model from a Hugging Face folder (`config.json`, `model.safetensors` or `pytorch_model.bin` or shards with their index, and
/// its tokenizer if there is one: [`Tokenizer::from_folder`]), or from a GGUF file (name ending in `.gguf`; it carries its own tokenizer).
///
/// Folders may be of any family in [`AnyModel::supported`]; GGUF files of the architectures `gemma`, `gemma2`, `gemma3`, `gpt2`,
/// `gptneox`, `llama` (Mistral too), `phi3`, `qwen2` and `qwen3`. What llama.cpp's converter did to the tensors is undone, so that a file
/// in f32 gives the numbers of its folder to the last bit. Parts of split files and mixtures of experts are refused, and so is every key
/// of the architecture whose effect is not known here. What such a file cannot say: the window of a Mistral, the scaling of scores
/// by layer of some GPT-2s, another activation of a GPT-NeoX than exact gelu.
///
/// Weights may be f32, f16 or bf16, in GGUF files also quantized (see [`gguf::TensorType`]), and are widened to f32. Nothing is guessed:
/// an unknown family, activation or tensor is an error.
///
/// # Errors
/// [`Error::NotAModel`], [`Error::MissingKey`], [`Error::BadKey`], [`Error::MissingWeight`], [`Error::UnexpectedTensors`],
/// [`Error::BadIndex`], [`Error::GgufMalformed`], [`Error::GgufUnsupported`] and those of the tensor files.
pub fn load(path: &Path, options: &LoadOptions) -> Result<LanguageModel> {
    if !options.device.is_cpu() {
        return Err(Error::NotAModel { path: path.into(), reason: "models run on the CPU only" });
    }
    if path.is_dir() {
        return load_folder(path, options);
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return load_gguf(path, options);
    }
    let reason = "expected a folder with config.json and model.safetensors or pytorch_model.bin, or a .gguf file";
    Err(Error::NotAModel { path: path.into(), reason })
}

fn load_gguf(path: &Path, options: &LoadOptions) -> Result<LanguageModel> {
    let file = GgufFile::open(path)?;
    let model = Arc::new(gguf::load_model(&file, options.processing, options.engine)?);
    let tokenizer = match gguf::read_tokenizer(&file)? {
        Some((inner, special, warnings)) => Some(Tokenizer::from_parts(inner, special)?.with_warnings(warnings)),
        None => None,
    };
    let name = path.file_stem().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    Ok(LanguageModel::new(model, tokenizer, name, options.processing))
}

fn load_folder(folder: &Path, options: &LoadOptions) -> Result<LanguageModel> {
    let config = Config::read(&folder.join("config.json"))?;
    config.refuse_unless(
        "quantization_config",
        &serde_json::Value::Null,
        "absent: quantized folders are not supported",
    )?;
    let processing = options.processing;
    let model = Arc::new(AnyModel::from_folder(folder, &config, processing, options.engine)?);
    let name = folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    let warnings = model.warnings().to_vec();
    let (tokenizer, eos_ids) = match Tokenizer::from_folder(folder) {
        Ok(tokenizer) => (Some(tokenizer), BTreeSet::new()),
        Err(Error::NoTokenizer { .. }) => (None, eos_ids_of_folder(folder)?),
        Err(e) => return Err(e),
    };
    Ok(LanguageModel::new(model, tokenizer, name, processing).with_eos_ids(eos_ids).with_warnings(warnings))
}
