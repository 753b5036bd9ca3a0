//! Blocks of GGUF tensors to f32. The arithmetic and its order are those of the reference (`gguf.quants.dequantize` of the
//! Python package, itself the scalar code of ggml), so results are equal to the last bit.

use super::TensorType;
use half::{bf16, f16};
use rayon::prelude::*;

/// Blocks handed to one thread at a time: large enough that small tensors stay on one thread.
const BLOCKS_PER_TASK: usize = 2048;

/// Expands `bytes` (whole blocks of `kind`) to f32, element after element as stored.
///
/// ```text
/// Q8_0: d q          Q4_0: d (q - 8)     Q5_0: d (q - 16)     Q6_K: (d s) (q - 32)
/// Q4_1, Q5_1: d q + m                    Q4_K, Q5_K: (d s) q - (dmin m)
/// ```
///
/// # Panics
/// If `bytes` is not a whole number of blocks; files are checked for that before anything is read.
#[must_use]
pub fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let (len, size) = (kind.block_len(), kind.block_bytes());
    assert!(bytes.len().is_multiple_of(size), "{} bytes are not a whole number of {kind} blocks", bytes.len());
    let expand: fn(&[u8], &mut [f32]) = match kind {
        TensorType::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        TensorType::F16 => |b, out| out[0] = half_at(b, 0),
        TensorType::Bf16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        TensorType::Q4_0 => q4_0,
        TensorType::Q4_1 => q4_1,
        TensorType::Q5_0 => q5_0,
        TensorType::Q5_1 => q5_1,
        TensorType::Q8_0 => q8_0,
        TensorType::Q4K => q4_k,
        TensorType::Q5K => q5_k,
        TensorType::Q6K => q6_k,
    };
    let mut out = vec![0f32; bytes.len() / size * len];
    out.par_chunks_mut(len * BLOCKS_PER_TASK).zip(bytes.par_chunks(size * BLOCKS_PER_TASK)).for_each(|(out, bytes)| {
        for (out, block) in out.chunks_exact_mut(len).zip(bytes.chunks_exact(size)) {
            expand(block, out);
        }
    });
    out
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low nibbles are the first 16 elements, the high ones the last 16.
fn nibbles(packed: &[u8]) -> impl Iterator<Item = u8> + '_ {
    packed.iter().map(|b| b & 0x0F).chain(packed.iter().map(|b| b >> 4))
}

/// Bit `i` of `high` is the fifth bit of element `i`.
fn five_bits<'a>(high: &'a [u8], low: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    nibbles(low).enumerate().map(|(i, low)| low | (((high[i / 8] >> (i % 8)) & 1) << 4))
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (out, q) in out.iter_mut().zip(nibbles(&block[2..18])) {
        *out = d * (f32::from(q) - 8.0);
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (out, q) in out.iter_mut().zip(nibbles(&block[4..20])) {
        *out = d * f32::from(q) + m;
    }
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (out, q) in out.iter_mut().zip(five_bits(&block[2..6], &block[6..22])) {
        *out = d * (f32::from(q) - 16.0);
    }
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (out, q) in out.iter_mut().zip(five_bits(&block[4..8], &block[8..24])) {
        *out = d * f32::from(q) + m;
    }
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..34]) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// Scale and minimum of sub-block `j` of 8: six bits each. The first four lie in the low six bits of bytes `j` and `j + 4`;
/// the last four take four bits from byte `j + 4` and their top two from the spare bits of the first eight bytes.
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 0x3F, packed[j + 4] & 0x3F)
    } else {
        let (s, m, both) = (packed[j - 4], packed[j], packed[j + 4]);
        ((both & 0x0F) | ((s >> 2) & 0x30), (both >> 4) | ((m >> 2) & 0x30))
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin, scales, qs) = (half_at(block, 0), half_at(block, 2), &block[4..16], &block[16..144]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, j);
        let (ds, dm) = (d * scale, dmin * min);
        for (out, q) in out.iter_mut().zip(&qs[j / 2 * 32..]) {
            *out = ds * f32::from((q >> (j % 2 * 4)) & 0x0F) - dm;
        }
    }
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin, scales) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    let (high, qs) = (&block[16..48], &block[48..176]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, j);
        let (ds, dm) = (d * scale, dmin * min);
        for ((out, q), high) in out.iter_mut().zip(&qs[j / 2 * 32..]).zip(high) {
            let q = ((q >> (j % 2 * 4)) & 0x0F) | (((high >> j) & 1) << 4);
            *out = ds * f32::from(q) - dm;
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (j, out) in out.chunks_exact_mut(16).enumerate() {
        let ds = d * f32::from(scales[j].cast_signed());
        for (i, out) in out.iter_mut().enumerate() {
            // Each half of the block (128 elements) has 64 low bytes, read twice, and 32 high bytes, read four times.
            let (half, at) = (j / 8, j % 8 * 16 + i);
            let low = (low[half * 64 + at % 64] >> (at / 64 * 4)) & 0x0F;
            let high = (high[half * 32 + at % 32] >> (at / 32 * 2)) & 0x03;
            *out = ds * (f32::from(low | (high << 4)) - 32.0);
        }
    }
}
