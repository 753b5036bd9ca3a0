use crate::slices::with_f32;
use crate::{Codes, Error, InputNorm, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::sync::Arc;
use tensor_kernels::{CsrRef, Engine, decode_rows};

/// The way back from features to vectors.
#[derive(Clone)]
pub(crate) struct Decoder {
    /// `[d_sae, d_out]`, contiguous, f32.
    pub(crate) w_dec: Tensor,
    /// `[d_out]`.
    pub(crate) b_dec: Arc<[f32]>,
    /// `[d_sae]`, what features are multiplied by first.
    pub(crate) scale: Option<Arc<[f32]>>,
    /// Whether codes bring a norm per token that is undone in the output.
    pub(crate) per_token: bool,
}

impl Decoder {
    pub(crate) fn d_out(&self) -> usize {
        self.b_dec.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.w_dec.elem_count() * size_of::<f32>()
    }

    /// `x_hat = sum_j f_j * W_dec[j] + b_dec`, features in rising order, then the token's norm undone.
    pub(crate) fn decode(&self, engine: Engine, codes: &Codes) -> Result<Tensor> {
        self.check_codes(codes)?;
        let width = self.d_out();
        let rows = codes.features.rows();
        let mut out = vec![0f32; rows * width];
        match engine {
            Engine::Kernels(arithmetic) => with_f32(&self.w_dec, |w_dec| {
                let features = &codes.features;
                let sparse = CsrRef { indptr: features.indptr(), index: features.index(), value: features.value() };
                let (scale, bias) = (self.scale.as_deref(), Some(&*self.b_dec));
                decode_rows(arithmetic.backend(), sparse, w_dec, width, scale, bias, &mut out)
            })??,
            _ => with_f32(&self.w_dec, |w_dec| {
                out.par_chunks_exact_mut(width).enumerate().for_each(|(row, out)| {
                    let (index, value) = codes.features.row(row);
                    self.add_rows(w_dec, index, value, out);
                    out.iter_mut().zip(self.b_dec.iter()).for_each(|(out, b)| *out += b);
                });
            })?,
        }
        if let Some(norm) = &codes.scale {
            out.par_chunks_exact_mut(width).enumerate().for_each(|(row, out)| undo(norm, row, out));
        }
        Ok(Tensor::from_vec(out, codes.layout.output(width), &Device::Cpu)?)
    }

    /// The reference, as plain as it can be said: adds each feature's decoder row times its activation, in the order of the features.
    fn add_rows(&self, w_dec: &[f32], index: &[u32], value: &[f32], out: &mut [f32]) {
        let width = out.len();
        for (&j, &value) in index.iter().zip(value) {
            let value = self.scale.as_ref().map_or(value, |scale| value * scale[j as usize]);
            let row = &w_dec[j as usize * width..][..width];
            out.iter_mut().zip(row).for_each(|(out, w)| *out += value * w);
        }
    }

    fn check_codes(&self, codes: &Codes) -> Result<()> {
        let check = |what, expected: String, found: String| {
            if expected == found { Ok(()) } else { Err(Error::CodesMismatch { what, expected, found }) }
        };
        let rows = codes.features.rows();
        check("d_sae", self.w_dec.dim(0)?.to_string(), codes.features.d_sae().to_string())?;
        check("number of rows in the layout", rows.to_string(), codes.layout.count().to_string())?;
        let per_token = if self.per_token { "present" } else { "absent" };
        check("per-token norm", per_token.into(), codes.scale.as_ref().map_or("absent", |_| "present").into())?;
        if let Some(norm) = &codes.scale {
            check("number of norms", rows.to_string(), norm.multiply.len().to_string())?;
            if let Some(add) = &norm.add {
                check("number of means", rows.to_string(), add.len().to_string())?;
            }
        }
        Ok(())
    }
}

fn undo(norm: &InputNorm, row: usize, out: &mut [f32]) {
    let (multiply, add) = (norm.multiply[row], norm.add.as_ref().map_or(0.0, |add| add[row]));
    out.iter_mut().for_each(|x| *x = *x * multiply + add);
}
