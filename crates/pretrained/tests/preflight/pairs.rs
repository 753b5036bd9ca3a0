//! The SAEs of `tests/pairings` and of the demo, the demo's model under any processing or with changed weights, and three texts.

use candle_core::{Device, Tensor};
use model_hooks::{LanguageModel, LoadOptions, Processing, ProcessingSteps, TokenBatch, load};
use pretrained::preflight::Expected;
use sae_core::{Activation, Sae, SaeMetadata, SaeParts};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo");
const PAIRINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pairings");

/// Every SAE of the folder, in the order of the page.
pub const NAMES: [&str; 13] = [
    "pre1-standard",
    "pre2-topk-raw",
    "pre2-topk-unfolded",
    "pre3-gated",
    "post3-topk-layernorm",
    "mlp1-jumprelu",
    "attn2-topk",
    "z2-jumprelu",
    "z1-head3-standard",
    "transcoder2",
    "pre2-standard-no-bos",
    "pre3-topk-rescale",
    "pre2-jumprelu-almanac",
];

/// Rows of a text, and how many tokens are in one.
pub const ROWS: usize = 6;

pub fn model(processing: impl Into<ProcessingSteps>) -> LanguageModel {
    load(&Path::new(DEMO).join("lm"), &LoadOptions::new(processing)).unwrap()
}

pub static CENTERED: LazyLock<LanguageModel> = LazyLock::new(|| model(Processing::TransformerLens));
pub static RAW: LazyLock<LanguageModel> = LazyLock::new(|| model(Processing::None));

/// The model that the SAE was trained on.
pub fn home(sae: &Sae) -> &'static LanguageModel {
    let centered = sae.metadata().model_from_pretrained_kwargs.get("center_writing_weights");
    if centered == Some(&serde_json::Value::Bool(false)) { &RAW } else { &CENTERED }
}

/// As it was trained: norm factors folded.
pub fn sae(name: &str) -> Sae {
    let sae = as_published(name);
    match eval(name).get("norm_scaling_factor").and_then(serde_json::Value::as_f64) {
        Some(s) => sae.fold_norm_factor(s as f32).unwrap(),
        None => sae,
    }
}

/// As its files have it.
pub fn as_published(name: &str) -> Sae {
    if name == "demo" {
        return Sae::load(Path::new(DEMO).join("sae")).unwrap();
    }
    let folder = Path::new(PAIRINGS).join(name);
    if name != "transcoder2" {
        return Sae::load(&folder).unwrap();
    }
    // An SAE of the same four weights, whose metadata name the point that it writes.
    let text = std::fs::read_to_string(folder.join("cfg.json")).unwrap();
    let mut cfg: serde_json::Value = serde_json::from_str(&text).unwrap();
    cfg["architecture"] = "standard".into();
    cfg.as_object_mut().unwrap().remove("d_out");
    let as_sae = tempfile::tempdir().unwrap();
    std::fs::write(as_sae.path().join("cfg.json"), cfg.to_string()).unwrap();
    for file in ["sae_weights.safetensors", "sparsity.safetensors"] {
        std::fs::copy(folder.join(file), as_sae.path().join(file)).unwrap();
    }
    let sae = Sae::load(as_sae.path()).unwrap();
    let metadata = SaeMetadata { hook_name_out: Some("blocks.2.hook_mlp_out".into()), ..sae.metadata().clone() };
    sae.with_metadata(metadata)
}

fn eval(name: &str) -> serde_json::Value {
    let folder = if name == "demo" { Path::new(DEMO).join("sae") } else { Path::new(PAIRINGS).join(name) };
    serde_json::from_str(&std::fs::read_to_string(folder.join("eval.json")).unwrap()).unwrap()
}

/// What a release would say of it: measured on held-out text of its kind.
pub fn expected(name: &str) -> Expected {
    let eval = eval(name);
    Expected { l0: eval["l0"].as_f64(), variance_explained: eval["explained_variance"].as_f64() }
}

/// The parts of an SAE, to be changed.
pub fn parts(sae: &Sae) -> SaeParts {
    let w_enc = sae.w_enc_t().unwrap().t().unwrap().contiguous().unwrap();
    SaeParts {
        input_shift: sae.input_shift().map(Into::into),
        activation: sae.activation().clone(),
        normalization: sae.normalization(),
        act_shape: sae.act_shape(),
        metadata: sae.metadata().clone(),
        sparsity: sae.sparsity().map(Into::into),
        ..SaeParts::new(w_enc, sae.b_enc().into(), sae.w_dec().clone(), sae.b_dec().into())
    }
}

/// The same SAE with changed parts.
pub fn with(sae: &Sae, change: impl FnOnce(&mut SaeParts)) -> Sae {
    let mut parts = parts(sae);
    change(&mut parts);
    Sae::new(parts).unwrap()
}

/// The same SAE with changed metadata.
pub fn told(sae: &Sae, change: impl FnOnce(&mut SaeMetadata)) -> Sae {
    let mut metadata = sae.metadata().clone();
    change(&mut metadata);
    sae.clone().with_metadata(metadata)
}

pub fn relu(sae: &Sae) -> Sae {
    with(sae, |parts| parts.activation = Activation::Relu)
}

/// A matrix, its values changed.
pub fn map(tensor: &Tensor, change: impl FnOnce(&mut [f32])) -> Tensor {
    let mut flat: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    change(&mut flat);
    Tensor::from_vec(flat, tensor.dims(), &Device::Cpu).unwrap()
}

/// A text, tokenized.
pub struct Text {
    pub name: &'static str,
    ids: Vec<u32>,
}

impl Text {
    /// Rows of so many tokens in all, behind so many BOS.
    pub fn rows(&self, pos: usize, bos: usize) -> TokenBatch {
        let row = |ids: &[u32]| [vec![0; bos], ids.to_vec()].concat();
        let rows: Vec<Vec<u32>> = self.ids.chunks_exact(pos - bos).take(ROWS * 128 / pos).map(row).collect();
        TokenBatch::new(&rows).unwrap()
    }

    /// As the SAE was trained.
    pub fn for_sae(&self, sae: &Sae) -> TokenBatch {
        self.rows(128, usize::from(sae.metadata().prepend_bos == Some(true)))
    }
}

fn tokenized(name: &'static str, text: &str) -> Text {
    Text { name, ids: CENTERED.tokenizer().unwrap().encode(text).unwrap().ids }
}

fn demo_text(of: impl Fn(&str) -> bool) -> String {
    let lines = std::fs::read_to_string(Path::new(DEMO).join("text.jsonl")).unwrap();
    let documents: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let chosen: Vec<&str> =
        documents.iter().filter(|d| of(d["source"].as_str().unwrap())).map(|d| d["text"].as_str().unwrap()).collect();
    let every = (chosen.len() / 24).max(1);
    chosen.iter().step_by(every).map(|text| text.chars().take(400).collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// Held-out text of the demo's ten sources; source code; documentation.
pub fn texts() -> [Text; 3] {
    let file = |name: &str| std::fs::read_to_string(PathBuf::from(PAIRINGS).join("texts").join(name)).unwrap();
    [
        tokenized("demo", &demo_text(|_| true)),
        tokenized("code", &file("code.txt")),
        tokenized("docs", &file("docs.txt")),
    ]
}

/// The almanac's documents alone.
pub fn almanac() -> Text {
    tokenized("almanac", &demo_text(|source| source == "almanac").repeat(3))
}

/// The demo's model with changed weights: `change` gets a tensor's name, shape and values.
pub fn changed_model(change: impl Fn(&str, &[usize], &mut [f32])) -> LanguageModel {
    let folder = Path::new(DEMO).join("lm");
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut changed: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    for (name, view) in file.tensors() {
        assert_eq!(view.dtype(), Dtype::F16);
        let tensor = Tensor::from_raw_buffer(view.data(), candle_core::DType::F16, view.shape(), &Device::Cpu).unwrap();
        let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
        let mut values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        change(&name, view.shape(), &mut values);
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        changed.insert(name, (view.shape().to_vec(), bytes));
    }
    let views =
        changed.iter().map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let out = tempfile::tempdir().unwrap();
    safetensors::serialize_to_file(views, None, &out.path().join("model.safetensors")).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(folder.join(name), out.path().join(name)).unwrap();
    }
    load(out.path(), &LoadOptions::new(Processing::TransformerLens)).unwrap()
}
