//! SAEs that first predict a token's activations from the tokens before it.

mod layer;
mod parts;

use crate::decoder::Decoder;
use crate::encoder::{Encoder, ScratchPool, gather_rows};
use crate::normalization::{InputMap, Rows};
use crate::sparse_features::check_features;
use crate::{
    ActLayout, Codes, Coupling, Error, FeatureId, InputNorm, Reconstruction, Result, SaeMetadata, SparseCoder,
    SparseFeatures,
};
use candle_core::{DType, Device, Tensor};
use layer::Layer;
pub use parts::{TemporalLayerParts, TemporalLinear, TemporalParts};
use std::fmt;
use std::sync::Arc;
use tensor_kernels::Engine;

/// An SAE with attention over the positions before: codes predicted from the context, and sparse novel codes of what is left.
///
/// ```text
/// r = norm_in(x * c) - b_dec           c: activation_normalization_factor;   lam = 1/(4 d_in)
/// for each layer:
///     z   = ReLU(lam r W_enc)          z': z one position later, zeros at the first
///     z_p = ReLU(O(attention(q = Q z, k = K z', v = V z')))        causal; a token sees z of the tokens before it alone
///     y   = z_p W_dec;   s = (y . r) / (|y| + 1e-6)^2
///     predicted += s z_p;   r -= s y
/// novel = TopK_k(ReLU(lam r W_enc)), or all of it
/// x_hat = norm_out((novel + predicted) W_dec + b_dec) / c
/// ```
///
/// # Shapes
/// `x, x_hat [batch, pos, d_in]`, and only so: a token's codes depend on the tokens before it in its row. `W_enc [d_in, d_sae]` (`W_dec^T`
/// when tied), `W_dec [d_sae, d_in]`, `novel, predicted [batch, pos, d_sae]`.
///
/// [`SparseCoder::encode`] gives the novel codes, [`SparseCoder::decode`] decodes them, [`SparseCoder::skip`] is what the predicted codes
/// decode to, and [`SparseCoder::forward`] the sum. [`predict`](Self::predict) gives the predicted codes, which are dense: memory is
/// `pos * d_sae` floats for one row of tokens at a time.
///
/// Source: arXiv 2511.01836, and SAELens' `temporal`.
#[derive(Clone)]
pub struct TemporalSae {
    input: InputMap,
    /// `lam W_enc`.
    encoder: Encoder,
    layers: Vec<Layer>,
    /// `W_dec` as a product, for dense codes.
    project: Encoder,
    decoder: Decoder,
    /// Added to the norm of a prediction: 1e-6 in the units of training.
    eps: f64,
    metadata: Arc<SaeMetadata>,
    scratch: ScratchPool,
}

/// Result for one row of tokens.
struct Row {
    /// `[pos, d_in]`: what the predictions decode to.
    decoded: Vec<f32>,
    /// `[pos, d_in]`: what is left.
    residual: Vec<f32>,
    /// `[pos, d_sae]`.
    predicted: Vec<f32>,
}

impl TemporalSae {
    /// `temporal`.
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        "temporal"
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.encoder.engine()
    }

    /// `W_dec [d_sae, d_in]`, for inputs as the model gives them.
    #[must_use]
    pub fn w_dec(&self) -> &Tensor {
        &self.decoder.w_dec
    }

    /// Metadata: model, hook, context size ...
    #[must_use]
    pub fn metadata(&self) -> &SaeMetadata {
        &self.metadata
    }

    /// The same with other metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: SaeMetadata) -> Self {
        Self { metadata: Arc::new(metadata), ..self }
    }

    /// The hook point whose activations it was trained on, as the metadata names it.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`].
    pub fn hook_name(&self) -> Result<&str> {
        self.metadata.hook_name.as_deref().ok_or(Error::MissingMetadata { key: "hook_name" })
    }

    /// The codes that are predicted from the positions before, `[batch, pos, d_sae]`, dense. Either sign.
    ///
    /// # Errors
    /// As [`SparseCoder::encode`].
    pub fn predict(&self, x: &Tensor) -> Result<Tensor> {
        self.with_sequences(x, |rows, pos, _, layout| {
            let mut all = Vec::with_capacity(rows.len() * self.d_sae());
            for sequence in rows.flat.chunks(pos * rows.d_in) {
                all.extend(self.row(sequence, rows.shift)?.predicted);
            }
            Ok(Tensor::from_vec(all, layout.with_width(self.d_sae()), &Device::Cpu)?)
        })
    }

    /// Always refused, as by SAELens.
    ///
    /// # Errors
    /// [`Error::CannotFold`].
    pub fn fold_w_dec_norm(&self) -> Result<Self> {
        let reason = "its attention reads the codes, which would have other units";
        Err(Error::CannotFold { fold: "fold_w_dec_norm", reason })
    }

    /// Always refused: the factor is a part of its own.
    ///
    /// # Errors
    /// [`Error::CannotFold`].
    pub fn fold_norm_factor(&self, _s: f32) -> Result<Self> {
        let reason = "a temporal SAE brings its factor as `activation_normalization_factor`";
        Err(Error::CannotFold { fold: "fold_norm_factor", reason })
    }

    /// Always refused, as by SAELens.
    ///
    /// # Errors
    /// [`Error::CannotFold`].
    pub fn fold_whitening(&self, _mean: &[f32], _whiten: &Tensor, _unwhiten: &Tensor) -> Result<Self> {
        let reason = "how much is predicted is a projection in its input space, which whitening changes";
        Err(Error::CannotFold { fold: "fold_whitening", reason })
    }

    /// Prepares an input and lends it with its number of positions.
    fn with_sequences<R>(
        &self,
        x: &Tensor,
        work: impl FnOnce(&Rows<'_>, usize, Option<InputNorm>, ActLayout) -> Result<R>,
    ) -> Result<R> {
        self.input.with_rows(x, |rows, scale, layout| match *layout.leading() {
            [_, pos] => work(rows, pos.max(1), scale, layout),
            _ => {
                let expected = format!("[batch, pos, d_in={}]: a token's codes depend on those before it", self.d_in());
                Err(Error::InputShape { expected, found: x.dims().to_vec() })
            }
        })
    }

    /// Novel codes, and the decoded predictions in the output's units and shape.
    fn run(&self, x: &Tensor) -> Result<(Codes, Tensor)> {
        self.with_sequences(x, |rows, pos, scale, layout| {
            let mut features = SparseFeatures::empty(self.d_sae() as u32);
            let mut decoded = Vec::with_capacity(rows.flat.len());
            for sequence in rows.flat.chunks(pos * rows.d_in) {
                let row = self.row(sequence, rows.shift)?;
                let left = Rows { d_in: rows.d_in, flat: &row.residual, shift: None };
                self.scratch.with(|scratch| self.encoder.sparse(&left, scratch, &mut features))?;
                decoded.extend(row.decoded);
            }
            if let Some(norm) = &scale {
                let rows = decoded.chunks_exact_mut(rows.d_in).zip(&norm.multiply);
                rows.for_each(|(row, factor)| row.iter_mut().for_each(|x| *x *= factor));
            }
            let decoded = Tensor::from_vec(decoded, layout.output(self.d_in()), &Device::Cpu)?;
            Ok((Codes { features, scale, layout }, decoded))
        })
    }

    /// Predicts one row of tokens, `[pos, d_in]`.
    fn row(&self, x: &[f32], shift: Option<&[f32]>) -> Result<Row> {
        let (d_in, d_sae) = (self.d_in(), self.d_sae());
        let mut residual = x.to_vec();
        if let Some(shift) = shift {
            residual.chunks_exact_mut(d_in).for_each(|row| row.iter_mut().zip(shift).for_each(|(x, b)| *x -= b));
        }
        let (mut decoded, mut predicted) = (vec![0f32; x.len()], vec![0f32; x.len() / d_in * d_sae]);
        for layer in &self.layers {
            let z = self.dense(&self.encoder, &residual, d_in, |dot| dot.max(0.0))?;
            let z_p = layer.predict(self, &z)?;
            let y = self.dense(&self.project, &z_p, d_sae, |dot| dot)?;
            let rows = residual.chunks_exact_mut(d_in).zip(decoded.chunks_exact_mut(d_in));
            let rows = rows.zip(predicted.chunks_exact_mut(d_sae)).zip(y.chunks_exact(d_in)).zip(z_p.chunks(d_sae));
            for ((((r, decoded), predicted), y), z_p) in rows {
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let s = (dot(y, r) / (dot(y, y).sqrt() + self.eps).powi(2)) as f32;
                predicted.iter_mut().zip(z_p).for_each(|(p, z)| *p += s * z);
                decoded.iter_mut().zip(y).for_each(|(d, y)| *d += s * y);
                r.iter_mut().zip(y).for_each(|(r, y)| *r -= s * y);
            }
        }
        Ok(Row { decoded, residual, predicted })
    }

    /// A dense product of rows of `width`, each value (bias included) through `f`.
    fn dense(&self, weights: &Encoder, flat: &[f32], width: usize, f: impl Fn(f32) -> f32) -> Result<Vec<f32>> {
        let rows = Rows { d_in: width, flat, shift: None };
        let dense = self.scratch.with(|scratch| weights.dense(&rows, scratch, |_, _, dot, bias| dot + bias))?;
        Ok(dense.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f).collect())
    }
}

impl SparseCoder for TemporalSae {
    fn d_in(&self) -> usize {
        self.input.d_in
    }

    fn metadata(&self) -> Option<&SaeMetadata> {
        Some(&self.metadata)
    }

    fn d_sae(&self) -> usize {
        self.encoder.columns()
    }

    fn coupling(&self) -> Coupling {
        Coupling::Coupled
    }

    fn encode(&self, x: &Tensor) -> Result<Codes> {
        Ok(self.run(x)?.0)
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor> {
        self.decoder.decode(self.engine(), codes)
    }

    fn skip(&self, x: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.run(x)?.1))
    }

    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> {
        check_features(features, self.d_sae())?;
        gather_rows(&self.decoder.w_dec, features, None)
    }

    fn forward(&self, x: &Tensor) -> Result<Reconstruction> {
        let (codes, predicted) = self.run(x)?;
        let x_hat = (self.decode(&codes)? + predicted)?;
        let error = Some((x.to_dtype(DType::F32)? - &x_hat)?);
        Ok(Reconstruction { codes, x_hat, error })
    }
}

impl fmt::Debug for TemporalSae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemporalSae")
            .field("engine", &format_args!("{}", self.engine()))
            .field("d_in", &self.input.d_in)
            .field("d_sae", &self.d_sae())
            .field("k", &self.encoder.rule.k())
            .field("layers", &self.layers.len())
            .field("hook_name", &self.metadata.hook_name)
            .finish_non_exhaustive()
    }
}
