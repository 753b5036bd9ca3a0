//! A GGUF file: header, tensors, the model, its tokenizer.

use crate::harness;
use model_hooks::gguf::GgufFile;
use model_hooks::{LoadOptions, load};

pub fn read(data: &[u8]) {
    let path = harness::file("input.gguf", data);
    let Ok(file) = GgufFile::open(&path) else { return };
    for (name, _) in file.tensors() {
        let _ = file.load_f32(name);
    }
    let Ok(model) = load(&path, &LoadOptions::default()) else { return };
    if let Some(tokenizer) = model.tokenizer() {
        super::tokenizer::work(tokenizer);
    }
}
