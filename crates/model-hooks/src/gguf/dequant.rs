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
    let mut values = vec![0f32; bytes.len() / size * len];
    let out = values.as_mut_slice();
    match kind {
        TensorType::F32 => each_block(bytes, out, |b, out: &mut [f32; 1]| *out = [f32::from_le_bytes(*b)]),
        TensorType::F16 => each_block(bytes, out, |b, out: &mut [f32; 1]| *out = [half(*b)]),
        TensorType::Bf16 => each_block(bytes, out, |b, out: &mut [f32; 1]| *out = [bf16::from_le_bytes(*b).to_f32()]),
        TensorType::Q4_0 => each_block(bytes, out, q4_0),
        TensorType::Q4_1 => each_block(bytes, out, q4_1),
        TensorType::Q5_0 => each_block(bytes, out, q5_0),
        TensorType::Q5_1 => each_block(bytes, out, q5_1),
        TensorType::Q8_0 => each_block(bytes, out, q8_0),
        TensorType::Q4K => each_block(bytes, out, q4_k),
        TensorType::Q5K => each_block(bytes, out, q5_k),
        TensorType::Q6K => each_block(bytes, out, q6_k),
    }
    values
}

/// Expands blocks of `BYTES` bytes to `LEN` elements each.
fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    expand: impl Fn(&[u8; BYTES], &mut [f32; LEN]) + Sync,
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<LEN>();
    out.par_chunks_mut(BLOCKS_PER_TASK).zip(blocks.par_chunks(BLOCKS_PER_TASK)).for_each(|(out, blocks)| {
        out.iter_mut().zip(blocks).for_each(|(out, block)| expand(block, out));
    });
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The low nibbles are the first 16 elements, the high ones the last 16.
fn nibbles(packed: &[u8; 16]) -> impl Iterator<Item = u8> + '_ {
    packed.iter().map(|b| b & 0x0F).chain(packed.iter().map(|b| b >> 4))
}

/// Bit `i` of `high` is the fifth bit of element `i`.
fn five_bits(high: [u8; 4], low: &[u8; 16]) -> impl Iterator<Item = u8> + '_ {
    let high = u32::from_le_bytes(high);
    nibbles(low).enumerate().map(move |(i, low)| low | ((((high >> i) & 1) as u8) << 4))
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let [d0, d1, packed @ ..] = block;
    let d = half([*d0, *d1]);
    for (out, q) in out.iter_mut().zip(nibbles(packed)) {
        *out = d * (f32::from(q) - 8.0);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let [d0, d1, m0, m1, packed @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    for (out, q) in out.iter_mut().zip(nibbles(packed)) {
        *out = d * f32::from(q) + m;
    }
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let [d0, d1, h0, h1, h2, h3, packed @ ..] = block;
    let d = half([*d0, *d1]);
    for (out, q) in out.iter_mut().zip(five_bits([*h0, *h1, *h2, *h3], packed)) {
        *out = d * (f32::from(q) - 16.0);
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let [d0, d1, m0, m1, h0, h1, h2, h3, packed @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    for (out, q) in out.iter_mut().zip(five_bits([*h0, *h1, *h2, *h3], packed)) {
        *out = d * f32::from(q) + m;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let [d0, d1, qs @ ..] = block;
    let d = half([*d0, *d1]);
    for (out, &q) in out.iter_mut().zip(qs) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// Scale and minimum of sub-block `j` of 8: six bits each. The first four lie in the low six bits of bytes `j` and `j + 4`;
/// the last four take four bits from byte `j + 4` and their top two from the spare bits of the first eight bytes.
#[expect(clippy::indexing_slicing, reason = "`j` is below 8, so that `j + 4` is below 12; iterators are slower here")]
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 0x3F, packed[j + 4] & 0x3F)
    } else {
        let (s, m, both) = (packed[j - 4], packed[j], packed[j + 4]);
        ((both & 0x0F) | ((s >> 2) & 0x30), (both >> 4) | ((m >> 2) & 0x30))
    };
    (f32::from(scale), f32::from(min))
}

#[expect(
    clippy::indexing_slicing,
    reason = "`j` is below 8, so that runs of 32 start below 128; iterators are slower here"
)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
    let (scales, qs) = (&block[4..16], &block[16..]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, j);
        let (ds, dm) = (d * scale, dmin * min);
        for (out, q) in out.iter_mut().zip(&qs[j / 2 * 32..]) {
            *out = ds * f32::from((q >> (j % 2 * 4)) & 0x0F) - dm;
        }
    }
}

#[expect(clippy::indexing_slicing, reason = "as in `q4_k`")]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
    let (scales, high, qs) = (&block[4..16], &block[16..48], &block[48..]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, j);
        let (ds, dm) = (d * scale, dmin * min);
        for ((out, q), high) in out.iter_mut().zip(&qs[j / 2 * 32..]).zip(high) {
            let q = ((q >> (j % 2 * 4)) & 0x0F) | (((high >> j) & 1) << 4);
            *out = ds * f32::from(q) - dm;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half([block[208], block[209]]);
    // Each half of the block (128 elements) has 64 low bytes, read twice, and 32 high bytes, read four times.
    let halves = low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0).zip(scales.as_chunks::<8>().0);
    for (out, ((low, high), scales)) in out.as_chunks_mut::<128>().0.iter_mut().zip(halves) {
        let (low, high) = (low.as_chunks::<16>().0.iter().cycle(), high.as_chunks::<16>().0.iter().cycle());
        let outs = out.as_chunks_mut::<16>().0.iter_mut().zip(scales).enumerate();
        for (((j, (out, scale)), low), high) in outs.zip(low).zip(high) {
            let ds = d * f32::from(scale.cast_signed());
            for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                let (low, high) = ((low >> (j / 4 * 4)) & 0x0F, (high >> (j / 2 * 2)) & 0x03);
                *out = ds * (f32::from(low | (high << 4)) - 32.0);
            }
        }
    }
}
