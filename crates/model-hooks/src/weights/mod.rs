//! The weights of a decoder of any family, under TransformerLens' names, in the form that its engine holds.

mod plain;

pub(crate) use plain::{Plain, center};

use crate::{LoadWarning, Result};
use std::fmt::Debug;
use std::ops::Range;

/// A form of weights: as they were read ([`Raw`]), or as an engine holds them.
pub(crate) trait Form: Sized {
    /// A matrix that acts on rows from the right. Cheap to clone.
    type Matrix: Clone + Debug + Send + Sync;
    /// A bias or a gain. Cheap to clone.
    type Vector: Clone + Debug + Send + Sync;
    /// Rows that are looked up. Cheap to clone.
    type Table: Clone + Debug + Send + Sync;
}

/// `x W + b`.
#[derive(Clone, Debug)]
pub(crate) struct Linear<F: Form> {
    /// `W` `[k, n]`.
    pub w: F::Matrix,
    /// `b` `[n]`.
    pub b: Option<F::Vector>,
}

impl Linear<Raw> {
    /// A copy of a range of columns of `W` and `b`.
    pub fn part(&self, range: Range<usize>) -> Self {
        self.columns(&[range])
    }

    /// A copy of some columns of `W` and `b`, range after range.
    pub fn columns(&self, ranges: &[Range<usize>]) -> Self {
        let b = self.b.as_ref().map(|b| ranges.iter().flat_map(|range| &b[range.clone()]).copied().collect());
        Self { w: self.w.columns(ranges), b }
    }
}

/// Gain and bias of a norm; both are `None` where there is none, or once folded into the weights that read from it.
#[derive(Clone, Debug)]
pub(crate) struct NormWeights<F: Form> {
    /// Gain, one for each value that is normalized.
    pub w: Option<F::Vector>,
    /// Bias; RMS norms have none.
    pub b: Option<F::Vector>,
}

impl<F: Form> Default for NormWeights<F> {
    fn default() -> Self {
        Self { w: None, b: None }
    }
}

/// The weights of one block. Heads lie side by side: `head * d_head` columns of `q`, `k`, `v`, rows of `o`.
#[derive(Clone, Debug)]
pub(crate) struct BlockWeights<F: Form> {
    /// The norm before attention.
    pub ln1: NormWeights<F>,
    /// The norm of queries, over each head `[d_head]` or over all of them `[head * d_head]`.
    pub q_norm: NormWeights<F>,
    /// The norm of keys.
    pub k_norm: NormWeights<F>,
    /// `W_Q` `[d_model, head * d_head]`, `b_Q`.
    pub q: Linear<F>,
    /// `W_K` `[d_model, kv_head * d_head]`, `b_K`.
    pub k: Linear<F>,
    /// `W_V` `[d_model, kv_head * d_head]`, `b_V`.
    pub v: Linear<F>,
    /// `W_O` `[head * d_head, d_model]`, `b_O`.
    pub o: Linear<F>,
    /// The norm after attention.
    pub ln1_post: NormWeights<F>,
    /// The norm before the MLP.
    pub ln2: NormWeights<F>,
    /// `W_gate` `[d_model, d_mlp]`, `b_gate` of a gated MLP.
    pub gate: Option<Linear<F>>,
    /// `W_in` `[d_model, d_mlp]`, `b_in`.
    pub mlp_in: Linear<F>,
    /// `W_out` `[d_mlp, d_model]`, `b_out`.
    pub mlp_out: Linear<F>,
    /// The norm after the MLP.
    pub ln2_post: NormWeights<F>,
}

/// The weights before the first block and after the last one.
#[derive(Clone, Debug)]
pub(crate) struct EmbedWeights<F: Form> {
    /// `W_E` `[d_vocab, d_model]`.
    pub w_e: F::Table,
    /// `W_pos` `[n_ctx, d_model]` of families with learned positions.
    pub w_pos: Option<F::Table>,
    /// The norm before the unembedding.
    pub ln_final: NormWeights<F>,
    /// `W_U` `[d_model, d_vocab]`, `b_U`.
    pub u: Linear<F>,
}

/// All weights of a decoder.
#[derive(Debug)]
pub(crate) struct Weights<F: Form> {
    /// Weights outside of the blocks.
    pub ends: EmbedWeights<F>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockWeights<F>>,
}

/// As they were read: f32 in memory of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw;

impl Form for Raw {
    type Matrix = Plain;
    type Vector = Vec<f32>;
    type Table = Plain;
}

/// [`EmbedWeights`] as they were read: a tied unembedding is no matrix of its own.
#[derive(Debug)]
pub(crate) struct RawEmbed {
    /// `W_E`.
    pub w_e: Plain,
    /// `W_pos`.
    pub w_pos: Option<Plain>,
    /// The norm before the unembedding.
    pub ln_final: NormWeights<Raw>,
    /// `W_U`; `None` where it is the transpose of `W_E`.
    pub w_u: Option<Plain>,
    /// `b_U`.
    pub b_u: Option<Vec<f32>>,
}

/// A form that raw weights can be brought into, tensor by tensor.
pub(crate) trait Hold: Form {
    /// Takes a matrix.
    fn hold_matrix(&self, raw: Plain) -> Result<Self::Matrix>;

    /// Takes a bias or gain.
    fn hold_vector(&self, raw: Vec<f32>) -> Result<Self::Vector>;

    /// Takes a table.
    fn hold_table(&self, raw: Plain) -> Result<Self::Table>;

    /// Takes a table whose transpose is a matrix too, in one memory where one form serves both.
    fn hold_tied(&self, raw: Plain) -> Result<(Self::Table, Self::Matrix)>;

    /// Takes all that there is of a linear map.
    fn hold_linear(&self, raw: Linear<Raw>) -> Result<Linear<Self>> {
        Ok(Linear { w: self.hold_matrix(raw.w)?, b: raw.b.map(|b| self.hold_vector(b)).transpose()? })
    }

    /// Takes gain and bias.
    fn hold_norm(&self, raw: NormWeights<Raw>) -> Result<NormWeights<Self>> {
        let [w, b] = [raw.w, raw.b].map(|x| x.map(|x| self.hold_vector(x)).transpose());
        Ok(NormWeights { w: w?, b: b? })
    }

    /// Takes a block.
    fn hold_block(&self, raw: BlockWeights<Raw>) -> Result<BlockWeights<Self>> {
        Ok(BlockWeights {
            ln1: self.hold_norm(raw.ln1)?,
            q_norm: self.hold_norm(raw.q_norm)?,
            k_norm: self.hold_norm(raw.k_norm)?,
            q: self.hold_linear(raw.q)?,
            k: self.hold_linear(raw.k)?,
            v: self.hold_linear(raw.v)?,
            o: self.hold_linear(raw.o)?,
            ln1_post: self.hold_norm(raw.ln1_post)?,
            ln2: self.hold_norm(raw.ln2)?,
            gate: raw.gate.map(|gate| self.hold_linear(gate)).transpose()?,
            mlp_in: self.hold_linear(raw.mlp_in)?,
            mlp_out: self.hold_linear(raw.mlp_out)?,
            ln2_post: self.hold_norm(raw.ln2_post)?,
        })
    }

    /// Takes the ends.
    fn hold_ends(&self, raw: RawEmbed) -> Result<EmbedWeights<Self>> {
        let w_u = raw.w_u.map(|w_u| self.hold_matrix(w_u)).transpose()?;
        let (w_e, w_u) = match w_u {
            Some(w_u) => (self.hold_table(raw.w_e)?, w_u),
            None => self.hold_tied(raw.w_e)?,
        };
        Ok(EmbedWeights {
            w_e,
            w_pos: raw.w_pos.map(|w_pos| self.hold_table(w_pos)).transpose()?,
            ln_final: self.hold_norm(raw.ln_final)?,
            u: Linear { w: w_u, b: raw.b_u.map(|b| self.hold_vector(b)).transpose()? },
        })
    }
}

/// Source of a family's weights: tensors under Hugging Face's names, without the family's prefix.
pub(crate) trait TensorSource: Sync {
    /// Reads a tensor as f32; its shape must be the expected one, its values finite.
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// The gain of a norm whose files hold it less `plus` (Gemma's: 1).
    fn gain(&self, name: &str, len: usize, plus: f32) -> Result<Vec<f32>> {
        let mut gain = self.vector(name, len)?;
        gain.iter_mut().for_each(|w| *w += plus);
        Ok(gain)
    }

    /// Whether there is a tensor of this name. For what no key of a configuration announces.
    fn holds(&self, name: &str) -> bool;

    /// `W_E` `[d_vocab, d_model]`, and `W_U` `[d_model, d_vocab]` where it is not the transpose of `W_E`. The unembedding is stored under
    /// the first of `unembed` that there is.
    ///
    /// Tied weights may be stored under either name. Where both are there and differ they are not tied, whatever the configuration says:
    /// transformers does so since 5.0, and reports it.
    fn embeddings(
        &self,
        tied: bool,
        embed: &str,
        unembed: &[&str],
        size: [usize; 2],
    ) -> Result<(Plain, Option<Plain>)> {
        let [d_vocab, d_model] = size;
        let held = unembed.iter().copied().find(|name| self.holds(name));
        match held.filter(|_| tied) {
            None => {
                let own = (!tied).then(|| self.transposed(held.unwrap_or(unembed[0]), d_model, d_vocab));
                Ok((self.matrix(embed, d_vocab, d_model)?, own.transpose()?))
            }
            Some(unembed) if !self.holds(embed) => Ok((self.matrix(unembed, d_vocab, d_model)?, None)),
            Some(unembed) => {
                let (w_e, w_u) = (self.matrix(embed, d_vocab, d_model)?, self.transposed(unembed, d_model, d_vocab)?);
                let same = w_e.data().iter().zip(w_u.data()).all(|(a, b)| a.to_bits() == b.to_bits());
                if !same {
                    let (embedding, unembedding) = (embed.into(), unembed.into());
                    self.warn(LoadWarning::NotTied { embedding, unembedding });
                }
                Ok((w_e, (!same).then_some(w_u)))
            }
        }
    }

    /// Records a load warning.
    fn warn(&self, warning: LoadWarning);

    /// The recorded warnings.
    fn warnings(&self) -> Vec<LoadWarning>;

    /// Refuses tensors that were not taken, except those that `spare` knows to carry nothing: with them it would be another model.
    fn finish(&self, spare: &dyn Fn(&str) -> bool) -> Result<()>;

    /// A bias or gain.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.take(name, &[len])
    }

    /// As [`vector`](Self::vector), where a flag of the configuration says whether the tensor exists.
    fn vector_if(&self, exists: bool, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        if exists { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// A matrix that the file holds as `[k, n]`.
    fn matrix(&self, name: &str, k: usize, n: usize) -> Result<Plain> {
        Ok(Plain::row_major(self.take(name, &[k, n])?, k, n))
    }

    /// A matrix `[k, n]` that the file holds as `[n, k]`.
    fn transposed(&self, name: &str, k: usize, n: usize) -> Result<Plain> {
        Ok(Plain::transposed(self.take(name, &[n, k])?, k, n))
    }
}
