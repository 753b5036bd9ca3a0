use crate::decoder::Decoder;
use crate::encoder::selection::{By, Selection};
use crate::encoder::{EncodeScratch, Encoder, ROW_TILE, ScratchPool, gather_rows};
use crate::normalization::{InputMap, Rows, check_finite, matrix};
use crate::slices::with_f32;
use crate::sparse_features::check_features;
use crate::{
    Codes, Coupling, Error, FeatureId, InputShape, Normalization, Result, SaeMetadata, SparseCoder, SparseFeatures,
};
use candle_core::Tensor;
use rayon::prelude::*;
use std::fmt;
use std::sync::Arc;
use tensor_kernels::{Engine, Precision};

/// The parts of a [`MatchingPursuit`], unchecked.
#[derive(Clone, Debug)]
pub struct MatchingPursuitParts {
    /// `W_dec [d_sae, d_in]`: the encoder is its transpose.
    pub w_dec: Tensor,
    /// `b_dec [d_in]`: subtracted before encoding and added after decoding, or neither (`None`).
    pub b_dec: Option<Vec<f32>>,
    /// A token is done when the norm of its residual is below this; 0: never for that reason.
    pub residual_threshold: f32,
    /// Choices that a token makes at most; `None`: `d_in`.
    pub max_iterations: Option<usize>,
    /// Whether a token is done when it chooses a feature that it has chosen before.
    pub stop_on_duplicate_support: bool,
    /// Normalization of each token before encoding, undone after decoding.
    pub normalization: Normalization,
    /// Whether inputs may come split into heads.
    pub act_shape: InputShape,
    /// Metadata: model, hook, context size ...
    pub metadata: SaeMetadata,
}

/// An SAE whose encoder is matching pursuit over the rows of its decoder.
///
/// ```text
/// r = norm_in(x) - b_dec;   f = 0
/// at most max_iterations times:
///     j = the feature with the largest r . W_dec[j]          done when none is above zero
///     v = r . W_dec[j]
///     f_j += v;   r -= v W_dec[j]
///     done when f_j was not zero before (if stop_on_duplicate_support), or |r| < residual_threshold
/// x_hat = norm_out(f W_dec + b_dec)
/// ```
///
/// The rules are those of SAELens' `matching_pursuit`. One product per iteration for the tokens that are not done, in f32 on every engine
/// (one of bf16 is replaced by [`Precision::F32Fast`]): where a choice falls the other way all that follows does. A token's result does not
/// depend on the others. There are no pre-activations.
#[derive(Clone)]
pub struct MatchingPursuit {
    input: InputMap,
    /// The transposed decoder, choosing the best of each row.
    encoder: Encoder,
    decoder: Decoder,
    residual_threshold: f32,
    max_iterations: Option<usize>,
    stop_on_duplicate_support: bool,
    metadata: Arc<SaeMetadata>,
    scratch: ScratchPool,
}

impl MatchingPursuit {
    /// Checks the parts and makes a dictionary of them, on an engine.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::Parameter`].
    pub fn on(engine: Engine, parts: MatchingPursuitParts) -> Result<Self> {
        let w_dec = matrix("W_dec", &parts.w_dec)?.contiguous()?;
        let (d_sae, d_in) = w_dec.dims2()?;
        let least = if parts.normalization == Normalization::LayerNorm { 2 } else { 1 };
        for (name, value, least) in [("d_in", d_in, least), ("d_sae", d_sae, 1)] {
            if value < least || u32::try_from(value).is_err() {
                let expected = format!("{least} to {}", u32::MAX);
                return Err(Error::Parameter { name, expected, found: value.to_string() });
            }
        }
        if parts.residual_threshold.is_nan() || parts.residual_threshold < 0.0 {
            let (expected, found) = ("0 or more".into(), parts.residual_threshold.to_string());
            return Err(Error::Parameter { name: "residual_threshold", expected, found });
        }
        if let Some(b_dec) = &parts.b_dec {
            if b_dec.len() != d_in {
                return Err(Error::Shape { name: "b_dec", expected: vec![d_in], found: vec![b_dec.len()] });
            }
            check_finite("b_dec", b_dec, d_in)?;
        }
        let input_shift: Option<Arc<[f32]>> = parts.b_dec.map(Arc::from);
        let b_dec = input_shift.clone().unwrap_or_else(|| vec![0.0; d_in].into());
        let bf16 = engine.arithmetic().is_some_and(|arithmetic| arithmetic.precision() == Precision::Bf16);
        let engine = if bf16 { Engine::kernels(Precision::F32Fast) } else { engine };
        let choose = Selection::Best { k: 1, norms: None, by: By::Positive };
        Ok(Self {
            encoder: Encoder::new(engine, &w_dec.t()?, vec![0.0; d_sae].into(), choose)?,
            decoder: Decoder { w_dec, b_dec, scale: None, per_token: parts.normalization.is_per_token() },
            input: InputMap { d_in, act_shape: parts.act_shape, normalization: parts.normalization, input_shift },
            residual_threshold: parts.residual_threshold,
            max_iterations: parts.max_iterations,
            stop_on_duplicate_support: parts.stop_on_duplicate_support,
            metadata: Arc::new(parts.metadata),
            scratch: ScratchPool::default(),
        })
    }

    /// Takes the factor that activations were multiplied by in training into the parameters.
    ///
    /// ```text
    /// b_dec /= s   residual_threshold /= s   W_dec stays        folded(x) = self(x * s) / s
    /// ```
    ///
    /// Feature activations are those of `self(x * s)`, divided by `s`.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `s` is finite and positive, [`Error::CannotFold`] with a per-token normalization.
    pub fn fold_norm_factor(&self, s: f32) -> Result<Self> {
        crate::fold::check_factor(s, self.input.normalization)?;
        let over = |v: &[f32]| v.iter().map(|v| v / s).collect::<Arc<[f32]>>();
        let mut folded = self.clone();
        folded.input.normalization = Normalization::None;
        folded.input.input_shift = self.input.input_shift.as_deref().map(over);
        folded.decoder.b_dec = over(&self.decoder.b_dec);
        folded.residual_threshold /= s;
        Ok(folded)
    }

    /// Always refused: with other norms other features would be chosen.
    ///
    /// # Errors
    /// [`Error::CannotFold`].
    pub fn fold_w_dec_norm(&self) -> Result<Self> {
        let reason = "matching pursuit compares features by their decoder rows, so other features would be chosen";
        Err(Error::CannotFold { fold: "fold_w_dec_norm", reason })
    }

    /// Always refused: encoder and decoder are one matrix.
    ///
    /// # Errors
    /// [`Error::CannotFold`].
    pub fn fold_whitening(&self, _mean: &[f32], _whiten: &Tensor, _unwhiten: &Tensor) -> Result<Self> {
        let reason = "encoder and decoder are one matrix, and whitening changes them differently";
        Err(Error::CannotFold { fold: "fold_whitening", reason })
    }

    /// `matching_pursuit`.
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        "matching_pursuit"
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.encoder.engine()
    }

    /// `W_dec [d_sae, d_in]`.
    #[must_use]
    pub fn w_dec(&self) -> &Tensor {
        &self.decoder.w_dec
    }

    /// `b_dec [d_in]`, if it is used.
    #[must_use]
    pub fn b_dec(&self) -> Option<&[f32]> {
        self.input.input_shift.as_deref()
    }

    /// The norm of a residual below which a token is done; 0: never.
    #[must_use]
    pub fn residual_threshold(&self) -> f32 {
        self.residual_threshold
    }

    /// Choices that a token makes at most.
    #[must_use]
    pub fn max_iterations(&self) -> usize {
        self.max_iterations.unwrap_or(self.input.d_in)
    }

    /// Whether a token is done when it chooses a feature again.
    #[must_use]
    pub fn stop_on_duplicate_support(&self) -> bool {
        self.stop_on_duplicate_support
    }

    /// Normalization of each token before encoding.
    #[must_use]
    pub fn normalization(&self) -> Normalization {
        self.input.normalization
    }

    /// Whether inputs may come split into heads.
    #[must_use]
    pub fn act_shape(&self) -> InputShape {
        self.input.act_shape
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

    /// Pursues a tile of rows; their features, rising.
    fn pursue(&self, x: &[f32], shift: Option<&[f32]>, scratch: &mut EncodeScratch) -> Result<Vec<Vec<(u32, f32)>>> {
        let d_in = self.input.d_in;
        let mut found: Vec<Vec<(u32, f32)>> = vec![Vec::new(); x.len() / d_in];
        // Residuals of the rows that are not done, one after another, and which rows they are.
        let mut residuals = x.to_vec();
        if let Some(shift) = shift {
            residuals.chunks_exact_mut(d_in).for_each(|row| row.iter_mut().zip(shift).for_each(|(x, b)| *x -= b));
        }
        let mut alive: Vec<usize> = (0..found.len()).collect();
        let mut best = SparseFeatures::empty(self.encoder.columns() as u32);
        for _ in 0..self.max_iterations() {
            best.clear(self.encoder.columns() as u32);
            self.encoder.sparse(&Rows { d_in, flat: &residuals, shift: None }, scratch, &mut best)?;
            let steps: Vec<Option<(u32, f32)>> = with_f32(&self.decoder.w_dec, |w_dec| {
                let rows = residuals.par_chunks_exact_mut(d_in).enumerate();
                rows.map(|(i, residual)| best.row(i).0.first().and_then(|&j| step(residual, w_dec, j))).collect()
            })?;
            let mut kept = 0;
            for (i, step) in steps.into_iter().enumerate() {
                let Some((feature, value)) = step else { continue };
                let again = add(&mut found[alive[i]], feature, value);
                let residual = &residuals[i * d_in..(i + 1) * d_in];
                let near = self.residual_threshold > 0.0 && norm(residual) < f64::from(self.residual_threshold);
                if near || !value.is_finite() || (again && self.stop_on_duplicate_support) {
                    continue;
                }
                residuals.copy_within(i * d_in..(i + 1) * d_in, kept * d_in);
                alive[kept] = alive[i];
                kept += 1;
            }
            alive.truncate(kept);
            residuals.truncate(kept * d_in);
            if alive.is_empty() {
                break;
            }
        }
        Ok(found)
    }
}

/// Subtracts a feature from a residual and returns its value. The sum is in f64, whichever engine computes the products that choose the feature.
fn step(residual: &mut [f32], w_dec: &[f32], feature: u32) -> Option<(u32, f32)> {
    let row = &w_dec[feature as usize * residual.len()..][..residual.len()];
    let value = residual.iter().zip(row).map(|(r, w)| f64::from(*r) * f64::from(*w)).sum::<f64>() as f32;
    if value <= 0.0 {
        return None;
    }
    residual.iter_mut().zip(row).for_each(|(r, w)| *r -= value * w);
    Some((feature, value))
}

/// Adds to a feature's activation; whether it had one.
fn add(features: &mut Vec<(u32, f32)>, feature: u32, value: f32) -> bool {
    match features.binary_search_by_key(&feature, |entry| entry.0) {
        Ok(at) => {
            features[at].1 += value;
            true
        }
        Err(at) => {
            features.insert(at, (feature, value));
            false
        }
    }
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

impl SparseCoder for MatchingPursuit {
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
        self.input.with_rows(x, |rows, scale, layout| {
            let mut features = SparseFeatures::empty(self.encoder.columns() as u32);
            for tile in rows.flat.chunks(ROW_TILE * rows.d_in) {
                let found = self.scratch.with(|scratch| self.pursue(tile, rows.shift, scratch))?;
                found.into_iter().for_each(|row| features.push_row(row.into_iter()));
            }
            Ok(Codes { features, scale, layout })
        })
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor> {
        self.input.check_scale()?;
        self.decoder.decode(self.engine(), codes)
    }

    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> {
        self.input.check_scale()?;
        check_features(features, self.d_sae())?;
        gather_rows(&self.decoder.w_dec, features, None)
    }
}

impl fmt::Debug for MatchingPursuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MatchingPursuit")
            .field("engine", &format_args!("{}", self.engine()))
            .field("d_in", &self.input.d_in)
            .field("d_sae", &self.d_sae())
            .field("residual_threshold", &self.residual_threshold)
            .field("max_iterations", &self.max_iterations())
            .field("stop_on_duplicate_support", &self.stop_on_duplicate_support)
            .field("hook_name", &self.metadata.hook_name)
            .finish_non_exhaustive()
    }
}
