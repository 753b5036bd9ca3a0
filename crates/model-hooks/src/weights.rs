//! The weights of a decoder, whatever its family, in TransformerLens' words.

use crate::{Error, ModelShape, Result};
use candle_core::Tensor;

/// Where a family's weights come from: tensors under Hugging Face's names, without the family's prefix.
pub(crate) trait TensorSource {
    /// Reads a tensor as f32; its shape must be the expected one, its values finite.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// As [`take`](Self::take), where a flag of the configuration says whether the tensor exists.
    fn take_if(&mut self, exists: bool, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        if exists { self.take(name, shape).map(Some) } else { Ok(None) }
    }

    /// A weight matrix that the file holds as `[out, in]`, as the view `[in, out]`.
    fn take_transposed(&mut self, name: &str, rows: usize, cols: usize) -> Result<Tensor> {
        Ok(self.take(name, &[cols, rows])?.t()?)
    }
}

/// Gain and bias of a norm; both are `None` once folded into the weights that read from it.
#[derive(Clone, Debug, Default)]
pub struct NormWeights {
    /// Gain `[d_model]`.
    pub w: Option<Tensor>,
    /// Bias `[d_model]`; RMS norms have none.
    pub b: Option<Tensor>,
}

/// The weights of one block. Matrices act on rows from the right: `y = x W + b`. Head by head, `head * d_head` columns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockWeights {
    /// The norm before attention.
    pub ln1: NormWeights,
    /// `W_Q` `[d_model, head * d_head]`.
    pub w_q: Tensor,
    /// `b_Q` `[head * d_head]`.
    pub b_q: Option<Tensor>,
    /// `W_K` `[d_model, kv_head * d_head]`.
    pub w_k: Tensor,
    /// `b_K` `[kv_head * d_head]`.
    pub b_k: Option<Tensor>,
    /// `W_V` `[d_model, kv_head * d_head]`.
    pub w_v: Tensor,
    /// `b_V` `[kv_head * d_head]`.
    pub b_v: Option<Tensor>,
    /// `W_O` `[head * d_head, d_model]`.
    pub w_o: Tensor,
    /// `b_O` `[d_model]`.
    pub b_o: Option<Tensor>,
    /// The norm before the MLP.
    pub ln2: NormWeights,
    /// `W_gate` `[d_model, d_mlp]` of a gated MLP.
    pub w_gate: Option<Tensor>,
    /// Its bias `[d_mlp]`, where the checkpoint has one.
    pub b_gate: Option<Tensor>,
    /// `W_in` `[d_model, d_mlp]`.
    pub w_in: Tensor,
    /// `b_in` `[d_mlp]`.
    pub b_in: Option<Tensor>,
    /// `W_out` `[d_mlp, d_model]`.
    pub w_out: Tensor,
    /// `b_out` `[d_model]`.
    pub b_out: Option<Tensor>,
}

/// All weights of a decoder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Weights {
    /// `W_E` `[d_vocab, d_model]`.
    pub w_e: Tensor,
    /// `W_pos` `[n_ctx, d_model]` of families with learned positions.
    pub w_pos: Option<Tensor>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockWeights>,
    /// The norm before the unembedding.
    pub ln_final: NormWeights,
    /// `W_U` `[d_model, d_vocab]`; the transpose of `W_E` (not a copy) where they are tied.
    pub w_u: Tensor,
    /// `b_U` `[d_vocab]`.
    pub b_u: Option<Tensor>,
}

impl Weights {
    /// Checks every shape against the model's dimensions.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the first weight that deviates.
    pub(crate) fn check(&self, s: &ModelShape) -> Result<()> {
        let (q, kv) = (s.n_heads * s.d_head, s.n_kv_heads * s.d_head);
        let d = s.d_model;
        if self.blocks.len() != s.n_layers {
            return Err(Error::OutOfRange {
                what: "number of blocks",
                found: self.blocks.len(),
                limit: s.n_layers + 1,
            });
        }
        let mut expected: Vec<(&'static str, Option<&Tensor>, Vec<usize>)> = vec![
            ("W_E", Some(&self.w_e), vec![s.d_vocab, d]),
            ("W_pos", self.w_pos.as_ref(), vec![s.n_ctx, d]),
            ("ln_final.w", self.ln_final.w.as_ref(), vec![d]),
            ("ln_final.b", self.ln_final.b.as_ref(), vec![d]),
            ("W_U", Some(&self.w_u), vec![d, s.d_vocab]),
            ("b_U", self.b_u.as_ref(), vec![s.d_vocab]),
        ];
        for b in &self.blocks {
            expected.extend([
                ("ln1.w", b.ln1.w.as_ref(), vec![d]),
                ("ln1.b", b.ln1.b.as_ref(), vec![d]),
                ("W_Q", Some(&b.w_q), vec![d, q]),
                ("b_Q", b.b_q.as_ref(), vec![q]),
                ("W_K", Some(&b.w_k), vec![d, kv]),
                ("b_K", b.b_k.as_ref(), vec![kv]),
                ("W_V", Some(&b.w_v), vec![d, kv]),
                ("b_V", b.b_v.as_ref(), vec![kv]),
                ("W_O", Some(&b.w_o), vec![q, d]),
                ("b_O", b.b_o.as_ref(), vec![d]),
                ("ln2.w", b.ln2.w.as_ref(), vec![d]),
                ("ln2.b", b.ln2.b.as_ref(), vec![d]),
                ("W_gate", b.w_gate.as_ref(), vec![d, s.d_mlp]),
                ("b_gate", b.b_gate.as_ref(), vec![s.d_mlp]),
                ("W_in", Some(&b.w_in), vec![d, s.d_mlp]),
                ("b_in", b.b_in.as_ref(), vec![s.d_mlp]),
                ("W_out", Some(&b.w_out), vec![s.d_mlp, d]),
                ("b_out", b.b_out.as_ref(), vec![d]),
            ]);
        }
        for (what, tensor, shape) in expected {
            match tensor {
                Some(tensor) if tensor.dims() != shape => {
                    return Err(Error::Shape { what, expected: format!("{shape:?}"), found: tensor.dims().to_vec() });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
