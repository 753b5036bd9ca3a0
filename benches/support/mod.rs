//! What the benchmarks run on: the embedded demo, or the files that three environment variables name.

use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions};
use model_hooks::{LanguageModel, LoadOptions, Processing};
use sae_core::{Sae, SparseCoder};
use std::path::{Path, PathBuf};

/// A model, an SAE on it, and text.
pub struct Setup {
    pub model: LanguageModel,
    pub sae: Sae,
    pub text: PathBuf,
}

impl Setup {
    /// `SAESCOPE_GPT2_RANDOM`, `SAESCOPE_GPT2_SAE` and `SAESCOPE_GPT2_CORPUS`, or the demo.
    pub fn load() -> Self {
        let demo = |file: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo").join(file);
        let path = |variable: &str, file: &str| std::env::var_os(variable).map_or_else(|| demo(file), PathBuf::from);
        let options = LoadOptions::new(Processing::TransformerLens);
        Self {
            model: model_hooks::load(&path("SAESCOPE_GPT2_RANDOM", "lm"), &options).expect("the model loads"),
            sae: Sae::load(path("SAESCOPE_GPT2_SAE", "sae")).expect("the SAE loads"),
            text: path("SAESCOPE_GPT2_CORPUS", "text.jsonl"),
        }
    }

    /// A store at the text's beginning: 8 rows of 128 tokens at a time.
    pub fn store(&self) -> ActivationStore {
        let documents = Documents::open(&[&self.text], DocumentOptions::default()).expect("the text opens");
        ActivationStore::from_sae(&self.model, &self.sae, documents, StoreOptions::default()).expect("a store")
    }

    /// A hundred features, evenly spread.
    pub fn features(&self) -> Vec<u32> {
        (0..100).map(|i| u32::try_from(i * self.sae.d_sae() / 100).expect("an SAE's size fits")).collect()
    }
}
