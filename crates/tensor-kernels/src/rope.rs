//! Rotary position embedding.

use crate::parallel::{check_len, count_rows, for_rows};
use crate::simd::{Simd, Vector, entry};
use crate::{Backend, Error, Result};

/// Pairing of the entries of a head that are rotated together, with `r` the number of entries that are rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RopeLayout {
    /// `(i, i + r/2)`: Llama, GPT-NeoX, Gemma, Qwen.
    #[default]
    Half,
    /// `(2i, 2i + 1)`: GPT-J.
    Interleaved,
}

/// The shape of what [`rope`] rotates: `[.., pos, heads, d_head]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeShape {
    /// Positions: how many rows of angles there are. Any number of sequences of so many positions may follow one another.
    pub pos: usize,
    /// Heads of a position.
    pub heads: usize,
    /// Entries of a head.
    pub d_head: usize,
    /// Entries that are rotated, from the first on; even. The rest stays as it is.
    pub d_rotary: usize,
    /// Pairing of the entries that are rotated together.
    pub pairs: RopeLayout,
}

/// Rotates pairs of entries of every head by the angle of their position, in place:
///
/// ```text
/// (a, b) -> (a cos - b sin, b cos + a sin)
/// ```
/// `cos` and `sin` are `[pos, d_rotary / 2]`.
///
/// # Errors
/// [`Error::Length`]; [`Error::Mismatch`] for a `d_rotary` that is odd or larger than `d_head`.
pub fn rope(backend: Backend, x: &mut [f32], shape: RopeShape, cos: &[f32], sin: &[f32]) -> Result<()> {
    let RopeShape { pos, heads, d_head, d_rotary, .. } = shape;
    if d_rotary > d_head || d_rotary % 2 == 1 {
        let (expected, found) = (format!("even and at most {d_head}"), d_rotary.to_string());
        return Err(Error::Mismatch { what: "the rotated entries of a head", expected, found });
    }
    let too_large = Error::TooLarge { rows: pos, cols: heads.saturating_mul(d_head) };
    let width = heads.checked_mul(d_head).ok_or(too_large.clone())?;
    let sequence = pos.checked_mul(width).ok_or(too_large)?;
    count_rows("positions to rotate", x, sequence)?;
    check_len("the cosines of angles", pos * (d_rotary / 2), cos.len())?;
    check_len("the sines of angles", pos * (d_rotary / 2), sin.len())?;
    if d_rotary > 0 && !x.is_empty() {
        for_rows(x, width, |first, x| rotate_rows(backend, x, first, &shape, cos, sin));
    }
    Ok(())
}

entry! {
    /// Rows of all heads of a position, from row `first` on.
    fn rotate_rows(x: &mut [f32], first: usize, shape: &RopeShape, cos: &[f32], sin: &[f32]) = rotate_rows_on;
}

#[inline(always)]
fn rotate_rows_on<S: Simd>(s: S, x: &mut [f32], first: usize, shape: &RopeShape, cos: &[f32], sin: &[f32]) {
    let half = shape.d_rotary / 2;
    for (i, x) in x.chunks_exact_mut(shape.heads * shape.d_head).enumerate() {
        let at = (first + i) % shape.pos * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        for head in x.chunks_exact_mut(shape.d_head) {
            let rotated = &mut head[..shape.d_rotary];
            match shape.pairs {
                RopeLayout::Half => rotate_halves(s, rotated, cos, sin),
                RopeLayout::Interleaved => rotate_neighbors(rotated, cos, sin),
            }
        }
    }
}

#[inline(always)]
fn rotate_halves<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = x.split_at_mut(cos.len());
    let turn = |a: S::V, b: S::V, cos: S::V, sin: S::V| (b.neg_mul_add(sin, a * cos), a.mul_add(sin, b * cos));
    for (((a, b), cos), sin) in
        low.chunks_mut(S::LANES).zip(high.chunks_mut(S::LANES)).zip(cos.chunks(S::LANES)).zip(sin.chunks(S::LANES))
    {
        if a.len() == S::LANES {
            let (new_a, new_b) = turn(s.load(a), s.load(b), s.load(cos), s.load(sin));
            s.store(new_a, a);
            s.store(new_b, b);
        } else {
            let (va, vb) = (s.load_part(a, 0.0), s.load_part(b, 0.0));
            let (new_a, new_b) = turn(va, vb, s.load_part(cos, 0.0), s.load_part(sin, 0.0));
            s.store_part(new_a, a);
            s.store_part(new_b, b);
        }
    }
}

#[inline(always)]
fn rotate_neighbors(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, cos), sin) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = b * cos + a * sin;
    }
}
