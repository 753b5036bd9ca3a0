//! The [`HookedModel`] trait: what every model family offers, and what a user's own model can implement.

use crate::hook::{Module, known_to};
use crate::{Error, Generate, HookPoint, Result, Tap, TokenBatch};
use candle_core::Tensor;
use tensor_kernels::{Engine, Operand};

/// The dimensions of a model, in the field's words.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelShape {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads (equal to `n_heads` without grouping).
    pub n_kv_heads: usize,
    /// Width of one head.
    pub d_head: usize,
    /// Width of the MLP.
    pub d_mlp: usize,
    /// Number of tokens in the vocabulary.
    pub d_vocab: usize,
    /// Longest context.
    pub n_ctx: usize,
}

impl ModelShape {
    /// The dimensions of a model with one head as wide as the stream and an MLP four times as wide; set the fields that differ.
    #[must_use]
    pub fn new(d_model: usize, n_layers: usize, d_vocab: usize, n_ctx: usize) -> Self {
        let d_mlp = d_model.saturating_mul(4);
        Self { d_model, n_layers, n_heads: 1, n_kv_heads: 1, d_head: d_model, d_mlp, d_vocab, n_ctx }
    }
}

/// Start of a run.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// At the embedding of the tokens.
    Tokens,
    /// At block `layer`, whose `hook_resid_pre` is the given residual `[batch, pos, d_model]`.
    Residual {
        /// The first block to run.
        layer: usize,
        /// Its input.
        resid: &'a Tensor,
    },
}

/// Final norm and unembedding bias, between the residual stream and the logits: `logits = norm(x) W_U + b_U` with
/// `norm(x) = (x - mean(x)) / scale * gain + bias`.
#[derive(Clone, Debug)]
pub struct FinalNorm {
    /// Whether the mean is subtracted (layer norm) or not (RMS norm).
    pub centers: bool,
    /// `[d_model]`; `None` where it is folded into `W_U`.
    pub gain: Option<Tensor>,
    /// `[d_model]`; `None` where there is none, or it is folded into `b_U`.
    pub bias: Option<Tensor>,
    /// `b_U` `[d_vocab]`, where there is one.
    pub b_u: Option<Tensor>,
}

/// A part of a block that writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockPart {
    /// Attention: `z W_O + b_O`.
    Attention,
    /// The MLP: `post W_out + b_out`.
    Mlp,
}

/// How a part of a block writes to the residual stream: `norm(x W + b)`, the norm only in families that have one there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutputWeights {
    /// `W_O` `[head * d_head, d_model]`, heads one after the other (query heads, in grouped attention too), or `W_out` `[d_mlp, d_model]`.
    pub w: Tensor,
    /// The norm behind it.
    pub post_norm: Option<PostNorm>,
    /// Whether the MLP is gated (`post = act(pre) * pre_linear`).
    pub gated: bool,
}

impl OutputWeights {
    /// Without a norm behind it, of no gated MLP.
    #[must_use]
    pub fn new(w: Tensor) -> Self {
        Self { w, post_norm: None, gated: false }
    }
}

/// A norm between a part's output and the residual stream: `(x - mean(x)) / scale * gain`, the mean only in layer norms.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostNorm {
    /// `[d_model]`; `None` where it is 1.
    pub gain: Option<Tensor>,
}

impl PostNorm {
    /// A norm with this gain.
    #[must_use]
    pub fn new(gain: Option<Tensor>) -> Self {
        Self { gain }
    }
}

/// A transformer whose forward pass can be tapped at named points.
pub trait HookedModel: Send + Sync {
    /// The model's dimensions.
    fn shape(&self) -> &ModelShape;

    /// Every hook point of this model, in execution order.
    fn hook_points(&self) -> &[HookPoint];

    /// The one forward pass behind the others: from `start`, through `last` if given (then nothing after it is computed
    /// and the answer is `None`), else to the logits `[batch, pos, d_vocab]`.
    ///
    /// # Errors
    /// A point the model lacks, a tapped point after `last` or before `start`, a token id outside the vocabulary, more positions
    /// than `n_ctx`, a residual of the wrong shape, or the tap's own error.
    fn run(
        &self,
        tokens: &TokenBatch,
        start: Start<'_>,
        last: Option<HookPoint>,
        tap: &mut dyn Tap,
    ) -> Result<Option<Tensor>>;

    /// Final norm and unembedding of a residual stream `[.., d_model]` -> logits `[.., d_vocab]`.
    ///
    /// # Errors
    /// A residual of the wrong width.
    fn unembed(&self, resid: &Tensor) -> Result<Tensor>;

    /// Columns `start..start + len` of `W_U` `[d_model, len]` as this model uses it (after processing), for blockwise projections.
    ///
    /// # Errors
    /// A range outside the vocabulary.
    fn w_u_columns(&self, start: usize, len: usize) -> Result<Tensor>;

    /// The final norm and the bias of the unembedding as this model holds them (after processing). `None`, the provided answer, from a model
    /// that does not tell.
    ///
    /// # Errors
    /// The tensor library's.
    fn final_norm(&self) -> Result<Option<FinalNorm>> {
        Ok(None)
    }

    /// Engine of this model. The default returns the reference.
    fn engine(&self) -> Engine {
        Engine::Reference
    }

    /// `W_U` `[d_model, d_vocab]` as this model holds it, as the right-hand side of a [product](tensor_kernels::product), so that
    /// a projection of many directions needs no copy of it. A packed one fits rows packed for [`engine`](Self::engine)'s
    /// arithmetic. `None` from a model that the kernels do not compute.
    fn w_u_operand(&self) -> Option<Operand<'_>> {
        None
    }

    /// The model as one that can go on from cached keys and values; `None` where it cannot.
    fn generator(&self) -> Option<&dyn Generate> {
        None
    }

    /// The matrix through which attention or the MLP of a block writes to the residual stream, and the gain of the norm behind it where
    /// there is one, as this model holds them (after processing). The provided body is an error.
    ///
    /// # Errors
    /// [`Error::NotExposed`] from a model that does not give its weights, [`Error::OutOfRange`] for a layer that it does not have.
    fn output_weights(&self, layer: usize, part: BlockPart) -> Result<OutputWeights> {
        let _ = (layer, part);
        Err(Error::NotExposed { what: "W_O and W_out (HookedModel::output_weights)" })
    }

    /// The hook point of a name: TransformerLens', old or new, or a module in Hugging Face's words (`model.layers.7.mlp`), as the hook
    /// point that its output is in this model.
    ///
    /// # Errors
    /// [`Error::UnknownHookName`], [`Error::ModuleName`] for a module whose output is no hook point of this model,
    /// [`Error::UnknownHookPoint`] for a hook point that this model does not have.
    fn hook_point(&self, name: &str) -> Result<HookPoint> {
        let point = match Module::parse(name) {
            Some(module) => module.among(name, self.hook_points())?,
            None => name.parse()?,
        };
        known_to(self.hook_points(), point)
    }

    /// Logits `[batch, pos, d_vocab]` at all positions.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`Error::NoLogits`] from a model that stops without being asked to.
    fn forward(&self, tokens: &TokenBatch, tap: &mut dyn Tap) -> Result<Tensor> {
        self.run(tokens, Start::Tokens, None, tap)?.ok_or(Error::NoLogits)
    }

    /// Runs up to and including `last`, and computes nothing after it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn forward_until(&self, tokens: &TokenBatch, last: HookPoint, tap: &mut dyn Tap) -> Result<()> {
        self.run(tokens, Start::Tokens, Some(last), tap).map(drop)
    }
}
