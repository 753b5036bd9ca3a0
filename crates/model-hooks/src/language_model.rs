//! A model together with what is needed to talk to it.

use crate::{Error, HookedModel, LoadWarning, ModelShape, ProcessingSteps, Result, Tokenizer};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tensor_kernels::Engine;

/// A hooked model with its tokenizer (if any), its name and the processing of its weights. Cheap to clone.
#[derive(Clone)]
pub struct LanguageModel {
    model: Arc<dyn HookedModel>,
    tokenizer: Option<Arc<Tokenizer>>,
    name: String,
    processing: ProcessingSteps,
    eos_ids: BTreeSet<u32>,
    warnings: Vec<LoadWarning>,
}

impl LanguageModel {
    /// Puts the parts together; a user's own model goes in here. The tokenizer is [padded](Tokenizer::padded_to) to the model's vocabulary.
    #[must_use]
    pub fn new(
        model: Arc<dyn HookedModel>,
        tokenizer: Option<Tokenizer>,
        name: impl Into<String>,
        processing: ProcessingSteps,
    ) -> Self {
        let tokenizer = tokenizer.map(|tokenizer| tokenizer.padded_to(model.shape().d_vocab));
        let eos_ids = tokenizer.as_ref().map(|tokenizer| tokenizer.eos_ids().clone()).unwrap_or_default();
        let warnings = tokenizer.as_ref().map(|tokenizer| tokenizer.warnings().to_vec()).unwrap_or_default();
        Self { model, tokenizer: tokenizer.map(Arc::new), name: name.into(), processing, eos_ids, warnings }
    }

    /// The same with these ids, too, ending its texts.
    #[must_use]
    pub(crate) fn with_eos_ids(mut self, eos_ids: BTreeSet<u32>) -> Self {
        self.eos_ids.extend(eos_ids);
        self
    }

    /// Adds load warnings.
    #[must_use]
    pub(crate) fn with_warnings(mut self, warnings: impl IntoIterator<Item = LoadWarning>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Every id that ends a generated text according to its files: [`Tokenizer::eos_ids`], or without a tokenizer those of
    /// `config.json` and `generation_config.json`.
    #[must_use]
    pub fn eos_ids(&self) -> &BTreeSet<u32> {
        &self.eos_ids
    }

    /// Load warnings: oddities of the files that did not prevent loading. Programs print these.
    #[must_use]
    pub fn warnings(&self) -> &[LoadWarning] {
        &self.warnings
    }

    /// The same under another name: folders of downloads are called after a commit.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The model.
    #[must_use]
    pub fn hooked(&self) -> &dyn HookedModel {
        &*self.model
    }

    /// The tokenizer, if the model came with one. Token ids can be run without.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }

    /// The tokenizer, for what needs text.
    ///
    /// # Errors
    /// [`Error::ModelWithoutTokenizer`].
    pub fn try_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer().ok_or_else(|| Error::ModelWithoutTokenizer { model: self.name.clone() })
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &ModelShape {
        self.model.shape()
    }

    /// Its name, for titles and file headers.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Engine, for reports.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.model.engine()
    }

    /// Processing applied to the weights.
    #[must_use]
    pub fn processing(&self) -> ProcessingSteps {
        self.processing
    }
}

impl fmt::Debug for LanguageModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanguageModel")
            .field("name", &self.name)
            .field("shape", self.shape())
            .field("processing", &self.processing)
            .field("engine", &self.engine())
            .finish_non_exhaustive()
    }
}
