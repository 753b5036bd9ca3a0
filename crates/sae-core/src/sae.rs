use crate::activation::Rule;
use crate::encode::{EncodeScratch, Encoder, SelectedFeatures, gather_rows};
use crate::features::check_features;
use crate::normalise::{InputMap, check_finite};
use crate::slices::with_f32;
use crate::{
    ActShape, Activation, Codes, Coupling, Error, FeatureId, Normalisation, Provenance, Result, SaeParts, SparseCoder,
    SparseFeatures,
};
use candle_core::{DType, Device, Tensor};
use std::fmt;
use std::sync::Arc;

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
/// An `Sae` never changes; folds return a new one. Clones share their weights. All arithmetic is f32; encoding holds at most
/// 16 MiB of dense pre-activations at a time, and decoding adds decoder rows of active features alone. A token's results do not
/// depend on the other tokens of the batch nor on the number of threads, to the bit.
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
}

impl Sae {
    /// Checks the parts and makes an SAE of them.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::Parameter`].
    pub fn new(parts: SaeParts) -> Result<Self> {
        let (d_in, _) = parts.check()?;
        let w_t = parts.w_enc.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.t()?.contiguous()?;
        let w_dec = parts.w_dec.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        with_f32(&w_t, |flat| check_finite("W_enc (transposed)", flat, d_in))??;
        with_f32(&w_dec, |flat| check_finite("W_dec", flat, d_in))??;
        let input = InputMap {
            d_in,
            act_shape: parts.act_shape,
            normalisation: parts.normalisation,
            input_shift: parts.input_shift.map(Arc::from),
        };
        Self::assemble(input, w_t, parts.b_enc.into(), w_dec, parts.b_dec.into(), parts.activation).map(|sae| Self {
            metadata: Arc::new(parts.metadata),
            sparsity: parts.sparsity.map(Arc::from),
            ..sae
        })
    }

    /// Works out what the activation needs per column. Everything has been checked.
    pub(crate) fn assemble(
        input: InputMap,
        w_t: Tensor,
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
        let encoder = Encoder { w_t, bias: b_enc, rule };
        let metadata = Arc::default();
        Ok(Self { input, encoder, w_dec, b_dec, decoder_scale, activation, metadata, sparsity: None })
    }

    /// The same SAE with other weights; metadata and sparsity stay.
    pub(crate) fn rebuilt(
        &self,
        input: InputMap,
        w_t: Tensor,
        b_enc: Arc<[f32]>,
        w_dec: Tensor,
        b_dec: Arc<[f32]>,
        activation: Activation,
    ) -> Result<Self> {
        let sae = Self::assemble(input, w_t, b_enc, w_dec, b_dec, activation)?;
        Ok(Self { metadata: self.metadata.clone(), sparsity: self.sparsity.clone(), ..sae })
    }

    /// Encodes into storage that the caller keeps, so that a loop over batches does not allocate for its codes. What was in
    /// `codes` is replaced.
    ///
    /// # Errors
    /// As [`SparseCoder::encode`].
    pub fn encode_into(&self, x: &Tensor, scratch: &mut EncodeScratch, codes: &mut Codes) -> Result<()> {
        let input = self.input.apply(x)?;
        codes.features.clear(self.d_sae_() as u32);
        codes.scale = input.scale;
        codes.layout = input.layout;
        self.encoder.sparse(&input.x, scratch, &mut codes.features)
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
        Ok(SelectedFeatures { features: features.into(), input: self.input.clone(), encoder, d_sae: self.d_sae_() })
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

    /// `W_enc` transposed, `[d_sae, d_in]`: row j is what feature j looks for.
    #[must_use]
    pub fn w_enc_t(&self) -> &Tensor {
        &self.encoder.w_t
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
        self.encode_into(x, &mut EncodeScratch::default(), &mut codes)?;
        Ok(codes)
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor> {
        self.decode_codes(codes)
    }

    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> {
        check_features(features, self.d_sae_())?;
        gather_rows(&self.w_dec, features, self.decoder_scale())
    }

    fn encode_only(&self, x: &Tensor, features: &[FeatureId]) -> Result<Tensor> {
        self.select(features)?.encode(x)
    }
}

impl fmt::Debug for Sae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sae")
            .field("architecture", &self.activation.architecture())
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
