//! [`Math`]: the operations in which the families' equations are written, with two executors.
//!
//! [`Reference`] computes with candle's tensors, one operation after the other. [`Kernels`] computes the same equations in reused
//! buffers; what is not tapped is fused (a norm goes straight into packed rows, a non-linearity or a sum into the product before it).
//! The equations are written once, in [`families`](crate::families), and do not know which of the two runs them.

mod kernels;
mod reference;

pub(crate) use kernels::Kernels;
#[cfg(test)]
pub(crate) use kernels::LOGITS_OF;
pub(crate) use reference::Reference;

use crate::families::angles::RopeTable;
use crate::forward::pass::{BlockPass, ForwardPass, PassResult, TapValue};
use crate::forward::positions::Positions;
use crate::ops::{Activation, Norm};
use crate::weights::{Hold, Linear, NormWeights};
use crate::{HookPoint, Result, TokenBatch};
use candle_core::Tensor;

/// Divisor, softcap and window of attention scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttentionSpec {
    /// Divisor of the scores.
    pub divisor: f64,
    /// `c` in `c tanh(score / c)`.
    pub softcap: Option<f64>,
    /// Maximum number of keys that a query sees: the last ones, its own included.
    pub window: Option<usize>,
}

impl AttentionSpec {
    /// Scores divided by this, and nothing else.
    pub fn new(divisor: f64) -> Self {
        Self { divisor, softcap: None, window: None }
    }
}

/// Values over which a norm of queries or keys is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormAxis {
    /// The last axis: each head by itself.
    Width,
    /// All heads of a token together.
    Row,
}

/// The operations of a decoder. Axes: `batch`, `pos`, `head`, and the width of what is computed.
///
/// Values go in by value where the result may take their memory. A product is computed when its value is needed: by a tap, or by the
/// operation that it goes into, which may then be fused with it. Fused or not, the bits are the same.
pub(crate) trait Math: Hold {
    /// An activation `[batch, pos, ..]`.
    type Value: TapValue;
    /// Rows that products read.
    type Rows;

    /// Rows of a table by token: `[batch, pos, width]`.
    fn embed(&self, table: &Self::Table, tokens: &TokenBatch) -> Result<Self::Value>;

    /// Rows of a table by position, for every sequence of the batch: `[batch, pos, width]`.
    fn positions(&self, table: &Self::Table, batch: usize, columns: &Positions) -> Result<Self::Value>;

    /// A residual stream `[batch, pos, d_model]` that a user gives.
    fn residual(&self, resid: &Tensor) -> Result<Self::Value>;

    /// The last column of a residual stream `[batch, 1, d_model]`, for what is wanted of it alone; or all of it, where fewer columns would
    /// have other values.
    fn last_column(&self, x: Self::Value) -> Result<Self::Value>;

    /// The norm of `x` with gain and bias where they are not folded away, for products to read. `scale` and `normalized` (before
    /// gain and bias) are tapped at `points`.
    fn norm(
        &self,
        at: &mut ForwardPass<'_>,
        points: [HookPoint; 2],
        norm: Norm,
        w: &NormWeights<Self>,
        x: &Self::Value,
    ) -> PassResult<Self::Rows>;

    /// The norm of `x` with its gain, in the shape of `x`, as a value: after attention or an MLP, or of queries and keys. Tapped as
    /// [`norm`](Self::norm) is.
    fn norm_value(
        &self,
        at: &mut ForwardPass<'_>,
        points: [HookPoint; 2],
        norm: Norm,
        w: &NormWeights<Self>,
        x: Self::Value,
        over: NormAxis,
    ) -> PassResult<Self::Value>;

    /// As [`norm`](Self::norm), of a residual stream `[.., d_model]` outside any run: no tap sees it.
    fn norm_alone(&self, norm: Norm, w: &NormWeights<Self>, resid: &Tensor) -> Result<Self::Rows>;

    /// `x`, heads side by side, for products to read.
    fn rows(&self, x: Self::Value) -> Result<Self::Rows>;

    /// `x W + b` `[batch, pos, n]`.
    fn linear(&self, x: &Self::Rows, w: &Linear<Self>) -> Result<Self::Value>;

    /// `x W + b`, split into heads: `[batch, pos, heads, n / heads]`.
    fn heads(&self, x: &Self::Rows, w: &Linear<Self>, heads: usize) -> Result<Self::Value>;

    /// `x` `[batch, pos, width]` once for each head: `[batch, pos, heads, width]`.
    fn repeat_heads(&self, x: &Self::Value, heads: usize) -> Result<Self::Value>;

    /// `y[h] = norm(x[h]) W[h] + b[h]`: each head of `x` `[batch, pos, heads, d_model]` normalized by itself, then projected with its own
    /// columns of `W` `[d_model, heads * d_head]`. `[batch, pos, heads, d_head]`.
    fn project_heads(
        &self,
        norm: Option<(Norm, &NormWeights<Self>)>,
        x: &Self::Value,
        w: &Linear<Self>,
    ) -> Result<Self::Value>;

    /// `x` `[batch, pos, head, d_head]`, its pairs turned by the angles of their positions.
    fn rotate(&self, x: Self::Value, angles: &RopeTable, columns: &Positions) -> Result<Self::Value>;

    /// From queries, keys and values to `z` `[batch, pos, head, d_head]`:
    ///
    /// ```text
    /// scores  = softcap tanh(q k^T / divisor / softcap), -inf where k_pos > q_pos, k_pos <= q_pos - window, or k is padding
    /// pattern = softmax(scores)
    /// z       = pattern v
    /// ```
    /// Query head `h` reads key-value head `h / (n_heads / n_kv_heads)`. Scores and pattern are tapped. Where there is a cache, keys and
    /// values go into it, and queries see all that it holds.
    fn attention(
        &self,
        at: &mut BlockPass<'_, '_>,
        qkv: [Self::Value; 3],
        rule: AttentionSpec,
    ) -> PassResult<Self::Value>;

    /// `z[h] W_O[h]` for each head: `[batch, pos, head, d_model]`.
    fn result(&self, z: &Self::Value, w_o: &Linear<Self>) -> Result<Self::Value>;

    /// `sum_h result[h] + b_O` `[batch, pos, d_model]`.
    fn sum_heads(&self, result: Self::Value, w_o: &Linear<Self>) -> Result<Self::Value>;

    /// A copy.
    fn copy(&self, x: &Self::Value) -> Result<Self::Value>;

    /// `factor x`.
    fn scale(&self, x: Self::Value, factor: f64) -> Result<Self::Value>;

    /// `a + b`.
    fn add(&self, a: Self::Value, b: Self::Value) -> Result<Self::Value>;

    /// `act(x)`.
    fn activate(&self, act: Activation, x: Self::Value) -> Result<Self::Value>;

    /// `act(gate) * x`.
    fn gate(&self, act: Activation, gate: Self::Value, x: Self::Value) -> Result<Self::Value>;

    /// `y = x W_U + b_U`, with a soft-cap `c` `c tanh(y / c)`, in memory of its own: `[.., d_vocab]`.
    fn logits(&self, x: &Self::Rows, w_u: &Linear<Self>, softcap: Option<f64>) -> Result<Tensor>;

    /// Columns of a matrix `[k, len]`, as products see them.
    fn columns(&self, w: &Self::Matrix, start: usize, len: usize) -> Result<Tensor>;

    /// A bias or gain as a tensor.
    fn vector(&self, v: &Self::Vector) -> Result<Tensor>;
}
