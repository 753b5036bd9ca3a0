use crate::activation::Rule;
use crate::encoder::{EncodeScratch, Encoder, ScratchPool, gather_rows};
use crate::features::check_features;
use crate::normalise::{InputMap, check_finite};
use crate::slices::with_f32;
use crate::{
    ActShape, Activation, Codes, Coupling, Error, FeatureId, Normalisation, Provenance, Result, SaeParts,
    SelectedFeatures, SparseCoder, SparseFeatures,
};
use candle_core::{DType, Device, Tensor};
use std::fmt;
use std::sync::Arc;
use tensor_kernels::Engine;

/// A sparse autoencoder.
///
/// ```text
/// x~    = norm_in(x) - input_shift
/// h     = x~ W_enc + b_enc
/// f     = activation(h)                                     see Activation
/// x_hat = norm_out(f W_dec + b_dec)
/// error = x - x_hat
/// ```
///
/// # Shapes
/// `x, x_hat, error [.., d_in]` (or `[.., head, d_head]`, see [`ActShape`]), `W_enc [d_in, d_sae]`, `b_enc [d_sae]`,
/// `W_dec [d_sae, d_in]`, `b_dec, input_shift [d_in]`, `f` sparse `[n, d_sae]`.
///
/// An `Sae` never changes; folds return a new one. Clones share their weights. Sums are kept in f32, products are as exact as the
/// [`Engine`] says that was chosen when it was made; decoding adds decoder rows of active features alone, in f32. A token's results
/// do not depend on the other tokens of the batch nor on the number of threads, to the bit.
///
/// # Memory
/// Each matrix once: `W_enc` packed for the kernels (4 bytes a value, 2 in bf16) or plain for the reference, `W_dec` plain. Encoding never
/// holds dense pre-activations (the reference: 16 MiB at a time). Scratch for 1,024 rows is kept for the next call.
#[derive(Clone)]
pub struct Sae {
    pub(crate) input: InputMap,
    pub(crate) encoder: Encoder,
    w_dec: Tensor,
    b_dec: Arc<[f32]>,
    /// TopK with rescaling: one over the norm of each decoder row.
    decoder_scale: Option<Arc<[f32]>>,
    activation: Activation,
    metadata: Arc<Provenance>,
    sparsity: Option<Arc<[f32]>>,
    scratch: ScratchPool,
}

impl Sae {
    /// Checks the parts and makes an SAE of them, on the default engine.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::Parameter`].
    pub fn new(parts: SaeParts) -> Result<Self> {
        Self::on(Engine::default(), parts)
    }

    /// As [`new`](Self::new), on an engine.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(engine: Engine, parts: SaeParts) -> Result<Self> {
        let (d_in, d_sae) = parts.check()?;
        let w_enc = parts.w_enc.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let w_dec = parts.w_dec.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        with_f32(&w_enc, |flat| check_finite("W_enc", flat, d_sae))??;
        with_f32(&w_dec, |flat| check_finite("W_dec", flat, d_in))??;
        let input = InputMap {
            d_in,
            act_shape: parts.act_shape,
            normalisation: parts.normalisation,
            input_shift: parts.input_shift.map(Arc::from),
        };
        let (b_enc, b_dec) = (parts.b_enc.into(), parts.b_dec.into());
        Self::assemble(engine, input, &w_enc, b_enc, w_dec, b_dec, parts.activation).map(|sae| Self {
            metadata: Arc::new(parts.metadata),
            sparsity: parts.sparsity.map(Arc::from),
            ..sae
        })
    }

    /// Works out what the activation needs per column. Everything has been checked.
    fn assemble(
        engine: Engine,
        input: InputMap,
        w_enc: &Tensor,
        b_enc: Arc<[f32]>,
        w_dec: Tensor,
        b_dec: Arc<[f32]>,
        activation: Activation,
    ) -> Result<Self> {
        let mut decoder_scale = None;
        let rule = match &activation {
            Activation::Relu => Rule::Relu,
            Activation::TopK { k, rescale_by_decoder_norm: false } => Rule::TopK { k: *k, norms: None },
            Activation::TopK { k, rescale_by_decoder_norm: true } => {
                let norms = row_norms(&w_dec)?;
                // A decoder row of zeros never wins a place, and would add nothing.
                let invert = |norm: &f32| if *norm == 0.0 { 0.0 } else { 1.0 / norm };
                decoder_scale = Some(norms.iter().map(invert).collect());
                Rule::TopK { k: *k, norms: Some(norms.into()) }
            }
            Activation::JumpRelu { threshold } => Rule::JumpRelu { threshold: threshold.clone() },
            Activation::Gated { r_mag, b_mag } => {
                Rule::Gated { gain: r_mag.iter().map(|r| r.exp()).collect(), b_mag: b_mag.clone() }
            }
        };
        let encoder = Encoder::new(engine, w_enc, b_enc, rule)?;
        let (metadata, scratch) = (Arc::default(), ScratchPool::default());
        Ok(Self { input, encoder, w_dec, b_dec, decoder_scale, activation, metadata, sparsity: None, scratch })
    }

    /// The same SAE with other weights (`w_t` is `W_enc` transposed); engine, metadata and sparsity stay.
    pub(crate) fn rebuilt(
        &self,
        input: InputMap,
        w_t: Tensor,
        b_enc: Arc<[f32]>,
        w_dec: Tensor,
        b_dec: Arc<[f32]>,
        activation: Activation,
    ) -> Result<Self> {
        let sae = Self::assemble(self.engine(), input, &w_t.t()?, b_enc, w_dec, b_dec, activation)?;
        Ok(Self { metadata: self.metadata.clone(), sparsity: self.sparsity.clone(), ..sae })
    }

    /// Encodes into storage that the caller keeps, so that a loop over batches does not allocate for its codes. What was in
    /// `codes` is replaced.
    ///
    /// # Errors
    /// As [`SparseCoder::encode`].
    pub fn encode_into(&self, x: &Tensor, scratch: &mut EncodeScratch, codes: &mut Codes) -> Result<()> {
        self.input.with_rows(x, |rows, scale, layout| {
            codes.features.clear(self.d_sae_() as u32);
            codes.scale = scale;
            codes.layout = layout;
            self.encoder.sparse(rows, scratch, &mut codes.features)
        })
    }

    /// Makes a few features ready for a loop over many batches; repeats are allowed and give the same column twice.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`].
    pub fn select(&self, features: &[FeatureId]) -> Result<SelectedFeatures> {
        check_features(features, self.d_sae_())?;
        let encoder = match self.coupling() {
            Coupling::Independent => self.encoder.gather(features)?,
            Coupling::Coupled => self.encoder.clone(),
        };
        let (input, scratch) = (self.input.clone(), ScratchPool::default());
        Ok(SelectedFeatures { features: features.into(), input, encoder, d_sae: self.d_sae_(), scratch })
    }

    /// Decodes dense features `[.., d_sae]`. For SAEs without per-token normalisation only: with one, decode
    /// [`Codes`] (see [`Codes::with_features`]), which know the norms.
    ///
    /// # Errors
    /// [`Error::CodesMismatch`].
    pub fn decode_dense(&self, features: &Tensor) -> Result<Tensor> {
        let mut codes = Codes::from_features(SparseFeatures::from_dense(features)?);
        codes.layout = crate::Layout::of(features.dims(), codes.features.d_sae(), ActShape::Flat)?;
        self.decode_codes(&codes)
    }

    pub(crate) fn d_sae_(&self) -> usize {
        self.encoder.columns()
    }

    pub(crate) fn d_out_(&self) -> usize {
        self.b_dec.len()
    }

    /// What computes it.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.encoder.engine()
    }

    /// The same SAE on another engine; `W_enc` is packed anew.
    ///
    /// # Errors
    /// [`Error::Rounded`] when the exact weights are no longer there.
    pub fn with_engine(&self, engine: Engine) -> Result<Self> {
        if engine == self.engine() {
            return Ok(self.clone());
        }
        let w_enc = self.encoder.w_t("changing the engine")?.t()?;
        let encoder = Encoder::new(engine, &w_enc, self.encoder.bias.clone(), self.encoder.rule.clone())?;
        Ok(Self { encoder, ..self.clone() })
    }

    /// Bytes that the two matrices take in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.encoder.bytes() + self.w_dec.elem_count() * size_of::<f32>()
    }

    /// `W_enc` transposed, `[d_sae, d_in]`: row j is what feature j looks for. Unpacked when it is packed.
    ///
    /// # Errors
    /// [`Error::Rounded`] when it is packed in a precision that does not keep it.
    pub fn w_enc_t(&self) -> Result<Tensor> {
        self.encoder.w_t("reading W_enc")
    }

    pub(crate) fn exact_w_enc_t(&self, purpose: &'static str) -> Result<Tensor> {
        self.encoder.w_t(purpose)
    }

    /// `W_dec [d_sae, d_in]`: row j is the direction of feature j.
    #[must_use]
    pub fn w_dec(&self) -> &Tensor {
        &self.w_dec
    }

    /// `b_enc [d_sae]`; for Gated the gate's bias.
    #[must_use]
    pub fn b_enc(&self) -> &[f32] {
        &self.encoder.bias
    }

    /// `b_dec [d_in]`.
    #[must_use]
    pub fn b_dec(&self) -> &[f32] {
        &self.b_dec
    }

    /// What is subtracted from the input before encoding, `[d_in]`, if anything.
    #[must_use]
    pub fn input_shift(&self) -> Option<&[f32]> {
        self.input.input_shift.as_deref()
    }

    /// How pre-activations become activations.
    #[must_use]
    pub fn activation(&self) -> &Activation {
        &self.activation
    }

    /// What happens to each token before encoding.
    #[must_use]
    pub fn normalisation(&self) -> Normalisation {
        self.input.normalisation
    }

    /// Whether inputs may come split into heads.
    #[must_use]
    pub fn act_shape(&self) -> ActShape {
        self.input.act_shape
    }

    /// Where the SAE belongs: model, hook, context size ...
    #[must_use]
    pub fn metadata(&self) -> &Provenance {
        &self.metadata
    }

    /// The same SAE with other metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: Provenance) -> Self {
        Self { metadata: Arc::new(metadata), ..self }
    }

    /// The hook point whose activations the SAE was trained on, as the metadata names it.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`] when they do not.
    pub fn hook_name(&self) -> Result<&str> {
        self.metadata.hook_name.as_deref().ok_or(Error::MissingMetadata { key: "hook_name" })
    }

    /// log10 of each feature's firing frequency on the training data, `[d_sae]`, if the folder had it.
    #[must_use]
    pub fn sparsity(&self) -> Option<&[f32]> {
        self.sparsity.as_deref()
    }

    pub(crate) fn decoder_scale(&self) -> Option<&[f32]> {
        self.decoder_scale.as_deref()
    }
}

impl SparseCoder for Sae {
    fn d_in(&self) -> usize {
        self.input.d_in
    }

    fn d_out(&self) -> usize {
        self.d_out_()
    }

    fn provenance(&self) -> Option<&Provenance> {
        Some(&self.metadata)
    }

    fn d_sae(&self) -> usize {
        self.d_sae_()
    }

    fn coupling(&self) -> Coupling {
        match self.activation {
            Activation::Relu | Activation::JumpRelu { .. } | Activation::Gated { .. } => Coupling::Independent,
            Activation::TopK { .. } => Coupling::Coupled,
        }
    }

    fn encode(&self, x: &Tensor) -> Result<Codes> {
        let mut codes = Codes::from_features(SparseFeatures::empty(self.d_sae_() as u32));
        self.scratch.with(|scratch| self.encode_into(x, scratch, &mut codes))?;
        Ok(codes)
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor> {
        self.decode_codes(codes)
    }

    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> {
        check_features(features, self.d_sae_())?;
        gather_rows(&self.w_dec, features, self.decoder_scale())
    }

    fn pre_acts(&self, x: &Tensor) -> Result<Tensor> {
        self.input.with_rows(x, |rows, _, layout| {
            let dense = self.scratch.with(|scratch| self.encoder.dense(rows, scratch, Rule::pre_activation))?;
            Ok(dense.reshape(layout.with_width(self.d_sae_()))?)
        })
    }

    fn encode_only(&self, x: &Tensor, features: &[FeatureId]) -> Result<Tensor> {
        self.select(features)?.encode(x)
    }
}

impl fmt::Debug for Sae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sae")
            .field("architecture", &self.activation.architecture())
            .field("engine", &format_args!("{}", self.engine()))
            .field("d_in", &self.input.d_in)
            .field("d_sae", &self.d_sae_())
            .field("k", &if let Activation::TopK { k, .. } = self.activation { Some(k) } else { None })
            .field("input_shift", &self.input.input_shift.is_some())
            .field("normalisation", &self.input.normalisation)
            .field("act_shape", &self.input.act_shape)
            .field("hook_name", &self.metadata.hook_name)
            .finish()
    }
}

/// Norms of the rows of a matrix.
pub(crate) fn row_norms(matrix: &Tensor) -> Result<Vec<f32>> {
    let width = matrix.dim(1)?;
    let norm = |row: &[f32]| row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt() as f32;
    with_f32(matrix, |flat| flat.chunks_exact(width).map(norm).collect())
}
