use crate::decoder::Decoder;
use crate::encoder::selection::{By, Selection};
use crate::encoder::{EncodeScratch, Encoder, ScratchPool, gather_rows};
use crate::normalization::{InputMap, matrix};
use crate::slices::with_f32;
use crate::sparse_features::check_features;
use crate::{
    Activation, Codes, Coupling, Error, FeatureId, FeatureSubset, InputShape, Normalization, Result, SaeMetadata,
    SaeParts, SparseCoder, SparseFeatures,
};
use candle_core::Tensor;
use std::fmt;
use std::sync::Arc;
use tensor_kernels::Engine;

/// A sparse autoencoder, or a transcoder: the same with an output that is another hook point's value.
///
/// ```text
/// x~    = norm_in(x) - input_shift
/// h     = x~ W_enc + b_enc
/// f     = activation(h)                                     see Activation
/// x_hat = norm_out(f W_dec + b_dec) + x W_skip^T            transcoders: norm_out does nothing
/// error = x - x_hat                                         transcoders have none
/// ```
///
/// # Shapes
/// `x, error [.., d_in]` (or `[.., head, d_head]`, see [`InputShape`]), `W_enc [d_in, d_sae]`, `b_enc [d_sae]`, `input_shift [d_in]`,
/// `f` sparse `[n, d_sae]`, `W_dec [d_sae, d_out]`, `b_dec [d_out]`, `W_skip [d_out, d_in]`, `x_hat [.., d_out]`; `d_out = d_in` but for
/// transcoders.
///
/// `W_skip` (of few transcoders) sees the input as it comes. [`SparseCoder::decode`] gives `norm_out(f W_dec + b_dec)` alone,
/// [`SparseCoder::skip`] the rest, [`SparseCoder::forward`] the sum.
///
/// An `Sae` never changes; folds return a new one. Clones share their weights. Sums are kept in f32, products are as exact as the
/// [`Engine`] says that was chosen when it was made; decoding adds decoder rows of active features alone, in f32. A token's results
/// do not depend on the other tokens of the batch (but for [`Activation::BatchTopK`], whose definition is that they do) nor on the number
/// of threads, to the bit.
///
/// # Memory
/// Each matrix once: `W_enc` packed for the kernels (4 bytes a value, 2 in bf16) or plain for the reference, `W_dec` plain. Encoding never
/// holds dense pre-activations (the reference: 16 MiB at a time). Scratch for 1,024 rows is kept for the next call.
#[derive(Clone)]
pub struct Sae {
    pub(crate) input: InputMap,
    pub(crate) encoder: Encoder,
    decoder: Decoder,
    /// `W_skip`, as an encoder of `d_out` columns without a bias.
    skip: Option<Encoder>,
    transcoder: bool,
    activation: Activation,
    metadata: Arc<SaeMetadata>,
    sparsity: Option<Arc<[f32]>>,
    scratch: ScratchPool,
}

/// The parameters of an SAE that folds change.
pub(crate) struct Weights {
    pub(crate) input: InputMap,
    /// `[d_in, d_sae]` in any memory order.
    pub(crate) w_enc: Tensor,
    pub(crate) b_enc: Arc<[f32]>,
    pub(crate) w_dec: Tensor,
    pub(crate) b_dec: Arc<[f32]>,
    pub(crate) activation: Activation,
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
        let d_in = parts.check()?;
        let input = InputMap {
            d_in,
            act_shape: parts.act_shape,
            normalization: parts.normalization,
            input_shift: parts.input_shift.map(Arc::from),
        };
        let weights = Weights {
            input,
            w_enc: matrix("W_enc", &parts.w_enc)?,
            b_enc: parts.b_enc.into(),
            w_dec: matrix("W_dec", &parts.w_dec)?.contiguous()?,
            b_dec: parts.b_dec.into(),
            activation: parts.activation,
        };
        let skip = match &parts.w_skip {
            Some(w_skip) => Some(skip_encoder(engine, &matrix("W_skip", w_skip)?)?),
            None => None,
        };
        Ok(Self {
            skip,
            metadata: Arc::new(parts.metadata),
            sparsity: parts.sparsity.map(Arc::from),
            ..Self::assemble(engine, weights, parts.transcoder)?
        })
    }

    /// Works out what the activation needs per column. Everything has been checked.
    fn assemble(engine: Engine, weights: Weights, transcoder: bool) -> Result<Self> {
        let Weights { input, w_enc, b_enc, w_dec, b_dec, activation } = weights;
        let norms: Option<Arc<[f32]>> = match activation.rescales_by_decoder_norm() {
            true => Some(row_norms(&w_dec)?.into()),
            false => None,
        };
        // A decoder row of zeros never wins a place, and would add nothing.
        let invert = |norm: &f32| if *norm == 0.0 { 0.0 } else { 1.0 / norm };
        let scale = norms.as_ref().map(|norms| norms.iter().map(invert).collect());
        let encoder = Encoder::new(engine, &w_enc, b_enc, rule(&activation, norms, w_dec.dim(0)?))?;
        let per_token = input.normalization.is_per_token() && !transcoder;
        let decoder = Decoder { w_dec, b_dec, scale, per_token };
        let (metadata, scratch) = (Arc::default(), ScratchPool::default());
        Ok(Self { input, encoder, decoder, skip: None, transcoder, activation, metadata, sparsity: None, scratch })
    }

    /// The same SAE with other weights; engine, skip connection, metadata and sparsity stay.
    pub(crate) fn rebuilt(&self, weights: Weights) -> Result<Self> {
        Ok(Self {
            skip: self.skip.clone(),
            metadata: self.metadata.clone(),
            sparsity: self.sparsity.clone(),
            ..Self::assemble(self.engine(), weights, self.transcoder)?
        })
    }

    pub(crate) fn with_input(&self, input: InputMap) -> Self {
        Self { input, ..self.clone() }
    }

    pub(crate) fn with_sparsity(self, sparsity: Option<Arc<[f32]>>) -> Self {
        Self { sparsity, ..self }
    }

    /// Encodes into storage that the caller keeps, so that a loop over batches does not allocate for its codes. What was in
    /// `codes` is replaced.
    ///
    /// # Errors
    /// As [`SparseCoder::encode`].
    pub fn encode_into(&self, x: &Tensor, scratch: &mut EncodeScratch, codes: &mut Codes) -> Result<()> {
        self.input.with_rows(x, |rows, scale, layout| {
            codes.features.clear(self.d_sae_() as u32);
            codes.scale = scale.filter(|_| self.decoder.per_token);
            codes.layout = layout;
            self.encoder.sparse(rows, scratch, &mut codes.features)
        })
    }

    /// Makes a few features ready for a loop over many batches; repeats are allowed and give the same column twice.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`].
    pub fn select(&self, features: &[FeatureId]) -> Result<FeatureSubset> {
        check_features(features, self.d_sae_())?;
        let encoder = match self.coupling() {
            Coupling::Independent => self.encoder.gather(features)?,
            Coupling::Coupled => self.encoder.clone(),
        };
        let (input, scratch) = (self.input.clone(), ScratchPool::default());
        Ok(FeatureSubset { features: features.into(), input, encoder, d_sae: self.d_sae_(), scratch })
    }

    /// Decodes dense features `[.., d_sae]`. For SAEs without per-token normalization only: with one, decode
    /// [`Codes`] (see [`Codes::with_features`]), which know the norms.
    ///
    /// # Errors
    /// [`Error::CodesMismatch`].
    pub fn decode_dense(&self, features: &Tensor) -> Result<Tensor> {
        self.input.check_scale()?;
        let mut codes = Codes::from_features(SparseFeatures::from_dense(features)?);
        codes.layout = crate::ActLayout::of(features.dims(), codes.features.d_sae(), InputShape::Flat)?;
        self.decoder.decode(self.engine(), &codes)
    }

    pub(crate) fn d_sae_(&self) -> usize {
        self.encoder.columns()
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.encoder.engine()
    }

    /// The same SAE on another engine; `W_enc` is packed anew.
    ///
    /// # Errors
    /// [`Error::RoundedWeights`] when the exact weights are no longer there.
    pub fn with_engine(&self, engine: Engine) -> Result<Self> {
        if engine == self.engine() {
            return Ok(self.clone());
        }
        let w_enc = self.encoder.w_t("changing the engine")?.t()?;
        let encoder = Encoder::new(engine, &w_enc, self.encoder.bias.clone(), self.encoder.rule.clone())?;
        let skip = self.w_skip()?.map(|w_skip| skip_encoder(engine, &w_skip)).transpose()?;
        Ok(Self { encoder, skip, ..self.clone() })
    }

    /// Bytes that the matrices take in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.encoder.bytes() + self.decoder.bytes() + self.skip.as_ref().map_or(0, Encoder::bytes)
    }

    /// `W_enc` transposed, `[d_sae, d_in]`: row j is what feature j looks for. Unpacked when it is packed.
    ///
    /// # Errors
    /// [`Error::RoundedWeights`] when it is packed in a precision that does not keep it.
    pub fn w_enc_t(&self) -> Result<Tensor> {
        self.encoder.w_t("reading W_enc")
    }

    pub(crate) fn exact_w_enc_t(&self, purpose: &'static str) -> Result<Tensor> {
        self.encoder.w_t(purpose)
    }

    /// `W_dec [d_sae, d_out]`: row j is the direction of feature j.
    #[must_use]
    pub fn w_dec(&self) -> &Tensor {
        &self.decoder.w_dec
    }

    /// `W_skip [d_out, d_in]`, if there is one.
    ///
    /// # Errors
    /// As [`w_enc_t`](Self::w_enc_t).
    pub fn w_skip(&self) -> Result<Option<Tensor>> {
        self.skip.as_ref().map(|skip| skip.w_t("reading W_skip")).transpose()
    }

    /// `b_enc [d_sae]`; for Gated the gate's bias.
    #[must_use]
    pub fn b_enc(&self) -> &[f32] {
        &self.encoder.bias
    }

    /// `b_dec [d_out]`.
    #[must_use]
    pub fn b_dec(&self) -> &[f32] {
        &self.decoder.b_dec
    }

    /// Vector subtracted from the input before encoding, `[d_in]`, if any.
    #[must_use]
    pub fn input_shift(&self) -> Option<&[f32]> {
        self.input.input_shift.as_deref()
    }

    /// The activation function.
    #[must_use]
    pub fn activation(&self) -> &Activation {
        &self.activation
    }

    /// The name that SAELens gives to such an SAE or transcoder; `<activation>_transcoder` where it has none.
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        let skip = self.skip.is_some();
        match (&self.activation, self.transcoder) {
            (Activation::Relu, true) if skip => "skip_transcoder",
            (Activation::Relu, true) => "transcoder",
            (Activation::JumpRelu { .. }, true) if skip => "jumprelu_skip_transcoder",
            (Activation::JumpRelu { .. }, true) => "jumprelu_transcoder",
            (Activation::Gated { .. }, true) => "gated_transcoder",
            (Activation::TopK { .. }, true) => "topk_transcoder",
            (Activation::AbsTopK { .. }, true) => "abstopk_transcoder",
            (Activation::SignedTopK { .. }, true) => "signed_topk_transcoder",
            (Activation::BatchTopK { .. }, true) => "batchtopk_transcoder",
            (Activation::GroupMax { .. }, true) => "groupmax_transcoder",
            (activation, false) => activation.architecture(),
        }
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

    /// The same SAE with other metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: SaeMetadata) -> Self {
        Self { metadata: Arc::new(metadata), ..self }
    }

    /// The hook point whose activations the SAE was trained on, as the metadata names it.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`] when they do not.
    pub fn hook_name(&self) -> Result<&str> {
        self.metadata.hook_name.as_deref().ok_or(Error::MissingMetadata { key: "hook_name" })
    }

    /// log10 of each feature's firing frequency on the training data, `[d_sae]`, if the folder had it; -inf: never fired.
    #[must_use]
    pub fn sparsity(&self) -> Option<&[f32]> {
        self.sparsity.as_deref()
    }
}

impl SparseCoder for Sae {
    fn d_in(&self) -> usize {
        self.input.d_in
    }

    fn d_out(&self) -> usize {
        self.decoder.d_out()
    }

    fn as_sae(&self) -> Option<&Sae> {
        Some(self)
    }

    fn is_transcoder(&self) -> bool {
        self.transcoder
    }

    fn skip(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let Some(skip) = &self.skip else { return Ok(None) };
        let as_it_comes = InputMap { normalization: Normalization::None, input_shift: None, ..self.input.clone() };
        as_it_comes.with_rows(x, |rows, _, layout| {
            let dense = self.scratch.with(|scratch| skip.dense(rows, scratch, |_, _, dot, _| dot))?;
            Ok(Some(dense.reshape(layout.output(self.d_out()))?))
        })
    }

    fn metadata(&self) -> Option<&SaeMetadata> {
        Some(&self.metadata)
    }

    fn d_sae(&self) -> usize {
        self.d_sae_()
    }

    fn coupling(&self) -> Coupling {
        if self.encoder.rule.is_coupled() { Coupling::Coupled } else { Coupling::Independent }
    }

    fn encode(&self, x: &Tensor) -> Result<Codes> {
        let mut codes = Codes::from_features(SparseFeatures::empty(self.d_sae_() as u32));
        self.scratch.with(|scratch| self.encode_into(x, scratch, &mut codes))?;
        Ok(codes)
    }

    fn decode(&self, codes: &Codes) -> Result<Tensor> {
        self.input.check_scale()?;
        self.decoder.decode(self.engine(), codes)
    }

    fn decoder_rows(&self, features: &[FeatureId]) -> Result<Tensor> {
        self.input.check_scale()?;
        check_features(features, self.d_sae_())?;
        gather_rows(&self.decoder.w_dec, features, self.decoder.scale.as_deref())
    }

    fn pre_acts(&self, x: &Tensor) -> Result<Tensor> {
        self.input.with_rows(x, |rows, _, layout| {
            let dense = self.scratch.with(|scratch| self.encoder.dense(rows, scratch, Selection::pre_activation))?;
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
            .field("architecture", &self.architecture())
            .field("engine", &format_args!("{}", self.engine()))
            .field("d_in", &self.input.d_in)
            .field("d_out", &self.d_out())
            .field("d_sae", &self.d_sae_())
            .field("k", &self.encoder.rule.k())
            .field("input_shift", &self.input.input_shift.is_some())
            .field("normalization", &self.input.normalization)
            .field("act_shape", &self.input.act_shape)
            .field("hook_name", &self.metadata.hook_name)
            .finish()
    }
}

/// `W_skip [d_out, d_in]` as a product.
fn skip_encoder(engine: Engine, w_skip: &Tensor) -> Result<Encoder> {
    Encoder::new(engine, &w_skip.contiguous()?.t()?, vec![0.0; w_skip.dim(0)?].into(), Selection::Relu)
}

/// The activation as it is computed; `norms` where it rescales.
fn rule(activation: &Activation, norms: Option<Arc<[f32]>>, d_sae: usize) -> Selection {
    match activation {
        Activation::Relu => Selection::Relu,
        Activation::TopK { k, .. } => Selection::Best { k: *k, norms, by: By::Positive },
        Activation::AbsTopK { k, .. } => Selection::Best { k: *k, norms, by: By::Size },
        Activation::SignedTopK { k } => Selection::Best { k: *k, norms, by: By::Value },
        Activation::BatchTopK { k, .. } => Selection::Batch { k: *k, norms },
        Activation::GroupMax { k } => Selection::GroupMax { width: d_sae / k },
        Activation::JumpRelu { threshold } => Selection::JumpRelu { threshold: threshold.clone() },
        Activation::Gated { r_mag, b_mag } => {
            Selection::Gated { gain: r_mag.iter().map(|r| r.exp()).collect(), b_mag: b_mag.clone() }
        }
    }
}

/// Norms of the rows of a matrix.
pub(crate) fn row_norms(matrix: &Tensor) -> Result<Vec<f32>> {
    let width = matrix.dim(1)?;
    let norm = |row: &[f32]| row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt() as f32;
    with_f32(matrix, |flat| flat.chunks_exact(width).map(norm).collect())
}
