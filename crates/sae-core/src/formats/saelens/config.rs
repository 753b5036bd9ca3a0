use super::{SUPPORTED, legacy};
use crate::formats::json_keys::Keys;
use crate::{Error, InputShape, Normalization, OpenNote, Result, SaeMetadata};
use serde_json::{Map, Value};
use std::path::Path;

/// A `cfg.json`, read and checked.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) architecture: Architecture,
    pub(super) d_in: usize,
    pub(super) d_sae: usize,
    /// `d_in` but for transcoders.
    pub(super) d_out: usize,
    pub(super) apply_b_dec_to_input: bool,
    pub(super) normalization: Normalization,
    /// Whether training whitened activations, so that the whitening has to be folded into the weights.
    pub(super) whitened: bool,
    pub(super) act_shape: InputShape,
    pub(super) finetuning_scaling_factor: bool,
    pub(super) metadata: SaeMetadata,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Architecture {
    Standard,
    TopK {
        k: usize,
        rescale_by_decoder_norm: bool,
    },
    AbsTopK {
        k: usize,
        rescale_by_decoder_norm: bool,
    },
    /// As trained; SAELens saves it for inference as `jumprelu`.
    BatchTopK {
        k: f64,
        rescale_by_decoder_norm: bool,
    },
    JumpRelu,
    Gated,
    Transcoder {
        jumprelu: bool,
        skip: bool,
    },
    MatchingPursuit {
        residual_threshold: f32,
        max_iterations: Option<usize>,
        stop_on_duplicate_support: bool,
    },
    Temporal {
        n_heads: usize,
        n_layers: usize,
        k: Option<usize>,
        tied: bool,
        factor: f32,
    },
}

impl Architecture {
    fn is_transcoder(self) -> bool {
        matches!(self, Self::Transcoder { .. })
    }
}

/// Keys of SAELens 6 that do not change what a trained SAE computes: where it ran, and how it was trained.
const HARMLESS: &[&str] = &[
    "device",
    "sae_lens_version",
    "aux_loss_coefficient",
    "decoder_init_norm",
    "jumprelu_bandwidth",
    "jumprelu_init_threshold",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_ste_to_input",
    "jumprelu_tanh_scale",
    "l0_coefficient",
    "l0_warm_up_steps",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "matryoshka_widths",
    "pre_act_loss_coefficient",
    "target_l0",
    "topk_threshold_lr",
    "use_matryoshka_aux_loss",
    "use_sparse_activations",
];

const DTYPES: &[&str] = &["float64", "float32", "float16", "bfloat16"];

impl Config {
    /// Reads a configuration of any version.
    pub(super) fn parse(path: &Path, map: Map<String, Value>, ignore: &[String]) -> Result<Self> {
        let map = if legacy::is_pre_6(path, &map)? { legacy::migrate(path, map)? } else { map };
        let mut keys = Keys { path, prefix: "", map };
        let d_in = dimension(&mut keys, "d_in")?;
        let d_sae = dimension(&mut keys, "d_sae")?;
        let architecture = architecture(&mut keys, d_sae)?;
        let whitened = keys.map.get("normalize_activations").and_then(Value::as_str) == Some("covariance_whitening");
        if whitened {
            keys.take("normalize_activations");
        }
        let mut config = Self {
            architecture,
            d_in,
            d_sae,
            d_out: if architecture.is_transcoder() { dimension(&mut keys, "d_out")? } else { d_in },
            apply_b_dec_to_input: apply_b_dec_to_input(&mut keys, architecture)?,
            normalization: normalization(&mut keys)?,
            whitened,
            act_shape: act_shape(&mut keys)?,
            finetuning_scaling_factor: keys.boolean("finetuning_scaling_factor")?.unwrap_or(false),
            metadata: SaeMetadata::from_json(path, keys.object("metadata")?.unwrap_or_default())?,
        };
        dtype(&mut keys)?;
        let unknown = keys.map.into_iter().map(|(key, _)| key).filter(|key| !HARMLESS.contains(&key.as_str()));
        let (ignored, unknown): (Vec<String>, Vec<String>) = unknown.partition(|key| ignore.contains(key));
        if !ignored.is_empty() {
            config.metadata.notes.push(OpenNote::KeysIgnored { path: path.into(), keys: ignored });
        }
        if unknown.is_empty() {
            return Ok(config);
        }
        Err(Error::UnknownKeys { path: path.to_path_buf(), keys: unknown })
    }
}

fn dimension(keys: &mut Keys<'_>, key: &'static str) -> Result<usize> {
    let expected = "a whole number from 1 to 4294967295";
    let parse =
        |value: &Value| crate::formats::json_keys::as_count(value).filter(|&n| n > 0 && u32::try_from(n).is_ok());
    let value = keys.read(key, expected, parse)?;
    keys.require(key, expected, value)
}

fn architecture(keys: &mut Keys<'_>, d_sae: usize) -> Result<Architecture> {
    let name = keys.string("architecture")?;
    let name = keys.require("architecture", "the name of an architecture", name)?;
    let transcoder = |jumprelu, skip| Architecture::Transcoder { jumprelu, skip };
    Ok(match name.as_str() {
        "standard" => Architecture::Standard,
        "jumprelu" => Architecture::JumpRelu,
        "gated" => Architecture::Gated,
        "transcoder" => transcoder(false, false),
        "skip_transcoder" => transcoder(false, true),
        "jumprelu_transcoder" => transcoder(true, false),
        "jumprelu_skip_transcoder" => transcoder(true, true),
        "topk" => Architecture::TopK { k: whole_k(keys, d_sae)?, rescale_by_decoder_norm: rescale(keys)? },
        "abstopk" => Architecture::AbsTopK { k: whole_k(keys, d_sae)?, rescale_by_decoder_norm: rescale(keys)? },
        "batchtopk" | "matryoshka_batchtopk" => {
            let expected = format!("a number above 0, at most d_sae={d_sae}");
            let parse = |value: &Value| value.as_f64().filter(|k| *k > 0.0 && *k <= d_sae as f64);
            let k = keys.read("k", &expected, parse)?;
            let k = keys.require("k", "a number from 0 to d_sae", k)?;
            Architecture::BatchTopK { k, rescale_by_decoder_norm: rescale(keys)? }
        }
        "matching_pursuit" => matching_pursuit(keys)?,
        "temporal" => temporal(keys, d_sae)?,
        _ => {
            let (path, supported) = (keys.path.to_path_buf(), SUPPORTED.into());
            return Err(Error::UnsupportedArchitecture { path, found: name, supported });
        }
    })
}

/// Keys and defaults of SAELens' `MatchingPursuitSAEConfig`.
fn matching_pursuit(keys: &mut Keys<'_>) -> Result<Architecture> {
    let threshold = keys.read("residual_threshold", "a number", Value::as_f64)?.unwrap_or(1e-2);
    Ok(Architecture::MatchingPursuit {
        // SAELens stops for no residual at 0 and below.
        residual_threshold: threshold.max(0.0) as f32,
        max_iterations: keys.count("max_iterations")?,
        stop_on_duplicate_support: keys.boolean("stop_on_duplicate_support")?.unwrap_or(true),
    })
}

/// Keys and defaults of SAELens' `TemporalSAEConfig`.
fn temporal(keys: &mut Keys<'_>, d_sae: usize) -> Result<Architecture> {
    let choose = |value: &Value| match value.as_str()? {
        "topk" => Some(true),
        "relu" => Some(false),
        _ => None,
    };
    let chooses = keys.read("sae_diff_type", "topk or relu", choose)?.unwrap_or(true);
    let expected = format!("a whole number from 1 to d_sae={d_sae}");
    let parse = |value: &Value| crate::formats::json_keys::as_count(value).filter(|k| (1..=d_sae).contains(k));
    let k = keys.read("kval_topk", &expected, parse)?.filter(|_| chooses);
    // The width of queries and keys, which the weights show.
    keys.count("bottleneck_factor")?;
    let factor = keys.read("activation_normalization_factor", "a number", Value::as_f64)?.unwrap_or(1.0);
    // SAELens reads the factor in this mode alone; the mode is nothing else than the factor.
    let rescales = keys.map.get("normalize_activations").and_then(Value::as_str) == Some("constant_scalar_rescale");
    if rescales {
        keys.take("normalize_activations");
    }
    Ok(Architecture::Temporal {
        n_heads: keys.count("n_heads")?.unwrap_or(8),
        n_layers: keys.count("n_attn_layers")?.unwrap_or(1),
        k,
        tied: keys.boolean("tied_weights")?.unwrap_or(true),
        factor: if rescales { factor as f32 } else { 1.0 },
    })
}

fn whole_k(keys: &mut Keys<'_>, d_sae: usize) -> Result<usize> {
    let expected = format!("a whole number from 1 to d_sae={d_sae}");
    let parse = |value: &Value| crate::formats::json_keys::as_count(value).filter(|k| (1..=d_sae).contains(k));
    let k = keys.read("k", &expected, parse)?;
    keys.require("k", "a whole number from 1 to d_sae", k)
}

fn rescale(keys: &mut Keys<'_>) -> Result<bool> {
    Ok(keys.boolean("rescale_acts_by_decoder_norm")?.unwrap_or(false))
}

/// Transcoders' `b_dec` belongs to another space than their input.
fn apply_b_dec_to_input(keys: &mut Keys<'_>, architecture: Architecture) -> Result<bool> {
    match (keys.boolean("apply_b_dec_to_input")?, architecture.is_transcoder()) {
        (Some(true), true) => Err(keys.bad("apply_b_dec_to_input", "false for a transcoder", &Value::Bool(true))),
        (None, transcoder) => Ok(!transcoder),
        (Some(apply), _) => Ok(apply),
    }
}

fn normalization(keys: &mut Keys<'_>) -> Result<Normalization> {
    let expected = "none, expected_average_only_in, constant_norm_rescale, layer_norm or covariance_whitening";
    let parse = |value: &Value| match value.as_str()? {
        "none" => Some(Normalization::None),
        "expected_average_only_in" => Some(Normalization::ExpectedAverageOnlyIn),
        "constant_norm_rescale" => Some(Normalization::ConstantNormRescale),
        "layer_norm" => Some(Normalization::LayerNorm),
        _ => None,
    };
    Ok(keys.read("normalize_activations", expected, parse)?.unwrap_or(Normalization::None))
}

fn act_shape(keys: &mut Keys<'_>) -> Result<InputShape> {
    let parse = |value: &Value| match value.as_str()? {
        "none" => Some(InputShape::Flat),
        "hook_z" => Some(InputShape::PerHead),
        _ => None,
    };
    Ok(keys.read("reshape_activations", "none or hook_z", parse)?.unwrap_or(InputShape::Flat))
}

/// The type that SAELens computes in. Weights are widened to f32 here, so only an unknown name matters.
fn dtype(keys: &mut Keys<'_>) -> Result<()> {
    let known = |value: &Value| {
        let name = value.as_str()?;
        DTYPES.contains(&name.strip_prefix("torch.").unwrap_or(name)).then_some(())
    };
    keys.read("dtype", "float64, float32, float16 or bfloat16, with or without `torch.`", known)?;
    Ok(())
}
