//! Tokenizers without a `tokenizer.json`: `tokenizer.model`, and `vocab.json` with `merges.txt`; then a text there and back.

use crate::harness;
use crate::tokenizer::work;
use model_hooks::Tokenizer;
use std::fs;

/// What the folder's configuration says of them.
const SENTENCEPIECE: &str = r#"{"tokenizer_class": "LlamaTokenizer"}"#;

pub fn sentencepiece(data: &[u8]) {
    read(&[("tokenizer.model", data), ("tokenizer_config.json", SENTENCEPIECE.as_bytes())]);
}

pub fn vocab_merges(data: &[u8]) {
    let [vocab, merges, config] = harness::parts(data);
    read(&[("vocab.json", vocab), ("merges.txt", merges), ("tokenizer_config.json", config)]);
}

fn read(files: &[(&str, &[u8])]) {
    let folder = harness::folder().join("rebuilt");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for inputs");
    files.iter().for_each(|(name, data)| fs::write(folder.join(name), data).expect("an input is written"));
    if let Ok(tokenizer) = Tokenizer::from_folder(&folder) {
        work(&tokenizer);
    }
}
