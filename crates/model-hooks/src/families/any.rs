//! Maps `model_type` to a family.

use super::gemma::Gemma;
use super::gemma2::Gemma2;
use super::gemma3::Gemma3;
use super::gpt_neo::GptNeo;
use super::gpt_neox::GptNeoX;
use super::gpt2::Gpt2;
use super::gptj::GptJ;
use super::llama::Llama;
use super::mistral::Mistral;
use super::olmo2::Olmo2;
use super::phi3::Phi3;
use super::qwen2::Qwen2;
use super::qwen3::Qwen3;
use super::{Decoder, Family};
use crate::config::Config;
use crate::folder::HfFolder;
use crate::weights::TensorSource;
use crate::{
    BlockPart, FinalNorm, Generate, HookPoint, HookedModel, LoadWarning, ModelShape, OutputWeights, ProcessingSteps,
    Result, Start, Tap, TokenBatch,
};
use candle_core::Tensor;
use std::path::Path;
use tensor_kernels::{Engine, Operand};

/// A family as files name it.
pub(crate) struct Known {
    /// Values of `model_type`.
    model_types: &'static [&'static str],
    /// Prefixes of its tensors' names; the first that fits is removed.
    prefixes: &'static [&'static str],
    load: Load,
}

type Load = fn(&Config, &dyn TensorSource, ProcessingSteps, Engine) -> Result<Box<dyn HookedModel>>;

/// Every family, in alphabetical order.
static KNOWN: [Known; 13] = [
    Known { model_types: &["gemma"], prefixes: &["model."], load: load_as::<Gemma> },
    Known { model_types: &["gemma2"], prefixes: &["model."], load: load_as::<Gemma2> },
    Known {
        model_types: &["gemma3", "gemma3_text"],
        prefixes: &["language_model.model.", "model.language_model.", "language_model.", "model."],
        load: load_as::<Gemma3>,
    },
    Known { model_types: &["gpt2"], prefixes: &["transformer."], load: load_as::<Gpt2> },
    Known { model_types: &["gpt_neo"], prefixes: &["transformer."], load: load_as::<GptNeo> },
    Known { model_types: &["gpt_neox"], prefixes: &["gpt_neox."], load: load_as::<GptNeoX> },
    Known { model_types: &["gptj"], prefixes: &["transformer."], load: load_as::<GptJ> },
    Known { model_types: &["llama"], prefixes: &["model."], load: load_as::<Llama> },
    Known { model_types: &["mistral"], prefixes: &["model."], load: load_as::<Mistral> },
    Known { model_types: &["olmo2"], prefixes: &["model."], load: load_as::<Olmo2> },
    Known { model_types: &["phi3"], prefixes: &["model."], load: load_as::<Phi3> },
    Known { model_types: &["qwen2"], prefixes: &["model."], load: load_as::<Qwen2> },
    Known { model_types: &["qwen3"], prefixes: &["model."], load: load_as::<Qwen3> },
];

fn load_as<F: Family>(
    config: &Config,
    files: &dyn TensorSource,
    processing: ProcessingSteps,
    engine: Engine,
) -> Result<Box<dyn HookedModel>> {
    Ok(Box::new(Decoder::load(F::parse(config)?, files, processing, engine)?))
}

/// A model of any family that is known here, picked by the `model_type` of its configuration.
///
/// [`load`](crate::load()) makes one and puts the tokenizer beside it.
pub struct AnyModel {
    model: Box<dyn HookedModel>,
    model_type: &'static str,
    warnings: Vec<LoadWarning>,
}

impl AnyModel {
    /// Every `model_type` that can be loaded.
    pub fn supported() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().flat_map(|known| known.model_types).copied()
    }

    /// The configuration's `model_type`: `gpt2`, `llama` ...
    #[must_use]
    pub fn model_type(&self) -> &'static str {
        self.model_type
    }

    /// Load warnings.
    pub(crate) fn warnings(&self) -> &[LoadWarning] {
        &self.warnings
    }

    /// Reads a Hugging Face folder with this configuration.
    pub(crate) fn from_folder(
        folder: &Path,
        config: &Config,
        processing: ProcessingSteps,
        engine: Engine,
    ) -> Result<Self> {
        let (known, _) = Known::of(config)?;
        Self::from_source(&HfFolder::open(folder, known.prefixes)?, config, processing, engine)
    }

    /// Reads a model whose tensors come from elsewhere.
    pub(crate) fn from_source(
        files: &dyn TensorSource,
        config: &Config,
        processing: ProcessingSteps,
        engine: Engine,
    ) -> Result<Self> {
        let (known, model_type) = Known::of(config)?;
        let model = (known.load)(config, files, processing, engine)?;
        Ok(Self { model, model_type, warnings: files.warnings() })
    }
}

impl Known {
    fn of(config: &Config) -> Result<(&'static Self, &'static str)> {
        let expected = || AnyModel::supported().collect::<Vec<_>>().join(", ");
        let found = config.text("model_type")?.ok_or_else(|| config.missing("model_type", &expected()))?;
        let same = |known: &'static Self| Some((known, *known.model_types.iter().find(|name| **name == found)?));
        KNOWN.iter().find_map(same).ok_or_else(|| config.bad("model_type", &expected()))
    }
}

impl HookedModel for AnyModel {
    fn shape(&self) -> &ModelShape {
        self.model.shape()
    }

    fn hook_points(&self) -> &[HookPoint] {
        self.model.hook_points()
    }

    fn run(
        &self,
        tokens: &TokenBatch,
        start: Start<'_>,
        last: Option<HookPoint>,
        tap: &mut dyn Tap,
    ) -> Result<Option<Tensor>> {
        self.model.run(tokens, start, last, tap)
    }

    fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.model.unembed(resid)
    }

    fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor> {
        self.model.w_u_columns(start, len)
    }

    fn final_norm(&self) -> Result<Option<FinalNorm>> {
        self.model.final_norm()
    }

    fn output_weights(&self, layer: usize, part: BlockPart) -> Result<OutputWeights> {
        self.model.output_weights(layer, part)
    }

    fn engine(&self) -> Engine {
        self.model.engine()
    }

    fn generator(&self) -> Option<&dyn Generate> {
        self.model.generator()
    }

    fn w_u_operand(&self) -> Option<Operand<'_>> {
        self.model.w_u_operand()
    }
}
