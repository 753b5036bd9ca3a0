//! [`coder_digest`]: the digest of an SAE, compared on resume.

use crate::error::Result;
use activation_store::sha256_hex;
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_core::SparseCoder;

/// Rows that are encoded: so many of each size, and their opposites. Most features of an SAE without TopK are active on at least one of them.
const ROWS: usize = 4;
const SIZES: [f32; 3] = [1.0, 10.0, 100.0];
/// Features whose decoder rows count.
const DECODER_ROWS: usize = 256;

/// Returns the SHA-256 of the codes of fixed inputs and of some decoder rows, of an SAE or any other dictionary. Other weights, another threshold or another engine
/// give another digest, unless they differ only in features that no fixed input activates.
///
/// # Errors
/// The SAE's own.
pub fn coder_digest(coder: &dyn SparseCoder) -> Result<String> {
    let (d_in, d_sae) = (coder.d_in(), coder.d_sae());
    let mut random = ChaCha8Rng::seed_from_u64(d_in as u64);
    let mut rows = Vec::with_capacity(SIZES.len() * ROWS * 2 * d_in);
    for size in SIZES {
        for _ in 0..ROWS {
            let row: Vec<f32> = (0..d_in).map(|_| size * (2.0 * random.random::<f32>() - 1.0)).collect();
            rows.extend_from_slice(&row);
            rows.extend(row.iter().map(|value| -value));
        }
    }
    let rows = Tensor::from_vec(rows, (SIZES.len() * ROWS * 2, d_in), &Device::Cpu)?;
    let codes = coder.encode(&rows)?;
    let mut parts = vec![format!("{d_in} {d_sae} {}", coder.d_out()).into_bytes()];
    for (features, values) in codes.features.iter() {
        let words = features.iter().zip(values).flat_map(|(feature, value)| [*feature, value.to_bits()]);
        parts.push(words.flat_map(u32::to_le_bytes).collect());
    }
    let count = DECODER_ROWS.min(d_sae);
    let features: Vec<u32> = (0..count).map(|i| (i * d_sae / count.max(1)) as u32).collect();
    let decoder = coder.decoder_rows(&features)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    parts.push(decoder.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect());
    Ok(sha256_hex(parts))
}
