//! Text from a model, token by token: a cache of keys and values, and the choice of the next token.

mod generate_tokens;
mod sampler;
mod text;
mod text_stream;

pub use generate_tokens::{GenerateOptions, GeneratedSequence, GeneratedToken, GenerationOutput, StopReason, generate};
pub use sampler::{Sampling, SamplingOptions};
pub use text::GeneratedText;

use crate::forward::kv_cache::KvCache;
use crate::{HookedModel, Result, Tap, TokenBatch};
use candle_core::Tensor;

/// A model that can run new columns behind those that a cache holds.
pub trait Generate: HookedModel {
    /// An empty cache for this model.
    fn new_cache(&self) -> KvCache;

    /// Logits `[batch, pos, d_vocab]` of new columns, which are appended to the cache.
    ///
    /// Hook points have the values of the new columns, equal to the last ones of an uncached run on all columns; `attn_scores` and
    /// `pattern` `[batch, head, q_pos, k_pos]` have the new queries, and all keys. [`TapContext::offset`](crate::TapContext::offset) is the first new
    /// column. Edits change what is cached, but not what was cached before.
    ///
    /// The first batch may be padded on the left; its rows then go on together. A row may also end (no column of the later batches is
    /// its), and takes part no more.
    ///
    /// # Errors
    /// As [`HookedModel::run`]; [`Error::CacheRows`](crate::Error::CacheRows) for another number of rows,
    /// [`Error::PaddingInside`](crate::Error::PaddingInside) when padding would come between a row's tokens (it was padded on the right),
    /// [`Error::ContextExceeded`](crate::Error::ContextExceeded) when a row outgrows the context,
    /// [`Error::CacheOfOtherModel`](crate::Error::CacheOfOtherModel), [`Error::CacheOfOtherEngine`](crate::Error::CacheOfOtherEngine),
    /// [`Error::CachedAngles`](crate::Error::CachedAngles), before anything runs, where [`keeps_angles`](Self::keeps_angles) is false,
    /// [`Error::GradientsThroughCache`](crate::Error::GradientsThroughCache) on the reference engine. After an error the cache is as it was.
    fn forward_cached(&self, tokens: &TokenBatch, cache: &mut KvCache, tap: &mut dyn Tap) -> Result<Tensor>;

    /// As [`forward_cached`](Self::forward_cached), the logits of the last column alone, `[batch, 1, d_vocab]`: those that the next
    /// token of each row is chosen from. The models of this crate then compute the final norm and the logits of the other columns only
    /// for a tap that is attached there; the provided body computes them all.
    ///
    /// # Errors
    /// As [`forward_cached`](Self::forward_cached).
    fn next_logits(&self, tokens: &TokenBatch, cache: &mut KvCache, tap: &mut dyn Tap) -> Result<Tensor> {
        last_column(&self.forward_cached(tokens, cache, tap)?)
    }

    /// Whether the cached keys are turned by the rotary angles of a text that has `columns` columns more. Where it is false, the cache must
    /// be emptied ([`KvCache::truncate`] with 0) and the whole text run, which [`generate`](crate::generate()) does.
    ///
    /// Always true of most models. Under LongRoPE it is false when the text passes the original context, and under dynamic scaling for
    /// each further column beyond the original context. A model that passes its runs on to another one passes this on too; the provided
    /// body says true.
    fn keeps_angles(&self, cache: &KvCache, columns: usize) -> bool {
        let _ = (cache, columns);
        true
    }
}

/// The last column of `[batch, pos, width]`.
pub(crate) fn last_column(x: &Tensor) -> Result<Tensor> {
    let (_, pos, _) = x.dims3()?;
    Ok(x.narrow(1, pos.saturating_sub(1), 1)?)
}
