//! A SAELens folder: `cfg.json`, weights, sparsity.

use crate::harness;
use candle_core::{DType, Device, Tensor};
use sae_core::{Dictionary, SparseCoder};

pub fn read(data: &[u8]) {
    let [config, rest] = harness::parts(data);
    // Weights hold zeros, so the length of the sparsity stands before them.
    let (length, rest) = rest.split_at(rest.len().min(2));
    let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)).min(rest.len());
    let (sparsity, weights) = rest.split_at(length);
    harness::file("cfg.json", config);
    harness::file("sae_weights.safetensors", weights);
    harness::file_if_any("sparsity.safetensors", sparsity);
    let Ok(sae) = Dictionary::load(harness::folder()) else { return };
    let x = Tensor::ones((2, sae.d_in()), DType::F32, &Device::Cpu).expect("a small tensor");
    let _ = sae.encode(&x);
    if let Dictionary::Sae(sae) = sae {
        let _ = sae.save(harness::folder().join("again"));
    }
}
