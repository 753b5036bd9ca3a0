//! Causal attention between its projections; [`attention`] has the formulas.

mod masks;
mod mix;
mod panels;
mod scores;
mod task;

use crate::epilogue::SharedOut;
use crate::parallel::check_len;
use crate::{Arithmetic, Error, Result};
pub use panels::{KeyValuePanels, KeyValues};
use task::{Job, Output};

/// Shapes of attention: `q` and `z` are `[batch, queries, n_heads, d_head]`, `k` and `v` `[batch, room, n_kv_heads, d_head]` of which the
/// first `keys` rows of a sequence are read, scores and pattern `[batch, n_heads, queries, keys]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Queries of a sequence: its last positions.
    pub queries: usize,
    /// Keys of a sequence: all positions up to the last query's.
    pub keys: usize,
    /// Room for keys and values of a sequence in memory: `keys`, or more where a cache has room to grow.
    pub room: usize,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values; each is shared by `n_heads / n_kv_heads` neighboring heads of queries.
    pub n_kv_heads: usize,
    /// Entries of a head.
    pub d_head: usize,
}

impl AttentionShape {
    /// As many queries as keys: whole sequences.
    #[must_use]
    pub fn new(batch: usize, pos: usize, n_heads: usize, n_kv_heads: usize, d_head: usize) -> Self {
        Self { batch, queries: pos, keys: pos, room: pos, n_heads, n_kv_heads, d_head }
    }

    /// Query heads that share a head of keys.
    pub(crate) fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads.max(1)
    }

    /// Lengths of `q` (and `z`), `k` (and `v`), scores (and pattern).
    fn lengths(&self) -> Result<(usize, usize, usize)> {
        let Self { batch, queries, keys, room, n_heads, n_kv_heads, d_head } = *self;
        if queries > keys {
            let (expected, found) = (format!("at most {keys}, the keys"), queries.to_string());
            return Err(Error::Mismatch { what: "the queries of an attention", expected, found });
        }
        if keys > room {
            let (expected, found) = (format!("at most {room}, the room for them"), keys.to_string());
            return Err(Error::Mismatch { what: "the keys of an attention", expected, found });
        }
        if n_heads != self.group() * n_kv_heads {
            let (expected, found) = (format!("a multiple of {n_kv_heads}, those of keys"), n_heads.to_string());
            return Err(Error::Mismatch { what: "the heads of queries", expected, found });
        }
        let size = |factors: [usize; 4]| {
            // Four bytes a value, packed and padded: what `scratch` and slices can address.
            let bytes = factors.iter().try_fold(64usize, |size, n| size.checked_mul((*n).max(1)));
            let fits = bytes.is_some_and(|bytes| bytes <= isize::MAX as usize);
            let too_large = Error::TooLarge { rows: batch.saturating_mul(queries), cols: keys };
            if fits { Ok(factors.iter().product()) } else { Err(too_large) }
        };
        let q = size([batch, queries, n_heads, d_head])?;
        Ok((q, size([batch, room, n_kv_heads, d_head])?, size([batch, n_heads, queries, keys])?))
    }
}

/// Divisor, softcap, window and key mask of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttentionOptions<'a> {
    /// Divisor of scores (applied as a product with its reciprocal); usually `sqrt(d_head)`.
    pub divisor: f32,
    /// `c` in `c tanh(score / c)`.
    pub softcap: Option<f32>,
    /// Maximum number of keys that a query sees: the last ones, its own position's included.
    pub window: Option<usize>,
    /// `[batch, keys]`: false leaves a key out, padding for instance.
    pub kept_keys: Option<&'a [bool]>,
}

impl AttentionOptions<'_> {
    /// Scores divided by this, and nothing else.
    #[must_use]
    pub fn new(divisor: f32) -> Self {
        Self { divisor, softcap: None, window: None, kept_keys: None }
    }
}

/// Destinations to which scores and pattern are copied, if any.
#[derive(Debug, Default)]
pub struct AttentionTaps<'a> {
    /// Scores after soft-cap and mask, `[batch, n_heads, queries, keys]`; -inf where masked.
    pub scores: Option<&'a mut [f32]>,
    /// The pattern, `[batch, n_heads, queries, keys]`; 0 where masked.
    pub pattern: Option<&'a mut [f32]>,
}

/// Causal attention between its projections: scores, softmax, and the mix of values.
///
/// ```text
/// score[b, h, i, j]   = q[b, i, h] . k[b, j, g] / divisor          g = h / (n_heads / n_kv_heads)
///                     = softcap tanh(score / softcap)              if there is a soft-cap
///                     = -inf                                       where query i does not see key j
/// pattern[b, h, i, .] = softmax(score[b, h, i, .])                 zeros for a query that sees no key
/// z[b, i, h]          = sum_j pattern[b, h, i, j] v[b, j, g]       over the j whose pattern is not 0
/// ```
/// Queries are the last `queries` of `keys` positions: query `i` is at position `p = keys - queries + i` and sees the keys
/// `j <= p` (with a window: `p - window < j <= p`) that are not left out.
///
/// Works on a few rows of one head at a time, in scratch that stays in the cache: scores and pattern are stored in memory only where they
/// are tapped. A thread keeps its scratch for the next call, up to 8 MiB of it. Products are computed by the kernels that multiply with weights, in the same [`Arithmetic`](crate::Arithmetic). A row's
/// bits do not depend on the batch, the threads, the number of queries, on taps, or on whether the stages run one by one.
///
/// Keys and values lie as `[batch, room, n_kv_heads, d_head]`, and are packed for the call, or are packed already
/// ([`KeyValuePanels`], the same for both): then the cost of a query is that of its products. The bits are the same.
///
/// A key whose weight is exactly 0 has no influence, whatever its value: an infinity or NaN at a position that a query does not see
/// does not reach it. (IEEE's `0 * inf` would make it NaN.)
///
/// # Errors
/// [`Error::Length`], [`Error::Mismatch`] for shapes that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention<'a>(
    arithmetic: Arithmetic,
    shape: &AttentionShape,
    options: &AttentionOptions<'_>,
    q: &[f32],
    k: impl Into<KeyValues<'a>>,
    v: impl Into<KeyValues<'a>>,
    taps: AttentionTaps<'_>,
    z: &mut [f32],
) -> Result<()> {
    let (k, v) = (k.into(), v.into());
    let (_, kv_len, scores_len) = check_scores(arithmetic, shape, options, q, k)?;
    check_held("values of attention", arithmetic, shape, kv_len, v)?;
    check_len("the output of attention", q.len(), z.len())?;
    let tap = |what, tap: Option<&mut [f32]>| tap.map_or(Ok(()), |tap| check_len(what, scores_len, tap.len()));
    let AttentionTaps { mut scores, mut pattern } = taps;
    tap("tapped attention scores", scores.as_deref_mut())?;
    tap("a tapped attention pattern", pattern.as_deref_mut())?;
    let rows = |out| SharedOut::new(out, shape.keys);
    let output = Output {
        scores: scores.map(rows).transpose()?,
        pattern: pattern.map(rows).transpose()?,
        z: Some(SharedOut::new(z, shape.n_heads * shape.d_head)?),
    };
    Job::new(arithmetic, *shape, *options).attend(q, k, v, &output);
    Ok(())
}

/// The scores alone, after soft-cap and mask, with the bits that [`attention`] taps.
///
/// # Errors
/// [`Error::Length`], [`Error::Mismatch`] for shapes that do not fit.
pub fn attention_scores<'a>(
    arithmetic: Arithmetic,
    shape: &AttentionShape,
    options: &AttentionOptions<'_>,
    q: &[f32],
    k: impl Into<KeyValues<'a>>,
    scores: &mut [f32],
) -> Result<()> {
    let k = k.into();
    let (_, _, scores_len) = check_scores(arithmetic, shape, options, q, k)?;
    check_len("attention scores", scores_len, scores.len())?;
    let output = Output { scores: Some(SharedOut::new(scores, shape.keys)?), pattern: None, z: None };
    Job::new(arithmetic, *shape, *options).attend(q, k, KeyValues::Plain(&[]), &output);
    Ok(())
}

/// `z = pattern v` for a pattern of any values, with the bits of [`attention`] where it is that one's.
///
/// # Errors
/// [`Error::Length`], [`Error::Mismatch`] for shapes that do not fit.
pub fn attention_mix<'a>(
    arithmetic: Arithmetic,
    shape: &AttentionShape,
    pattern: &[f32],
    v: impl Into<KeyValues<'a>>,
    z: &mut [f32],
) -> Result<()> {
    let v = v.into();
    let (q_len, kv_len, scores_len) = shape.lengths()?;
    check_len("an attention pattern", scores_len, pattern.len())?;
    check_held("values of attention", arithmetic, shape, kv_len, v)?;
    check_len("the output of attention", q_len, z.len())?;
    let z = SharedOut::new(z, shape.n_heads * shape.d_head)?;
    Job::new(arithmetic, *shape, AttentionOptions::new(1.0)).mix(pattern, v, &z);
    Ok(())
}

fn check_scores(
    arithmetic: Arithmetic,
    shape: &AttentionShape,
    options: &AttentionOptions<'_>,
    q: &[f32],
    k: KeyValues<'_>,
) -> Result<(usize, usize, usize)> {
    let lengths = shape.lengths()?;
    check_len("queries of attention", lengths.0, q.len())?;
    check_held("keys of attention", arithmetic, shape, lengths.1, k)?;
    if let Some(kept) = options.kept_keys {
        check_len("kept keys of attention", shape.batch * shape.keys, kept.len())?;
    }
    Ok(lengths)
}

/// Whether keys or values are as long, or as large, as the shape says.
fn check_held(
    what: &'static str,
    arithmetic: Arithmetic,
    shape: &AttentionShape,
    len: usize,
    held: KeyValues<'_>,
) -> Result<()> {
    let &AttentionShape { batch, keys, n_kv_heads, d_head, .. } = shape;
    match held {
        KeyValues::Plain(x) => check_len(what, len, x.len()),
        KeyValues::Packed(panels)
            if panels.fits(arithmetic, batch, n_kv_heads, d_head) && panels.room() >= shape.keys =>
        {
            Ok(())
        }
        KeyValues::Packed(panels) => {
            let expected = format!("[{batch}, at least {keys}, {n_kv_heads}, {d_head}] in {arithmetic}");
            Err(Error::Mismatch { what, expected, found: format!("{panels:?}") })
        }
    }
}
