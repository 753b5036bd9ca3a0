//! The formats in `.npz` and `.pt` files against what their own tools compute.

mod common;

use sae_core::dialects::{OpenOptions, Origin, open};
use sae_core::{LoadOptions, SparseCoder};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tensor_files::SafetensorsFile;

const READ: [&str; 14] = [
    "gemma_scope_att_hook_z",
    "gemma_scope_embedding",
    "gemma_scope_mlp_deflated",
    "gemma_scope_res_stored",
    "gemma_scope_transcoder",
    "deepseek_r1",
    "qwen_scope",
    "goodfire_pt",
    "goodfire_pth",
    "connor_rob_hook_z",
    "openai_tied",
    "openai_topk_as_saved_again",
    "openai_v1_relu",
    "openai_v5_topk",
];

fn worst(found: &candle_core::Tensor, expected: &candle_core::Tensor) -> f64 {
    let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (flat(found), flat(expected));
    assert_eq!(found.len(), expected.len());
    let rms = (expected.iter().map(|x| f64::from(x * x)).sum::<f64>() / expected.len() as f64).sqrt();
    found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) / rms
}

#[test]
fn values_and_hooks_are_the_tools_own() {
    for name in READ {
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dialects").join(name);
        let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        let path = meta["path"].as_str().unwrap();
        let origin = Origin { repo: meta["repo_id"].as_str().unwrap_or_default().into(), path: path.into() };
        let overrides = meta["overrides"].as_object().cloned().unwrap_or_default();
        let load = LoadOptions { engine: tensor_kernels::Engine::Reference, ..LoadOptions::default() };
        let options = OpenOptions { origin: Some(origin), overrides, load, ..OpenOptions::default() };
        let sae = open(folder.join("files").join(path), &options).unwrap();
        let said = &meta["saelens"]["config"]["metadata"];
        if !said.is_null() {
            assert_eq!(sae.metadata().hook_name.as_deref(), said["hook_name"].as_str(), "{name}");
            assert_eq!(sae.metadata().hook_name_out.as_deref(), said["hook_name_out"].as_str(), "{name}");
            assert_eq!(sae.metadata().model_name.as_deref(), said["model_name"].as_str(), "{name}");
        }
        let expected = SafetensorsFile::open(folder.join("expected.safetensors")).unwrap();
        let codes = sae.encode(&expected.load_f32("x").unwrap()).unwrap();
        let acts = worst(&codes.to_dense().unwrap(), &expected.load_f32("acts").unwrap());
        let recons = worst(&sae.decode(&codes).unwrap(), &expected.load_f32("recons").unwrap());
        assert!(acts < 1e-4 && recons < 1e-4, "{name}: acts {acts:e}, recons {recons:e}");
    }
}
