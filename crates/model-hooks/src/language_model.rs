//! A model together with what is needed to talk to it.

use crate::{Error, HookedModel, ModelShape, ProcessingSteps, Result, Tokenizer};
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
}

impl LanguageModel {
    /// Puts the parts together; a user's own model goes in here.
    #[must_use]
    pub fn new(
        model: Arc<dyn HookedModel>,
        tokenizer: Option<Tokenizer>,
        name: impl Into<String>,
        processing: ProcessingSteps,
    ) -> Self {
        Self { model, tokenizer: tokenizer.map(Arc::new), name: name.into(), processing }
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
    pub fn require_tokenizer(&self) -> Result<&Tokenizer> {
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

    /// What computes it, for reports.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.model.engine()
    }

    /// What was done to the weights.
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
