//! A published SAE of any format, of which one file is damaged or another, or whose names and overrides say something else.
//!
//! ```text
//! byte 0    which fixture
//! byte 1    low six bits: which of its files; one more: names and overrides
//!           128: the rest are edits of the file, three bytes each: place, place, value; else the rest is the file
//!           64: the format is found from the files, not named
//! ```

use crate::harness;
use candle_core::{DType, Device, Tensor};
use sae_core::SparseCoder;
use sae_core::formats::{HubPath, OpenOptions, open};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders of `golden/dialects`, in an order that stays: the first byte of an input counts in it.
pub const FIXTURES: &[&str] = &[
    "clt_jump_relu_skip",
    "clt_mntss",
    "connor_rob_hook_z",
    "deepseek_r1",
    "dictionary_learning_auto_encoder",
    "dictionary_learning_auto_encoder_new",
    "dictionary_learning_batch_top_k",
    "dictionary_learning_batch_top_k_untrained_threshold",
    "dictionary_learning_gated",
    "dictionary_learning_jump_relu",
    "dictionary_learning_matryoshka",
    "dictionary_learning_top_k",
    "gemma_scope_2_attn",
    "gemma_scope_2_clt",
    "gemma_scope_2_resid",
    "gemma_scope_2_skip_transcoder",
    "gemma_scope_2_transcoder",
    "gemma_scope_att_hook_z",
    "gemma_scope_embedding",
    "gemma_scope_mlp_deflated",
    "gemma_scope_res_stored",
    "gemma_scope_transcoder",
    "goodfire_pt",
    "goodfire_pth",
    "llama_scope",
    "llama_scope_decoder_norms",
    "llama_scope_r1_distill",
    "mwhanna_transcoder",
    "mwhanna_transcoder_without_config",
    "openai_tied",
    "openai_topk_as_saved_again",
    "openai_v1_relu",
    "openai_v5_topk",
    "qwen_scope",
    "saelens_2",
    "saelens_2_hook_z",
    "saelens_3_no_b_dec",
    "saelens_3_scaling_factor_of_ones",
    "saelens_3_scaling_factor_refused",
    "saelens_3_scaling_factor_used",
    "saelens_4_gated",
    "saelens_4_jumprelu",
    "saelens_4_topk_oai",
    "saelens_5_bool_normalisation",
    "saelens_5_constant_norm_rescale",
    "saelens_5_null_normalisation",
    "slt_jump_relu",
    "slt_relu",
    "slt_skip",
    "slt_topk",
    "sparsify_groupmax",
    "sparsify_skip_topk",
    "sparsify_skip_transcode",
    "sparsify_topk",
    "sparsify_topk_old_cfg",
    "sparsify_transcode",
    "temporal_relu",
    "temporal_tied",
    "temporal_untied",
];

struct Fixture {
    meta: Value,
    files: Vec<(String, Vec<u8>)>,
}

/// `golden/dialects`, from the crate of the tests and from that of the fuzz targets.
pub fn golden() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = here.ancestors().map(|above| above.join("crates/sae-core/tests/golden/dialects"));
    places.into_iter().find(|place| place.is_dir()).expect("the golden dialects")
}

fn fixtures() -> &'static [Fixture] {
    static ALL: OnceLock<Vec<Fixture>> = OnceLock::new();
    ALL.get_or_init(|| FIXTURES.iter().map(|name| Fixture::read(&golden().join(name))).collect())
}

impl Fixture {
    fn read(folder: &Path) -> Self {
        let read = |path: &Path| std::fs::read(path).expect("a file of a fixture");
        let meta = serde_json::from_slice(&read(&folder.join("meta.json"))).expect("a fixture's description");
        let root = folder.join("files");
        let (mut files, mut open) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder of a fixture") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(&root).expect("a path inside").to_string_lossy().into_owned();
                    files.push((name, read(&path)));
                }
            }
        }
        files.sort();
        Self { meta, files }
    }

    /// Where its files are, each as it is.
    fn write(&self, number: usize) -> PathBuf {
        let root = harness::folder().join(format!("dialect-{number}"));
        if !root.exists() {
            for (name, data) in &self.files {
                let path = root.join(name);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                std::fs::write(path, data).expect("a file of a fixture");
            }
        }
        root
    }

    fn options(&self) -> OpenOptions {
        let (path, repo) = (self.meta["path"].as_str().unwrap_or_default(), self.meta["repo_id"].as_str());
        OpenOptions {
            format: self.meta["dialect"].as_str().and_then(|name| name.parse().ok()),
            origin: repo.map(|repo| HubPath { repo: repo.into(), path: path.into() }),
            overrides: self.meta["overrides"].as_object().cloned().unwrap_or_default(),
            norm_scaling_factor: self.meta["norm_scaling_factor"].as_f64().map(|factor| factor as f32),
            layer: self.meta["layers"].as_u64().map(|_| 0),
            ..OpenOptions::default()
        }
    }
}

pub fn read(data: &[u8]) {
    let [number, which, rest @ ..] = data else { return };
    let number = usize::from(*number) % fixtures().len();
    let fixture = &fixtures()[number];
    let (mut options, root) = (fixture.options(), fixture.write(number));
    let path = root.join(fixture.meta["path"].as_str().expect("a path"));
    if which & 64 != 0 {
        options.format = None;
    }
    let Some((name, good)) = fixture.files.get(usize::from(which & 63) % (fixture.files.len() + 1)) else {
        let [repo, place, overrides] = harness::parts(rest).map(String::from_utf8_lossy);
        options.origin = Some(HubPath { repo: repo.into(), path: place.into() });
        options.overrides = serde_json::from_str(&overrides).unwrap_or_default();
        return work(&path, &options);
    };
    let changed = if which & 128 == 0 { rest.to_vec() } else { edited(good, rest) };
    std::fs::write(root.join(name), changed).expect("an input is written");
    work(&path, &options);
    std::fs::write(root.join(name), good).expect("a file of a fixture");
}

fn edited(good: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut data = good.to_vec();
    for &[high, low, value] in edits.as_chunks::<3>().0 {
        let at = usize::from(u16::from_be_bytes([high, low])) % data.len();
        data[at] = value;
    }
    data
}

fn work(path: &Path, options: &OpenOptions) {
    let Ok(sae) = open(path, options) else { return };
    let x = Tensor::ones((2, sae.d_in()), DType::F32, &Device::Cpu).expect("a small tensor");
    if let Ok(codes) = sae.encode(&x) {
        let _ = sae.decode(&codes);
    }
    let _ = sae.forward(&x);
}
