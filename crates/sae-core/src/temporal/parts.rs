use super::TemporalSae;
use super::layer::Layer;
use crate::decoder::Decoder;
use crate::encoder::selection::{By, Selection};
use crate::encoder::{Encoder, ScratchPool};
use crate::normalization::{InputMap, check_finite, matrix};
use crate::{Error, InputShape, Normalization, Result, SaeMetadata};
use candle_core::Tensor;
use std::sync::Arc;
use tensor_kernels::Engine;

/// The parts of a [`TemporalSae`], unchecked.
#[derive(Clone, Debug)]
pub struct TemporalParts {
    /// `W_enc [d_in, d_sae]`; `None`: `W_dec^T` (tied).
    pub w_enc: Option<Tensor>,
    /// `W_dec [d_sae, d_in]`.
    pub w_dec: Tensor,
    /// `b_dec [d_in]`; not used at all when the weights are tied and it is not applied to the input (as in SAELens).
    pub b_dec: Vec<f32>,
    /// Whether `b_dec` is subtracted before encoding.
    pub apply_b_dec_to_input: bool,
    /// The attention layers.
    pub layers: Vec<TemporalLayerParts>,
    /// Heads of each.
    pub n_heads: usize,
    /// Novel codes that a token keeps at most; `None`: all above zero.
    pub k: Option<usize>,
    /// Factor by which inputs are multiplied and outputs divided.
    pub activation_normalization_factor: f32,
    /// Further normalization of each token before encoding, undone after decoding.
    pub normalization: Normalization,
    /// Whether inputs may come split into heads.
    pub act_shape: InputShape,
    /// Metadata: model, hook, context size ...
    pub metadata: SaeMetadata,
}

/// One attention layer over codes.
#[derive(Clone, Debug)]
pub struct TemporalLayerParts {
    /// Of the token's own codes: weight `[width, d_sae]`.
    pub q: TemporalLinear,
    /// Of the codes before: weight `[width, d_sae]`.
    pub k: TemporalLinear,
    /// Of the codes before: weight `[d_sae, d_sae]`.
    pub v: TemporalLinear,
    /// Of all heads: weight `[d_sae, d_sae]`.
    pub o: TemporalLinear,
}

/// `x W^T + b`.
#[derive(Clone, Debug)]
pub struct TemporalLinear {
    /// `W [out, in]`.
    pub weight: Tensor,
    /// `b [out]`.
    pub bias: Vec<f32>,
}

impl TemporalSae {
    /// Checks the parts and makes an SAE of them, on an engine.
    ///
    /// The factor is taken into the weights: `W_enc *= c`, `W_dec /= c`, `b_dec /= c`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::Parameter`].
    pub fn on(engine: Engine, parts: TemporalParts) -> Result<Self> {
        let w_dec = matrix("W_dec", &parts.w_dec)?;
        let (d_sae, d_in) = w_dec.dims2()?;
        check(&parts, d_in, d_sae)?;
        let c = f64::from(parts.activation_normalization_factor);
        let w_enc = match &parts.w_enc {
            Some(w_enc) => matrix("W_enc", w_enc)?,
            None => w_dec.t()?,
        };
        let lam = 1.0 / (4.0 * d_in as f64);
        let w_dec = if c == 1.0 { w_dec.contiguous()? } else { (w_dec / c)?.contiguous()? };
        let b_dec: Arc<[f32]> = parts.b_dec.iter().map(|b| (f64::from(*b) / c) as f32).collect();
        let added = parts.w_enc.is_some() || parts.apply_b_dec_to_input;
        let novel = parts.k.map_or(Selection::Relu, |k| Selection::Best { k, norms: None, by: By::Positive });
        let layer = |layer| Layer::new(engine, layer, parts.n_heads, d_sae);
        Ok(Self {
            encoder: Encoder::new(engine, &(w_enc * (lam * c))?, vec![0.0; d_sae].into(), novel)?,
            layers: parts.layers.iter().map(layer).collect::<Result<_>>()?,
            project: Encoder::new(engine, &w_dec, vec![0.0; d_in].into(), Selection::Relu)?,
            decoder: Decoder {
                w_dec,
                b_dec: if added { b_dec.clone() } else { vec![0.0; d_in].into() },
                scale: None,
                per_token: parts.normalization.is_per_token(),
            },
            input: InputMap {
                d_in,
                act_shape: parts.act_shape,
                normalization: parts.normalization,
                input_shift: parts.apply_b_dec_to_input.then_some(b_dec),
            },
            eps: 1e-6 / c,
            metadata: Arc::new(parts.metadata),
            scratch: ScratchPool::default(),
        })
    }
}

fn check(parts: &TemporalParts, d_in: usize, d_sae: usize) -> Result<()> {
    let refuse = |name, expected: String, found: String| Err(Error::Parameter { name, expected, found });
    if let Some(w_enc) = &parts.w_enc
        && w_enc.dims() != [d_in, d_sae]
    {
        return Err(Error::Shape { name: "W_enc", expected: vec![d_in, d_sae], found: w_enc.dims().to_vec() });
    }
    if parts.b_dec.len() != d_in {
        return Err(Error::Shape { name: "b_dec", expected: vec![d_in], found: vec![parts.b_dec.len()] });
    }
    check_finite("b_dec", &parts.b_dec, d_in)?;
    let c = parts.activation_normalization_factor;
    if !(c.is_finite() && c > 0.0) {
        return refuse("activation_normalization_factor", "finite and positive".into(), c.to_string());
    }
    if c != 1.0 && parts.normalization.is_per_token() {
        return refuse("activation_normalization_factor", "1 with a per-token normalization".into(), c.to_string());
    }
    let least = if parts.normalization == Normalization::LayerNorm { 2 } else { 1 };
    for (name, value, least) in [("d_in", d_in, least), ("d_sae", d_sae, 1)] {
        if value < least || u32::try_from(value).is_err() {
            return refuse(name, format!("{least} to {}", u32::MAX), value.to_string());
        }
    }
    match parts.k {
        Some(k) if !(1..=d_sae).contains(&k) => refuse("k", format!("1 to d_sae={d_sae}"), k.to_string()),
        _ => Ok(()),
    }
}
