use super::config::{Architecture, Config};
use super::{CFG_FILE, WEIGHTS_FILE, auxiliary};
use crate::formats::json_keys::read_object;
use crate::{Activation, Dictionary, Error, Result, Sae, SaeParts};
use candle_core::Tensor;
use std::path::Path;
use std::sync::Arc;
use tensor_files::SafetensorsFile;
use tensor_kernels::Engine;

/// Options for opening an SAE.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Keys of `cfg.json` that are unknown here and that the caller knows to be without effect.
    pub ignore_keys: Vec<String>,
    /// Engine: decides how `W_enc` is held. Folding, saving and reading the weights back need [`Engine::Reference`] or a precision
    /// that the machine computes in f32.
    pub engine: Engine,
}

/// Old names of a scale that features are multiplied by before decoding.
const SCALING: [&str; 2] = ["scaling_factor", "finetuning_scaling_factor"];

impl Sae {
    /// Opens a SAELens folder of any version: `cfg.json`, `sae_weights.safetensors`, and what lies beside them; [`formats::open`](crate::formats::open) of a
    /// known format and type.
    ///
    /// Weights in f16 and bf16 are widened to f32. A fine-tuned `scaling_factor` (SAELens before 6: features are multiplied by
    /// it before decoding) is taken into `W_dec`, which gives the same function. Where the configuration asks for a norm factor or a whitening,
    /// those of `activation_scaler.json` and `activation_whitening.safetensors` are folded into the weights. [`SaeMetadata::notes`] says
    /// so, and names a `sparsity.safetensors` that could not be used.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotJson`], [`Error::MissingKey`], [`Error::BadKey`], [`Error::UnknownKeys`],
    /// [`Error::UnsupportedArchitecture`], [`Error::UnknownTensors`], [`Error::ScalingFactor`], [`Error::BadAuxiliary`], and [`Error::File`]
    /// for missing, misshapen or non-finite tensors: each names the file, the key or tensor, what was expected and what was found.
    ///
    /// [`SaeMetadata::notes`]: crate::SaeMetadata::notes
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(folder, &LoadOptions::default())
    }

    /// As [`load`](Self::load), with options.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(folder: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        match Dictionary::load_with(&folder, options)? {
            Dictionary::Sae(sae) => Ok(sae),
            other => Err(Error::NotAnSae { path: folder.as_ref().into(), found: other.architecture() }),
        }
    }
}

/// Opens a folder of any architecture; `given` is folded into the weights in place of the factor that lies beside them.
pub(crate) fn load(folder: &Path, options: &LoadOptions, given: Option<f32>) -> Result<Dictionary> {
    let cfg_path = folder.join(CFG_FILE);
    let mut config = Config::parse(&cfg_path, read_object(&cfg_path)?, &options.ignore_keys)?;
    let notes = &mut config.metadata.notes;
    let factor = auxiliary::norm_factor(folder, config.normalization, given, notes)?;
    let whitening = if config.whitened { Some(auxiliary::whitening(folder, config.d_in, notes)?) } else { None };
    let sparsity = auxiliary::sparsity(folder, config.d_sae, notes);
    let weights = Weights { file: SafetensorsFile::open(folder.join(WEIGHTS_FILE))?, config: &config };
    weights.refuse_strangers()?;
    if let Some(other) = weights.other(options)? {
        let other = factor.map_or_else(|| Ok(other.clone()), |factor| other.fold_norm_factor(factor))?;
        return match &whitening {
            Some(w) => other.fold_whitening(&w.mean, &w.matrix, &w.inverse),
            None => Ok(other),
        };
    }
    let (d_in, d_sae, d_out) = (config.d_in, config.d_sae, config.d_out);
    let b_dec = weights.vector("b_dec", d_out)?;
    let w_skip = match config.architecture {
        Architecture::Transcoder { skip: true, .. } => Some(weights.file.load_f32_shaped("W_skip", &[d_out, d_in])?),
        _ => None,
    };
    let parts = SaeParts {
        w_enc: weights.file.load_f32_shaped("W_enc", &[d_in, d_sae])?,
        b_enc: weights.vector(weights.bias_name(), d_sae)?,
        w_dec: weights.decoder()?,
        input_shift: config.apply_b_dec_to_input.then(|| b_dec.clone()),
        b_dec,
        w_skip,
        transcoder: matches!(config.architecture, Architecture::Transcoder { .. }),
        activation: weights.activation()?,
        normalization: config.normalization,
        act_shape: config.act_shape,
        sparsity,
        metadata: config.metadata.clone(),
    };
    if factor.is_none() && whitening.is_none() {
        return Ok(Sae::on(options.engine, parts)?.into());
    }
    // A fold needs the exact weights, which packing for the engine may round: so it comes first.
    let mut sae = Sae::on(Engine::Reference, parts)?;
    if let Some(factor) = factor {
        sae = sae.fold_norm_factor(factor)?;
    }
    if let Some(w) = &whitening {
        sae = sae.fold_whitening(&w.mean, &w.matrix, &w.inverse)?;
    }
    Ok(sae.with_engine(options.engine)?.into())
}

/// An opened weights file and what the configuration says of it.
pub(super) struct Weights<'a> {
    pub(super) file: SafetensorsFile,
    pub(super) config: &'a Config,
}

impl Weights<'_> {
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        Ok(self.file.load_f32_shaped(name, &[len])?.to_vec1()?)
    }

    /// The gate's bias plays the role of `b_enc` in gated SAEs, which have no other.
    fn bias_name(&self) -> &'static str {
        if self.config.architecture == Architecture::Gated { "b_gate" } else { "b_enc" }
    }

    fn activation(&self) -> Result<Activation> {
        let vector = |name| self.vector(name, self.config.d_sae).map(Arc::<[f32]>::from);
        Ok(match self.config.architecture {
            Architecture::Standard | Architecture::Transcoder { jumprelu: false, .. } => Activation::Relu,
            Architecture::TopK { k, rescale_by_decoder_norm } => Activation::TopK { k, rescale_by_decoder_norm },
            Architecture::AbsTopK { k, rescale_by_decoder_norm } => Activation::AbsTopK { k, rescale_by_decoder_norm },
            Architecture::BatchTopK { k, rescale_by_decoder_norm } => {
                Activation::BatchTopK { k, rescale_by_decoder_norm }
            }
            Architecture::JumpRelu | Architecture::Transcoder { jumprelu: true, .. } => {
                Activation::JumpRelu { threshold: vector("threshold")? }
            }
            Architecture::MatchingPursuit { .. } | Architecture::Temporal { .. } => {
                return Err(Error::NotAnSae { path: self.file.path().into(), found: "other" });
            }
            Architecture::Gated => Activation::Gated { r_mag: vector("r_mag")?, b_mag: vector("b_mag")? },
        })
    }

    fn decoder(&self) -> Result<Tensor> {
        let (d_out, d_sae) = (self.config.d_out, self.config.d_sae);
        let w_dec = self.file.load_f32_shaped("W_dec", &[d_sae, d_out])?;
        let Some(name) = SCALING.into_iter().find(|name| self.file.contains(name)) else { return Ok(w_dec) };
        let factor = self.vector(name, d_sae)?;
        // torch.allclose with its default tolerances, as SAELens decides it.
        let other = factor.iter().copied().enumerate().find(|(_, f)| (f - 1.0).abs() > 1e-8 + 1e-5);
        let Some((index, found)) = other else { return Ok(w_dec) };
        if !self.config.finetuning_scaling_factor {
            return Err(Error::ScalingFactor { path: self.file.path().into(), found, index });
        }
        Ok(w_dec.broadcast_mul(&Tensor::from_vec(factor, (d_sae, 1), w_dec.device())?)?)
    }

    fn refuse_strangers(&self) -> Result<()> {
        let (architecture, own): (&str, &[&str]) = match self.config.architecture {
            Architecture::Standard => ("standard", &[]),
            Architecture::TopK { .. } => ("topk", &[]),
            Architecture::AbsTopK { .. } => ("abstopk", &[]),
            // The threshold of the SAE that it becomes when it is saved for inference; training does not read it.
            Architecture::BatchTopK { .. } => ("batchtopk", &["topk_threshold"]),
            Architecture::JumpRelu => ("jumprelu", &["threshold"]),
            Architecture::Gated => ("gated", &["r_mag", "b_mag"]),
            Architecture::Transcoder { jumprelu: false, skip: false } => ("transcoder", &[]),
            Architecture::Transcoder { jumprelu: false, skip: true } => ("skip_transcoder", &["W_skip"]),
            Architecture::Transcoder { jumprelu: true, skip: false } => ("jumprelu_transcoder", &["threshold"]),
            Architecture::Transcoder { jumprelu: true, skip: true } => {
                ("jumprelu_skip_transcoder", &["threshold", "W_skip"])
            }
            Architecture::MatchingPursuit { .. } => ("matching_pursuit", &[]),
            Architecture::Temporal { tied, .. } => ("temporal", if tied { &[] } else { &["W_enc"] }),
        };
        let layers = match self.config.architecture {
            Architecture::Temporal { n_layers, .. } => Some(n_layers),
            _ => None,
        };
        let of_layer = |name: &str| {
            let number = name.strip_prefix("attn_layers.").and_then(|rest| rest.split_once('.'));
            number.is_some_and(|(layer, _)| layer.parse().is_ok_and(|layer: usize| Some(layer) < layers))
        };
        let is_sae = layers.is_none() && !matches!(self.config.architecture, Architecture::MatchingPursuit { .. });
        let of_sae = ["W_enc", self.bias_name()];
        let known = |name: &str| {
            ["W_dec", "b_dec"].contains(&name)
                || own.contains(&name)
                || of_layer(name)
                || (is_sae && (of_sae.contains(&name) || SCALING.contains(&name)))
        };
        let mut names: Vec<String> = self.file.names().into_iter().filter(|name| !known(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        names.sort();
        Err(Error::UnknownTensors { path: self.file.path().into(), names, architecture: architecture.into() })
    }
}
