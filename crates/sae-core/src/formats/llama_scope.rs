//! OpenMOSS' Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`; its R1 distill: `config.json` and `sae_weights.safetensors`.
//!
//! ```text
//! h = (s x) encoder.weight^T + encoder.bias      f = h where h > threshold[j]      y = (f W_dec + decoder.bias) / s
//! s                 sqrt(d_model) / dataset_average_activation_norm.in; R1: the table of releases alone knows it
//! llama_scope       threshold = s * jump_relu_threshold, over |W_dec[j]| where sparsity_include_decoder_norm is set
//! llama_scope_r1    threshold = exp(log_jumprelu_threshold)
//! ```
//!
//! The publisher's code compares `h |W_dec[j]|` with one threshold: a threshold for each feature says the same, and codes keep the scale
//! that the stored decoder rows go with ([`Sae::fold_w_dec_norm`](crate::Sae::fold_w_dec_norm) makes them the publisher's). SAELens leaves these norms
//! out; with `sparsity_include_decoder_norm` among [`LoadOptions::ignore_keys`](crate::LoadOptions::ignore_keys) its numbers come out. The two
//! agree where rows have norm 1. The distill is read as SAELens reads it: the publisher's code for it was not at hand.
//!
//! `s` is folded into the weights: [`OpenOptions::norm_scaling_factor`](super::OpenOptions) if it is given, else what the file says.

use super::source::{RequiredFiles, Source, at};
use super::weights::{agree, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::{Keys, read_object};
use crate::{Activation, Dictionary, Engine, Error, OpenNote, Result, Sae, SaeMetadata, SaeParts};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;
use tensor_files::SafetensorsFile;

pub(super) const LLAMA_SCOPE: Reader = Reader {
    format: SaeFormat::LlamaScope,
    recognizes: |path| path.join(CONFIG).is_file() && path.join(WEIGHTS).is_file(),
    files: |path| RequiredFiles { required: vec![at(path, CONFIG), at(path, WEIGHTS)], optional: vec![] },
    open: |source| open(source, SaeFormat::LlamaScope, CONFIG, WEIGHTS),
};
pub(super) const R1: Reader = Reader {
    format: SaeFormat::LlamaScopeR1,
    recognizes: is_r1,
    files: |path| RequiredFiles { required: vec![at(path, R1_CONFIG), at(path, R1_WEIGHTS)], optional: vec![] },
    open: |source| open(source, SaeFormat::LlamaScopeR1, R1_CONFIG, R1_WEIGHTS),
};

const CONFIG: &str = "hyperparams.json";
const WEIGHTS: &str = "checkpoints/final.safetensors";
const R1_CONFIG: &str = "config.json";
const R1_WEIGHTS: &str = "sae_weights.safetensors";
const LOG_THRESHOLD: &str = "log_jumprelu_threshold";
/// The one release of the format, in the table of releases.
const R1_RELEASE: &str = "llama_scope_r1_distill";
const NORMS: &str = "sparsity_include_decoder_norm";
const TENSORS: [&str; 5] = ["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias", LOG_THRESHOLD];

/// SAELens' own folders have weights of the same name beside a `cfg.json`.
fn is_r1(path: &Path) -> bool {
    let config = path.join(R1_CONFIG);
    config.is_file()
        && path.join(R1_WEIGHTS).is_file()
        && read_object(&config).is_ok_and(|keys| keys.contains_key("hook_point_in") && keys.contains_key("act_fn"))
}

/// Checks the keys of the configuration that decide numbers: with other values the SAE would compute something else.
fn check(keys: &mut Keys<'_>, source: &Source<'_>, [d_sae, d_in]: [usize; 2]) -> Result<()> {
    let path = keys.path;
    agree(path, "d_model", keys.count("d_model")?, d_in)?;
    agree(path, "d_sae", keys.count("d_sae")?, d_sae)?;
    let factor = keys.read("expansion_factor", "a number", Value::as_f64)?;
    let said = factor.map(|factor| (factor * d_in as f64).round() as usize);
    agree(path, "d_model * expansion_factor", said, d_sae)?;
    agree(path, "d_in", source.stated("d_in"), d_in)?;
    agree(path, "d_sae", source.stated("d_sae"), d_sae)?;
    match keys.string("act_fn")? {
        Some(other) if !other.eq_ignore_ascii_case("jumprelu") => {
            return Err(keys.bad("act_fn", "\"jumprelu\"", &other.into()));
        }
        _ => {}
    }
    if keys.boolean("use_glu_encoder")? == Some(true) {
        return Err(keys.bad("use_glu_encoder", "false: gated linear encoders are not read", &true.into()));
    }
    Ok(())
}

fn metadata(keys: &mut Keys<'_>, format: SaeFormat) -> Result<SaeMetadata> {
    let (hook, out) = (keys.string("hook_point_in")?, keys.string("hook_point_out")?);
    if let (Some(hook), Some(out)) = (&hook, &out)
        && hook != out
    {
        let expected = format!("\"{hook}\", as hook_point_in: transcoders of this format are not read");
        return Err(keys.bad("hook_point_out", expected, &out.as_str().into()));
    }
    let (model, dataset) = match format {
        // Its SAEs were trained on several mixtures of two data sets.
        SaeFormat::LlamaScopeR1 => ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", None),
        _ => ("meta-llama/Llama-3.1-8B", Some("cerebras/SlimPajama-627B".into())),
    };
    Ok(SaeMetadata {
        model_name: Some(model.into()),
        hook_name: hook,
        context_size: Some(1024),
        prepend_bos: Some(true),
        dataset_path: dataset,
        ..SaeMetadata::default()
    })
}

/// The factor that the training multiplied activations by, if the file says.
fn said_factor(keys: &mut Keys<'_>, d_in: usize) -> Result<Option<f32>> {
    let norms = keys.object("dataset_average_activation_norm")?;
    match keys.string("norm_activation")?.as_deref() {
        Some("dataset-wise") => {}
        // The factor is in the weights already, or in the table of releases.
        None | Some("inference") => return Ok(None),
        Some(other) => return Err(keys.bad("norm_activation", "\"dataset-wise\" or \"inference\"", &other.into())),
    }
    let key = "dataset_average_activation_norm";
    let norms = keys.require(key, "an object with the mean norm `in`", norms)?;
    let norm = norms.get("in").and_then(Value::as_f64).filter(|norm| norm.is_finite() && *norm > 0.0);
    let norm = norm.ok_or_else(|| keys.bad(key, "an object with a positive number `in`", &norms.into()))?;
    Ok(Some(((d_in as f64).sqrt() / norm) as f32))
}

/// Divides thresholds by the norms of decoder rows; a row of zeros never fires.
fn over_norms(threshold: &mut [f32], w_dec: &Tensor) -> Result<()> {
    let norms: Vec<f32> = w_dec.sqr()?.sum(1)?.sqrt()?.to_vec1()?;
    for (threshold, norm) in threshold.iter_mut().zip(norms) {
        *threshold = if norm > 0.0 { (*threshold / norm).min(f32::MAX) } else { f32::MAX };
    }
    Ok(())
}

fn open(source: &Source<'_>, format: SaeFormat, config: &str, weights: &str) -> Result<Dictionary> {
    let path = source.path.join(config);
    let mut keys = Keys { path: &path, prefix: "", map: read_object(&path)? };
    let file = SafetensorsFile::open(source.path.join(weights))?;
    let known = if format == SaeFormat::LlamaScopeR1 { &TENSORS[..] } else { &TENSORS[..4] };
    refuse_strangers(&file, format, known)?;
    let [d_sae, d_in] = sizes(&file, "encoder.weight")?;
    check(&mut keys, source, [d_sae, d_in])?;
    let said = said_factor(&mut keys, d_in)?;
    let factor = source.options.norm_scaling_factor.or(said);
    if factor.is_none() && format == SaeFormat::LlamaScopeR1 {
        return Err(Error::NormFactorOfRelease { path, release: R1_RELEASE });
    }
    let mut threshold = match format {
        SaeFormat::LlamaScopeR1 => vector(&file, LOG_THRESHOLD, d_sae)?.into_iter().map(f32::exp).collect(),
        _ => {
            let said = keys.read("jump_relu_threshold", "a number, not negative", |value| {
                value.as_f64().filter(|threshold| *threshold >= 0.0)
            })?;
            let said = keys.require("jump_relu_threshold", "a number, not negative", said)?;
            vec![said as f32 * factor.unwrap_or(1.0); d_sae]
        }
    };
    let w_dec = transposed(&file, "decoder.weight", d_sae, d_in)?;
    let norms = keys.boolean(NORMS)? == Some(true) && format == SaeFormat::LlamaScope;
    if norms && !source.ignores(&path, NORMS) {
        over_norms(&mut threshold, &w_dec)?;
    }
    let b_dec = match keys.boolean("use_decoder_bias")? {
        Some(false) => {
            refuse_strangers(&file, format, &["encoder.weight", "encoder.bias", "decoder.weight", LOG_THRESHOLD])
                .map(|()| vec![0.0; d_in])?
        }
        _ => vector(&file, "decoder.bias", d_in)?,
    };
    let w_enc = transposed(&file, "encoder.weight", d_in, d_sae)?;
    let mut parts = SaeParts::new(w_enc, vector(&file, "encoder.bias", d_sae)?, w_dec, b_dec.clone());
    parts.activation = Activation::JumpRelu { threshold: threshold.into() };
    parts.input_shift = keys.boolean("apply_decoder_bias_to_pre_encoder")?.unwrap_or(false).then_some(b_dec);
    parts.metadata = metadata(&mut keys, format)?;
    let engine = source.options.load.engine;
    match said.filter(|_| source.options.norm_scaling_factor.is_none()) {
        // The fold needs the exact weights, which packing for the engine may round.
        Some(said) => {
            source.note(OpenNote::NormFactorFolded { factor: said, path: Some(path.clone()) });
            Ok(Sae::on(Engine::Reference, parts)?.fold_norm_factor(said)?.with_engine(engine)?.into())
        }
        None => Ok(Sae::on(engine, parts)?.into()),
    }
}
