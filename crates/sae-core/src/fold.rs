use crate::normalise::InputMap;
use crate::sae::{Weights, row_norms};
use crate::{Activation, Error, Normalisation, Result, Sae};
use candle_core::{Device, Tensor};
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
    /// [`Error::UnsafeFold`] where features compete without that rescaling (TopK and the like): others would win. [`Error::Rounded`] when `W_enc` is packed in a
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
                return Err(Error::UnsafeFold {
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
    /// `(x * s) W_skip^T / s = x W_skip^T`.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `s` is finite and positive; [`Error::UnsafeFold`] with a per-token normalisation, which
    /// would undo the factor; [`Error::Rounded`] when `W_enc` is packed in a precision that does not keep it.
    pub fn fold_norm_factor(&self, s: f32) -> Result<Self> {
        if !(s.is_finite() && s > 0.0) {
            return Err(Error::Parameter { name: "s", expected: "finite and positive".into(), found: s.to_string() });
        }
        if self.normalisation().is_per_token() {
            return Err(Error::UnsafeFold {
                fold: "fold_norm_factor",
                reason: "its per-token normalisation already sets every token's norm",
            });
        }
        let over = |v: &[f32]| v.iter().map(|v| v / s).collect::<Arc<[f32]>>();
        let input = InputMap {
            normalisation: Normalisation::None,
            input_shift: self.input_shift().map(over),
            ..self.input.clone()
        };
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
}
