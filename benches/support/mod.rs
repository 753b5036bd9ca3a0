//! What the benchmarks run on: the embedded demo, or the files that three environment variables name.
#![allow(dead_code)] // Each benchmark compiles this module for itself and uses a part of it.

use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions, TokenPos};
use feature_census::{CensusBatch, CensusOptions, FeatureCensus};
use model_hooks::{LanguageModel, LoadOptions, Processing};
use sae_core::{Sae, SparseCoder};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tensor_kernels::{Arithmetic, Backend, Engine, Precision};

/// A model, an SAE on it, and text.
pub struct Setup {
    pub model: LanguageModel,
    pub sae: Sae,
    pub text: PathBuf,
}

/// Which files and how they are computed.
pub fn engine(precision: &str, backend: Option<&str>) -> Engine {
    let known = Precision::ALL.into_iter().find(|p| p.name() == precision);
    let precision = known.unwrap_or_else(|| panic!("`{precision}` is none of f32, f32fast, bf16"));
    match backend {
        None => Engine::kernels(precision),
        Some("reference") => Engine::Reference,
        Some(name) => {
            let backend: Backend = name.parse().expect("a back end");
            Engine::Kernels(Arithmetic::on(backend, precision).expect("one that this machine has"))
        }
    }
}

/// The most memory that this process has had, in bytes, where the system says so.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Processor time of this process in milliseconds, all threads together, where the system has `/proc` (its clock ticks 100 times a second).
pub fn cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: Vec<f64> = after_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    Some(ticks.iter().sum::<f64>() * 10.0)
}

fn path(variable: &str, file: &str) -> PathBuf {
    let demo = || Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo").join(file);
    std::env::var_os(variable).map_or_else(demo, PathBuf::from)
}

impl Setup {
    /// `SAESCOPE_GPT2_RANDOM`, `SAESCOPE_GPT2_SAE` and `SAESCOPE_GPT2_CORPUS`, or the demo.
    pub fn load() -> Self {
        Self::load_on(Engine::default())
    }

    /// The same, computed by this engine.
    pub fn load_on(engine: Engine) -> Self {
        let options = LoadOptions::new(Processing::TransformerLens).engine(engine);
        let sae_options = sae_core::LoadOptions { engine, ..Default::default() };
        Self {
            model: model_hooks::load(&path("SAESCOPE_GPT2_RANDOM", "lm"), &options).expect("the model loads"),
            sae: Sae::load_with(path("SAESCOPE_GPT2_SAE", "sae"), &sae_options).expect("the SAE loads"),
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

/// Milliseconds of each step, batch after batch.
#[derive(Default)]
pub struct Clock(pub Vec<(&'static str, Vec<f64>)>);

impl Clock {
    pub fn time<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = work();
        self.note(step, start.elapsed().as_secs_f64() * 1e3);
        out
    }

    pub fn note(&mut self, step: &'static str, ms: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == step) {
            Some((_, all)) => all.push(ms),
            None => self.0.push((step, vec![ms])),
        }
    }
}

/// Batches of 8 rows of 128 tokens through the model to the SAE's hook, its encoder and a census of all its features.
pub fn census_loop(setup: &Setup, sae: &Sae, batches: usize, clock: &mut Clock) -> FeatureCensus {
    let mut census = FeatureCensus::new(sae.d_sae(), CensusOptions::default()).expect("options");
    let mut store = setup.store();
    let filter = census.options().filter.resolve(setup.model.tokenizer()).expect("a tokenizer");
    for _ in 0..batches {
        let start = Instant::now();
        let batch = clock.time("tokens", || store.get_batch_tokens()).expect("tokens").expect("the text suffices");
        let x = clock.time("forward", || store.activations(&batch)).expect("activations");
        let codes = clock.time("encode", || sae.encode(&x)).expect("codes");
        clock.time("count", || {
            let places = batch.rows.iter().flat_map(|row| (0..row.tokens.len()).map(move |pos| (row, pos)));
            let at: Vec<_> = places.clone().map(|(row, pos)| TokenPos { row: row.row, pos: pos as u32 }).collect();
            let tokens: Vec<u32> = places.clone().map(|(row, pos)| row.tokens[pos]).collect();
            let documents: Vec<_> =
                places.map(|(row, pos)| row.origin[pos].as_ref().map(|origin| origin.doc)).collect();
            let positions: Vec<u32> = (0..x.dim(1).expect("[batch, pos, width]") as u32).collect();
            let excluded = filter.exclusions(&batch.rows, &positions, &x).expect("whole rows");
            let part = CensusBatch::new(&at, &tokens, &codes.features).documents(&documents).excluded(&excluded);
            census.push(&part).expect("finite activations");
        });
        clock.note("iteration", start.elapsed().as_secs_f64() * 1e3);
    }
    census
}
