use crate::normalization::{InputMap, check_finite, matrix};
use crate::sae::{Weights, row_norms};
use crate::{Activation, Error, Normalization, Result, Sae, SparseCoder};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// Decoder rows shorter than this are folded as if they had this norm, as in SAELens.
const MIN_NORM: f32 = 1e-8;

impl Sae {
    /// The same function with decoder rows of norm 1: features grow by the norm that their row had, outputs stay.
    ///
    /// ```text
    /// n = |W_dec[j]|:   W_dec[j] /= n   W_enc[:, j] *= n   b_enc[j] *= n   threshold[j] *= n   b_mag[j] *= n
    /// ```
    ///
    /// Where features compete by decoder norm there is nothing left to rescale afterwards, and they no longer do (their activations stay).
    /// A skip connection does not change.
    ///
    /// # Errors
    /// [`Error::CannotFold`] where features compete without that rescaling (TopK and the like): others would win. [`Error::RoundedWeights`] when `W_enc` is packed in a
    /// precision that does not keep it.
    pub fn fold_w_dec_norm(&self) -> Result<Self> {
        let norms: Vec<f32> = row_norms(self.w_dec())?.into_iter().map(|n| n.max(MIN_NORM)).collect();
        let times = |v: &[f32]| v.iter().zip(&norms).map(|(v, n)| v * n).collect::<Arc<[f32]>>();
        let activation = match self.activation() {
            Activation::Relu => Activation::Relu,
            &Activation::TopK { k, rescale_by_decoder_norm: true } => {
                Activation::TopK { k, rescale_by_decoder_norm: false }
            }
            &Activation::AbsTopK { k, rescale_by_decoder_norm: true } => {
                Activation::AbsTopK { k, rescale_by_decoder_norm: false }
            }
            &Activation::BatchTopK { k, rescale_by_decoder_norm: true } => {
                Activation::BatchTopK { k, rescale_by_decoder_norm: false }
            }
            Activation::JumpRelu { threshold } => Activation::JumpRelu { threshold: times(threshold) },
            Activation::Gated { r_mag, b_mag } => Activation::Gated { r_mag: r_mag.clone(), b_mag: times(b_mag) },
            Activation::TopK { .. }
            | Activation::AbsTopK { .. }
            | Activation::SignedTopK { .. }
            | Activation::BatchTopK { .. }
            | Activation::GroupMax { .. } => {
                return Err(Error::CannotFold {
                    fold: "fold_w_dec_norm",
                    reason: "its features compete without rescaling by decoder norm, so other features would be chosen",
                });
            }
        };
        let column = Tensor::new(norms.as_slice(), &Device::Cpu)?.reshape((norms.len(), 1))?;
        self.rebuilt(Weights {
            input: self.input.clone(),
            w_enc: self.exact_w_enc_t("fold_w_dec_norm")?.broadcast_mul(&column)?.t()?,
            b_enc: times(self.b_enc()),
            w_dec: self.w_dec().broadcast_div(&column)?,
            b_dec: self.b_dec().into(),
            activation,
        })
    }

    /// Takes the factor that activations were multiplied by in training into the weights, so that raw activations can come in.
    ///
    /// ```text
    /// W_enc *= s   W_dec /= s   b_dec /= s   input_shift /= s        folded(x) = self(x * s) / s
    /// ```
    ///
    /// Feature activations are those of `self(x * s)`; where features compete by decoder norm they come out divided by `s`, because the
    /// norms do (as in SAELens). A transcoder's output is divided too; its skip connection does not change, because
    /// `(x * s) W_skip^T / s = x W_skip^T`. A factor of 1 says that activations go in as they are: no weight changes.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `s` is finite and positive; [`Error::CannotFold`] with a per-token normalization, which
    /// would undo the factor; [`Error::RoundedWeights`] when `W_enc` is packed in a precision that does not keep it.
    pub fn fold_norm_factor(&self, s: f32) -> Result<Self> {
        check_factor(s, self.normalization())?;
        let over = |v: &[f32]| v.iter().map(|v| v / s).collect::<Arc<[f32]>>();
        let input = InputMap {
            normalization: Normalization::None,
            input_shift: self.input_shift().map(over),
            ..self.input.clone()
        };
        if s == 1.0 {
            return Ok(self.with_input(input));
        }
        let factor = Tensor::new(&[[s]], &Device::Cpu)?;
        self.rebuilt(Weights {
            input,
            w_enc: self.exact_w_enc_t("fold_norm_factor")?.broadcast_mul(&factor)?.t()?,
            b_enc: self.b_enc().into(),
            w_dec: self.w_dec().broadcast_div(&factor)?,
            b_dec: over(self.b_dec()),
            activation: self.activation().clone(),
        })
    }

    /// The SAE of the first `width` features alone: one level of a matryoshka SAE (arXiv 2503.17547), whose features are nested.
    ///
    /// ```text
    /// truncated(w).encode(x) = encode(x)[.., ..w]        x_hat_w = f[.., ..w] W_dec[..w] + b_dec
    /// ```
    ///
    /// [`SaeMetadata::matryoshka_widths`](crate::SaeMetadata::matryoshka_widths) says which widths were trained.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `width` is 1 to `d_sae`. [`Error::CannotFold`] where features compete: without the rest others would win
    /// (keep [`SparseFeatures::first`](crate::SparseFeatures::first) of the codes instead). [`Error::RoundedWeights`] when `W_enc` is packed in a
    /// precision that does not keep it.
    pub fn truncated(&self, width: usize) -> Result<Self> {
        if !(1..=self.d_sae()).contains(&width) {
            let expected = format!("1 to d_sae={}", self.d_sae());
            return Err(Error::Parameter { name: "width", expected, found: width.to_string() });
        }
        let first = |v: &Arc<[f32]>| Arc::<[f32]>::from(&v[..width]);
        let activation = match self.activation() {
            Activation::Relu => Activation::Relu,
            Activation::JumpRelu { threshold } => Activation::JumpRelu { threshold: first(threshold) },
            Activation::Gated { r_mag, b_mag } => Activation::Gated { r_mag: first(r_mag), b_mag: first(b_mag) },
            _ => {
                let reason = "its features compete, so without the rest others would be chosen";
                return Err(Error::CannotFold { fold: "truncated", reason });
            }
        };
        let truncated = self.rebuilt(Weights {
            input: self.input.clone(),
            w_enc: self.exact_w_enc_t("truncating")?.narrow(0, 0, width)?.t()?,
            b_enc: self.b_enc()[..width].into(),
            w_dec: self.w_dec().narrow(0, 0, width)?.contiguous()?,
            b_dec: self.b_dec().into(),
            activation,
        })?;
        Ok(truncated.with_sparsity(self.sparsity().map(|sparsity| sparsity[..width].into())))
    }

    /// Takes a whitening of the activations into the weights, so that raw activations can come in and reconstructions of them come out.
    ///
    /// ```text
    /// z = (x - mean) M      x_hat = z_hat M_inv + mean              folded(x) = self((x - mean) M) M_inv + mean
    ///
    /// W_enc <- M W_enc      W_dec <- W_dec M_inv      b_dec <- b_dec M_inv + mean
    /// with an input shift:  input_shift <- input_shift M_inv + mean
    /// without:              b_enc -= mean M W_enc     (Gated: b_mag -= mean M W_enc exp(r_mag) as well)
    /// ```
    ///
    /// Feature activations are those of `self((x - mean) M)`. Sums are in f64. Where features compete by decoder norm the norms are folded
    /// first ([`fold_w_dec_norm`](Self::fold_w_dec_norm)), so that the same features win. `M, M_inv [d_in, d_in]`, inverse to each other: what
    /// `M M_inv` differs from the identity by shows in the result where there is an input shift. Source: SAELens'
    /// `fold_activation_whitening` (arXiv 2511.13981).
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`]; [`Error::CannotFold`] for transcoders and skip connections, whose output is not whitened as
    /// the input is, and for any other normalization; [`Error::RoundedWeights`] when `W_enc` is packed in a precision that does not keep it.
    pub fn fold_whitening(&self, mean: &[f32], whiten: &Tensor, unwhiten: &Tensor) -> Result<Self> {
        const FOLD: &str = "fold_whitening";
        let unsafe_fold = |reason| Err(Error::CannotFold { fold: FOLD, reason });
        if self.is_transcoder() || self.w_skip()?.is_some() {
            return unsafe_fold("its output is not whitened as its input is");
        }
        if self.normalization() != Normalization::None {
            return unsafe_fold("it normalizes activations otherwise");
        }
        if self.activation().rescales_by_decoder_norm() {
            return self.fold_w_dec_norm()?.fold_whitening(mean, whiten, unwhiten);
        }
        let d_in = self.d_in();
        let check = |name, found: &[usize], expected: Vec<usize>| match found == expected {
            true => Ok(()),
            false => Err(Error::Shape { name, expected, found: found.to_vec() }),
        };
        check("mean", &[mean.len()], vec![d_in])?;
        check("whiten", whiten.dims(), vec![d_in, d_in])?;
        check("unwhiten", unwhiten.dims(), vec![d_in, d_in])?;
        check_finite("mean", mean, d_in)?;
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64);
        let (m, m_inv) = (wide(&matrix("whiten", whiten)?)?, wide(&matrix("unwhiten", unwhiten)?)?);
        let row = |v: &[f32]| Tensor::new(v, &Device::Cpu)?.to_dtype(DType::F64)?.unsqueeze(0);
        let narrow = |tensor: Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let moved = |v: &[f32]| narrow((row(v)?.matmul(&m_inv)? + row(mean)?)?).map(Arc::<[f32]>::from);
        let w_enc = m.matmul(&wide(&self.exact_w_enc_t(FOLD)?.t()?)?)?;
        let input = InputMap { input_shift: self.input_shift().map(moved).transpose()?, ..self.input.clone() };
        let (mut b_enc, mut activation) = (self.b_enc().to_vec(), self.activation().clone());
        if input.input_shift.is_none() {
            let shift = narrow(row(mean)?.matmul(&w_enc)?)?;
            b_enc.iter_mut().zip(&shift).for_each(|(b, shift)| *b -= shift);
            if let Activation::Gated { r_mag, b_mag } = &mut activation {
                let shifted = b_mag.iter().zip(r_mag.iter()).zip(&shift).map(|((b, r), shift)| b - shift * r.exp());
                *b_mag = shifted.collect();
            }
        }
        self.rebuilt(Weights {
            input,
            w_enc: w_enc.to_dtype(DType::F32)?,
            b_enc: b_enc.into(),
            w_dec: wide(self.w_dec())?.matmul(&m_inv)?.to_dtype(DType::F32)?,
            b_dec: moved(self.b_dec())?,
            activation,
        })
    }
}

/// Checks for every fold of a norm factor.
pub(crate) fn check_factor(s: f32, normalization: Normalization) -> Result<()> {
    if !(s.is_finite() && s > 0.0) {
        return Err(Error::Parameter { name: "s", expected: "finite and positive".into(), found: s.to_string() });
    }
    if normalization.is_per_token() {
        let reason = "its per-token normalization already sets every token's norm";
        return Err(Error::CannotFold { fold: "fold_norm_factor", reason });
    }
    Ok(())
}
