//! What the integration tests share: the golden folders, and how errors are counted.
#![allow(dead_code, reason = "each test binary uses its own part")]

#[path = "../../../../tests/support/tolerances.rs"]
pub mod tolerances;

use candle_core::{DType, Tensor};
use model_hooks::{Arithmetic, Engine, HookPoint, LanguageModel, LoadOptions, ProcessingSteps, TokenBatch, load};
use std::path::PathBuf;
use tensor_files::SafetensorsFile;

pub const MODELS: [&str; 18] = [
    "gpt2",
    "gpt2_scale_by_layer",
    "llama",
    "llama3_rope",
    "gemma1",
    "gemma2",
    "gemma3",
    "gpt_neo",
    "gptj",
    "mistral",
    "mistral_sliding",
    "neox_parallel",
    "neox_serial",
    "olmo2",
    "phi3",
    "phi3_partial",
    "qwen2",
    "qwen3",
];

/// Each family as people call it, with a small model of it.
pub fn families() -> Vec<(&'static str, &'static str)> {
    vec![
        ("GPT-2", "gpt2"),
        ("GPT-Neo", "gpt_neo"),
        ("GPT-J", "gptj"),
        ("GPT-NeoX", "neox_parallel"),
        ("Llama", "llama"),
        ("Mistral", "mistral_sliding"),
        ("Qwen 2", "qwen2"),
        ("Qwen 3", "qwen3"),
        ("Phi-3", "phi3"),
        ("OLMo 2", "olmo2"),
        ("Gemma", "gemma1"),
        ("Gemma 2", "gemma2"),
        ("Gemma 3", "gemma3"),
    ]
}

pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn model(name: &str, processing: impl Into<ProcessingSteps>) -> LanguageModel {
    load(&folder(name), &LoadOptions::new(processing)).unwrap()
}

pub fn model_on(name: &str, processing: impl Into<ProcessingSteps>, engine: Engine) -> LanguageModel {
    load(&folder(name), &LoadOptions::new(processing).engine(engine)).unwrap()
}

/// The reference, and the kernels in every arithmetic that this machine has.
pub fn engines() -> impl Iterator<Item = Engine> {
    std::iter::once(Engine::Reference).chain(Arithmetic::available().map(Engine::Kernels))
}

/// The bound on errors of a whole model on this engine, in parts of the rms, where f32 is held to `f32`.
pub fn tolerance(engine: Engine, f32: f64) -> f64 {
    let bounds = tolerances::MODELS;
    let (amx_f32fast, bf16) = (bounds.amx_f32fast.max(f32), bounds.bf16);
    tolerances::Bounds { f32, amx_f32fast, bf16 }.on(engine)
}

/// A folder's golden tensors, with the ones stored under another name found there.
pub struct Golden {
    file: SafetensorsFile,
    meta: serde_json::Value,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let meta = std::fs::read(folder(name).join("meta.json")).unwrap();
        Self {
            file: SafetensorsFile::open(folder(name).join("golden.safetensors")).unwrap(),
            meta: serde_json::from_slice(&meta).unwrap(),
        }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        let stored = self.stored(name);
        let mut name = stored.as_str();
        while let Some(other) = self.meta["same_as"].get(name).and_then(|v| v.as_str()) {
            name = other;
        }
        self.file.load(name).unwrap_or_else(|e| panic!("{name}: {e}")).to_dtype(DType::F32).unwrap()
    }

    /// The name in the file: TransformerLens' own, where ours differs.
    fn stored(&self, name: &str) -> String {
        let (mode, point) = name.split_once('.').unwrap_or_default();
        let renamed = self.meta["renamed"].as_object().into_iter().flatten();
        let mut theirs = renamed.filter(|(_, ours)| *ours == point);
        theirs.next().map_or(name.into(), |(theirs, _)| format!("{mode}.{theirs}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.contains(name) || self.meta["same_as"].get(name).is_some()
    }

    /// Whether the file leaves this point out because it keeps only other layers of its site.
    pub fn leaves_out(&self, point: HookPoint) -> bool {
        let (Some(layer), Some(site)) = (point.layer(), point.site()) else { return false };
        let kept = self.meta["kept_layers_of"].get(site.name()).and_then(|kept| kept.as_array());
        kept.is_some_and(|kept| !kept.iter().any(|kept| kept.as_u64() == Some(layer as u64)))
    }

    pub fn order(&self) -> Vec<String> {
        self.meta["cache_order"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string()).collect()
    }

    pub fn tokens(&self) -> TokenBatch {
        let rows: Vec<Vec<i64>> = self.file.load("tokens").unwrap().to_vec2().unwrap();
        let rows: Vec<Vec<u32>> = rows.into_iter().map(|r| r.into_iter().map(|t| t as u32).collect()).collect();
        TokenBatch::new(&rows).unwrap()
    }
}

/// The models whose rows of several lengths are in `golden/ragged`.
pub const RAGGED: [&str; 4] = ["gpt2", "llama", "gemma2", "neox_parallel"];

/// Rows of several lengths, each as transformers runs it alone and carries it on.
pub struct RaggedGolden {
    file: SafetensorsFile,
    pub rows: Vec<Vec<u32>>,
    /// What greedy generation adds to each row.
    pub generated: Vec<Vec<u32>>,
}

impl RaggedGolden {
    pub fn open(name: &str) -> Self {
        let file = SafetensorsFile::open(folder("ragged").join(format!("{name}.safetensors"))).unwrap();
        let ids = |name: String| -> Vec<u32> {
            let ids: Vec<i64> = file.load(&name).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            ids.into_iter().map(|id| id as u32).collect()
        };
        let count = (0..).take_while(|row| file.contains(&format!("row{row}.tokens"))).count();
        let rows = (0..count).map(|row| ids(format!("row{row}.tokens"))).collect();
        let generated = (0..count).map(|row| ids(format!("row{row}.generated"))).collect();
        Self { file, rows, generated }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.file.load(name).unwrap().to_dtype(DType::F32).unwrap()
    }
}

pub fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// `max |a - b| / rms(b)` over the finite entries of `b`; entries of `b` that are not finite must be the same in `a`.
pub fn error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (mut worst, mut square, mut count) = (0f64, 0f64, 0usize);
    for (a, b) in values(a).into_iter().zip(values(b)) {
        if b.is_finite() {
            worst = worst.max(f64::from((a - b).abs()));
            assert!(a.is_finite(), "{a} where {b} is expected");
            square += f64::from(b) * f64::from(b);
            count += 1;
        } else {
            assert_eq!(a.to_bits(), b.to_bits());
        }
    }
    worst / (square / count as f64).sqrt()
}

/// `rms(a - b) / rms(b)` over the finite entries of `b`.
pub fn rms_error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    let finite = || a.iter().zip(&b).filter(|(_, b)| b.is_finite()).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let square = |of: fn((f64, f64)) -> f64| finite().map(of).map(|x| x * x).sum::<f64>();
    (square(|(a, b)| a - b) / square(|(_, b)| b)).sqrt()
}

#[track_caller]
pub fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let found = error(a, b);
    assert!(found <= tolerance, "{what}: error {found:.2e} of the rms, at most {tolerance:.0e} allowed");
}

#[track_caller]
pub fn assert_same_bits(what: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let differing = values(a).into_iter().zip(values(b)).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(differing, 0, "{what}: {differing} values differ");
}

/// A model folder in pieces, to be changed and written elsewhere.
pub struct Pieces {
    pub config: serde_json::Value,
    pub tensors: Vec<(String, Tensor)>,
}

impl Pieces {
    pub fn of(name: &str) -> Self {
        let config = serde_json::from_slice(&std::fs::read(folder(name).join("config.json")).unwrap()).unwrap();
        let file = SafetensorsFile::open(folder(name).join("model.safetensors")).unwrap();
        let tensors = file.names().into_iter().map(|n| (n.clone(), file.load(&n).unwrap())).collect();
        Self { config, tensors }
    }

    /// Sets a key of the configuration.
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.config[key] = value.into();
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(key);
        self
    }

    /// Rewrites each tensor: a new name and value, or nothing.
    pub fn map(mut self, f: impl Fn(String, Tensor) -> Option<(String, Tensor)>) -> Self {
        self.tensors = self.tensors.into_iter().filter_map(|(name, x)| f(name, x)).collect();
        self
    }

    pub fn plus(mut self, name: &str, tensor: Tensor) -> Self {
        self.tensors.push((name.into(), tensor));
        self
    }

    pub fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        tensor_files::save_safetensors(dir.path().join("model.safetensors"), &self.tensors, None).unwrap();
        dir
    }

    pub fn load(&self, processing: impl Into<ProcessingSteps>) -> model_hooks::Result<LanguageModel> {
        load(self.write().path(), &LoadOptions::new(processing))
    }
}

/// The error of a folder, whose text must contain every one of `words`.
#[track_caller]
pub fn refused(pieces: &Pieces, words: &[&str]) -> model_hooks::Error {
    let error = pieces.load(model_hooks::Processing::None).expect_err("accepted");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
    error
}
