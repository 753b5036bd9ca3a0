//! Folders whose weights are `torch.save`'s: the model is the one of the same values in safetensors, and what is hostile is refused.

mod common;

use candle_core::{DType, Tensor};
use common::{Golden, Pieces, assert_same_bits};
use model_hooks::{Error, LanguageModel, LoadOptions, NoTap, Processing, load};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const INDEX: &str = "pytorch_model.bin.index.json";

fn logits(model: &LanguageModel) -> Tensor {
    model.hooked().forward(&Golden::open("gpt_neo").tokens(), &mut NoTap).unwrap()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

/// A copy of one of the folders of `tools/goldens/golden_bin.py`, with the configuration beside it.
fn folder(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(dir.path().join("config.json"), Pieces::of("gpt_neo").config.to_string()).unwrap();
    dir
}

fn try_load(dir: &TempDir) -> model_hooks::Result<LanguageModel> {
    load(dir.path(), &LoadOptions::new(Processing::None))
}

fn index_of(dir: &TempDir) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path().join(INDEX)).unwrap()).unwrap()
}

#[test]
fn a_pickled_state_dict_is_the_model_that_safetensors_hold() {
    // The pickles hold half precision.
    let halved = Pieces::of("gpt_neo").map(|name, x| Some((name, x.to_dtype(DType::F16).unwrap())));
    let expected = logits(&halved.load(Processing::None).unwrap());
    for name in ["whole", "sharded"] {
        assert_same_bits(name, &logits(&try_load(&folder(name)).unwrap()), &expected);
    }
}

#[test]
fn safetensors_come_first() {
    let dir = folder("whole");
    std::fs::write(dir.path().join("model.safetensors"), [255u8; 64]).unwrap();
    assert!(try_load(&dir).unwrap_err().to_string().contains("model.safetensors"));
}

#[test]
fn an_index_of_pickles_may_not_leave_its_folder() {
    for file in ["../pytorch_model-00001-of-00002.bin", "/etc/passwd", "sub/x.bin", ".."] {
        let dir = folder("sharded");
        let mut index = index_of(&dir);
        index["weight_map"]["transformer.wte.weight"] = json!(file);
        std::fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        let refused = try_load(&dir);
        assert!(matches!(&refused, Err(Error::BadIndex { file: found, .. }) if found == file), "{file}: {refused:?}");
    }
}

#[test]
fn pickles_that_call_and_files_cut_short_are_refused() {
    let dir = folder("whole");
    let path = dir.path().join("pytorch_model.bin");
    let whole = std::fs::read(&path).unwrap();
    for len in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let refused = try_load(&dir);
        assert!(matches!(refused, Err(Error::Files(_))), "{len} bytes: {refused:?}");
    }
    // The name of the class that the state dict is, under another module of the same length.
    let spoilt = replaced(&whole, b"ccollections\nOrderedDict", b"cposixaaaaaa\nsystemaaaaa");
    std::fs::write(&path, spoilt).unwrap();
    let refused = try_load(&dir).unwrap_err().to_string();
    assert!(refused.contains("posixaaaaaa"), "{refused}");
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("what is replaced is there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
