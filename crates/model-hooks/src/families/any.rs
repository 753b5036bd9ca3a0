//! Which family a `model_type` means.

use super::{Decoder, Family, gpt_neox::GptNeoX, gpt2::Gpt2, llama::Llama};
use crate::config::Config;
use crate::folder::WeightFolder;
use crate::weights::TensorSource;
use crate::{HookPoint, HookedModel, ModelShape, ProcessingSteps, Result, Start, Tap, TokenBatch};
use candle_core::Tensor;
use std::path::Path;
use tensor_kernels::{Engine, Operand};

/// A family as files name it.
pub(crate) struct Known {
    /// What `model_type` says.
    model_types: &'static [&'static str],
    /// What comes before the names of its tensors; the first that fits is removed.
    prefixes: &'static [&'static str],
    load: fn(&Config, &dyn TensorSource, ProcessingSteps, Engine) -> Result<Box<dyn HookedModel>>,
}

/// Every family, in alphabetical order.
static KNOWN: [Known; 3] = [
    Known { model_types: &["gpt2"], prefixes: &["transformer."], load: load_as::<Gpt2> },
    Known { model_types: &["gpt_neox"], prefixes: &["gpt_neox."], load: load_as::<GptNeoX> },
    Known { model_types: &["llama"], prefixes: &["model."], load: load_as::<Llama> },
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
}

impl AnyModel {
    /// Every `model_type` that can be loaded.
    pub fn supported() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().flat_map(|known| known.model_types).copied()
    }

    /// What the configuration says it is: `gpt2`, `llama` ...
    #[must_use]
    pub fn model_type(&self) -> &'static str {
        self.model_type
    }

    /// Reads a Hugging Face folder with this configuration.
    pub(crate) fn from_folder(
        folder: &Path,
        config: &Config,
        processing: ProcessingSteps,
        engine: Engine,
    ) -> Result<Self> {
        let (known, model_type) = Known::of(config)?;
        let files = WeightFolder::open(folder, known.prefixes)?;
        Ok(Self { model: (known.load)(config, &files, processing, engine)?, model_type })
    }

    /// Reads a model whose tensors come from elsewhere.
    pub(crate) fn from_source(
        files: &dyn TensorSource,
        config: &Config,
        processing: ProcessingSteps,
        engine: Engine,
    ) -> Result<Self> {
        let (known, model_type) = Known::of(config)?;
        Ok(Self { model: (known.load)(config, files, processing, engine)?, model_type })
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

    fn engine(&self) -> Engine {
        self.model.engine()
    }

    fn w_u_operand(&self) -> Option<Operand<'_>> {
        self.model.w_u_operand()
    }
}
