//! Published files that are wrong, cut off or say something unknown: a typed error that names the file and the reason, never a guess.

mod common;

use candle_core::Tensor;
use sae_core::formats::{HubPath, OpenOptions, open};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensor_files::{SafetensorsFile, save_safetensors};

/// A copy of a golden folder's files that may be spoiled.
struct Copied {
    root: tempfile::TempDir,
    meta: Value,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { assert!(std::fs::copy(from, to).is_ok()) }
    }
}

impl Copied {
    fn of(name: &str) -> Self {
        let (folder, root) = (common::golden("dialects").join(name), tempfile::tempdir().unwrap());
        copy(&folder.join("files"), root.path());
        let meta = serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        Self { root, meta }
    }

    fn sae(&self) -> PathBuf {
        self.root.path().join(self.meta["path"].as_str().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.sae().with_extension("safetensors") } else { self.sae().join(name) }
    }

    fn json(self, name: &str, change: impl Fn(&mut Map<String, Value>)) -> Self {
        let mut map = serde_json::from_slice(&std::fs::read(self.file(name)).unwrap()).unwrap();
        change(&mut map);
        std::fs::write(self.file(name), serde_json::to_vec(&map).unwrap()).unwrap();
        self
    }

    fn set(self, name: &str, key: &str, value: Value) -> Self {
        self.json(name, |map| drop(map.insert(key.into(), value.clone())))
    }

    fn tensors(self, name: &str, change: impl Fn(&mut BTreeMap<String, Tensor>)) -> Self {
        let file = SafetensorsFile::open(self.file(name)).unwrap();
        let mut tensors = file.names().into_iter().map(|name| (name.clone(), file.load_f32(&name).unwrap())).collect();
        change(&mut tensors);
        save_safetensors(self.file(name), &tensors.into_iter().collect::<Vec<_>>(), None).unwrap();
        self
    }

    fn cut(self, name: &str) -> Self {
        let bytes = std::fs::read(self.file(name)).unwrap();
        std::fs::write(self.file(name), &bytes[..bytes.len() - 100]).unwrap();
        self
    }

    fn error(&self) -> String {
        let repo = self.meta["repo_id"].as_str();
        let path = self.meta["path"].as_str().unwrap();
        let origin = repo.map(|repo| HubPath { repo: repo.into(), path: path.into() });
        open(self.sae(), &OpenOptions { origin, ..OpenOptions::default() }).unwrap_err().to_string()
    }

    /// The file's name and every one of the words stand in the error.
    fn says(&self, file: &str, words: &[&str]) {
        let error = self.error();
        let name = self.file(file);
        assert!(error.contains(&*name.to_string_lossy()), "{error}: no {}", name.display());
        for word in words {
            assert!(error.contains(word), "{error}: no {word}");
        }
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap()
}

#[test]
fn sparsify() {
    let of = || Copied::of("sparsify_topk");
    of().set("cfg.json", "d_in", json!(17)).says("cfg.json", &["d_in", "17", "16"]);
    of().set("cfg.json", "num_latents", json!(47)).says("cfg.json", &["num_latents", "47", "48"]);
    of().set("cfg.json", "expansion_factor", json!(u64::MAX)).says("cfg.json", &["expansion_factor"]);
    of().set("cfg.json", "activation", json!("relu")).says("cfg.json", &["activation", "groupmax"]);
    of().set("cfg.json", "k", json!("6")).says("cfg.json", &["`k`"]);
    of().json("cfg.json", |map| drop(map.remove("k"))).says("cfg.json", &["`k` is missing"]);
    of().set("cfg.json", "signed", json!(true)).says("cfg.json", &["signed"]);
    of().set("cfg.json", "bandwidth", json!(1)).says("cfg.json", &["bandwidth", "ignore_keys"]);
    of().set("cfg.json", "skip_connection", json!(true)).says("sae.safetensors", &["W_skip"]);
    of().cut("sae.safetensors").says("sae.safetensors", &[]);
    of().tensors("sae.safetensors", |all| drop(all.insert("W_skip".into(), zeros(&[16, 16]))))
        .says("sae.safetensors", &["W_skip"]);
    of().tensors("sae.safetensors", |all| drop(all.insert("W_dec".into(), zeros(&[16, 48]))))
        .says("sae.safetensors", &["W_dec", "[48, 16]"]);
}

#[test]
fn gemma_scope_2() {
    let of = || Copied::of("gemma_scope_2_transcoder");
    of().set("config.json", "architecture", json!("topk")).says("config.json", &["architecture", "jump_relu"]);
    of().set("config.json", "affine_connection", json!(true)).says("params.safetensors", &["affine_skip_connection"]);
    of().cut("params.safetensors").says("params.safetensors", &[]);
    let skip = || Copied::of("gemma_scope_2_skip_transcoder");
    skip()
        .tensors("params.safetensors", |all| drop(all.remove("affine_skip_connection")))
        .says("params.safetensors", &["affine_skip_connection"]);
    of().tensors("params.safetensors", |all| drop(all.insert("affine_skip_connection".into(), zeros(&[16, 16]))))
        .says("params.safetensors", &["affine_skip_connection"]);
    of().tensors("params.safetensors", |all| drop(all.insert("threshold".into(), zeros(&[47]))))
        .says("params.safetensors", &["threshold", "[48]"]);
    let clt = || Copied::of("gemma_scope_2_clt");
    clt().tensors("", |all| drop(all.insert("w_dec".into(), zeros(&[47, 5, 16])))).says("", &["w_dec", "[48, 5, 16]"]);
    clt().tensors("", |all| drop(all.insert("gate".into(), zeros(&[48])))).says("", &["gate"]);
    let mut nameless = Copied::of("gemma_scope_2_attn");
    nameless.meta["repo_id"] = Value::Null;
    let moved = nameless.root.path().join("elsewhere");
    std::fs::rename(nameless.sae(), &moved).unwrap();
    let error = open(&moved, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("hook_name"), "{error}");
}

/// Numbers in names, near the largest that there are.
#[test]
fn names_with_large_numbers() {
    let mut qwen = Copied::of("qwen_scope");
    qwen.meta["repo_id"] = json!(format!("Qwen/SAE-Res-Qwen3-1.7B-Base-W{}K-L0_6", u64::MAX));
    let error = qwen.error();
    assert!(error.contains("override of `k`"), "{error}");
    let clt = Copied::of("clt_mntss");
    std::fs::write(clt.root.path().join(format!("W_enc_{}.safetensors", u64::MAX)), b"").unwrap();
    let options = OpenOptions { layer: Some(1), ..OpenOptions::default() };
    let error = open(clt.root.path(), &options).unwrap_err().to_string();
    assert!(error.contains(&format!("layers up to {}", u64::MAX)), "{error}");
}
