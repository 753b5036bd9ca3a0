//! `config.json`, the index of shards, and weights.

use crate::harness;
use model_hooks::{LoadOptions, Processing, load};

pub fn read(data: &[u8]) {
    let [config, index, weights] = harness::parts(data);
    let folder = harness::folder().join("model");
    std::fs::create_dir_all(&folder).expect("a folder");
    harness::file("model/config.json", config);
    // With an index the weights are a shard of that name.
    let (single, shard) = if index.is_empty() { (weights, index) } else { (index, weights) };
    harness::file_if_any("model/model.safetensors", if index.is_empty() { single } else { &[] });
    harness::file_if_any("model/model.safetensors.index.json", index);
    harness::file_if_any("model/a.safetensors", if index.is_empty() { &[] } else { shard });
    for processing in [Processing::None, Processing::TransformerLens] {
        let _ = load(&folder, &LoadOptions::new(processing));
    }
}
