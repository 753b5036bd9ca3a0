//! Temporal feature analysis: `conf.yaml` and `latest_ckpt.safetensors`.
//!
//! ```text
//! W_dec = D [d_sae, d_in]   W_enc = E [d_in, d_sae] (tied: D^T)   b_dec = b [d_in], subtracted from the input as well
//! attn_layers.N.{q_target, k_ctx} [d_sae / bottleneck_factor, d_sae]   attn_layers.N.{v_ctx, c_proj} [d_sae, d_sae]
//! conf.yaml   llm.dimin, sae.{exp_factor, scaling_factor, n_heads, n_attn_layers, bottleneck_factor, sae_diff_type, kval_topk, tied_weights}
//! path        {model}/layer_L/temporal
//! ```
//!
//! The scaling factor is [`TemporalSae`]'s `activation_normalization_factor`; releases list it as `norm_scaling_factor` once more, and
//! the two must agree.

use super::source::{RequiredFiles, Source};
use super::weights::{agree, number_after, refuse_strangers, sizes, vector};
use super::{Reader, SaeFormat, yaml};
use crate::formats::json_keys::{Keys, as_count};
use crate::{
    Dictionary, InputShape, Normalization, Result, SaeMetadata, TemporalLayerParts, TemporalLinear, TemporalParts,
    TemporalSae,
};
use serde_json::Value;
use std::path::Path;
use tensor_files::SafetensorsFile;

pub(super) const READER: Reader = Reader { format: SaeFormat::Temporal, recognizes, files, open };

const CONFIG: &str = "conf.yaml";
const WEIGHTS: &str = "latest_ckpt.safetensors";
const LINEAR: [&str; 4] = ["q_target", "k_ctx", "v_ctx", "c_proj"];

fn recognizes(path: &Path) -> bool {
    path.join(CONFIG).is_file() && path.join(WEIGHTS).is_file()
}

/// `path` is the folder.
fn files(path: &str) -> RequiredFiles {
    RequiredFiles { required: vec![format!("{path}/{CONFIG}"), format!("{path}/{WEIGHTS}")], optional: vec![] }
}

/// The part of the configuration that decides what is computed, as opposed to how it was trained.
struct Config {
    d_in: usize,
    exp_factor: f64,
    factor: f64,
    n_heads: usize,
    n_layers: usize,
    bottleneck: usize,
    k: Option<usize>,
    tied: bool,
}

impl Config {
    fn read(path: &Path, source: &Source<'_>) -> Result<Self> {
        let mut all = Keys { path, prefix: "", map: yaml::read_object(path)? };
        let mut part = |key: &'static str| {
            let said = all.object(key)?;
            all.require(key, "a mapping", said)
        };
        let mut llm = Keys { path, prefix: "llm.", map: part("llm")? };
        let mut sae = Keys { path, prefix: "sae.", map: part("sae")? };
        // Forks know further ways to compute; where they are named, they must be off.
        for key in ["use_pos_encoding", "inference_mode_batchtopk"] {
            sae.read(key, "false", |value| (value == &Value::Bool(false)).then_some(()))?;
        }
        let choose = |value: &Value| ["relu", "topk"].iter().position(|name| value.as_str() == Some(name));
        let chooses = sae.read("sae_diff_type", "topk or relu", choose)?;
        let chooses = sae.require("sae_diff_type", "topk or relu", chooses)? == 1;
        let k = sae.count("kval_topk")?;
        let k = source.options.overrides.get("kval_topk").and_then(as_count).or(k);
        let positive = |value: &Value| value.as_f64().filter(|number| *number > 0.0);
        let mut number = |key: &'static str| {
            let said = sae.read(key, "a positive number", positive)?;
            sae.require(key, "a positive number", said)
        };
        let (exp_factor, factor) = (number("exp_factor")?, number("scaling_factor")?);
        let count = |keys: &mut Keys<'_>, key: &'static str| {
            let whole = |value: &Value| as_count(value).filter(|count| *count > 0);
            let said = keys.read(key, "a whole number above 0", whole)?;
            keys.require(key, "a whole number above 0", said)
        };
        let tied = sae.boolean("tied_weights")?;
        Ok(Self {
            d_in: count(&mut llm, "dimin")?,
            exp_factor,
            factor,
            n_heads: count(&mut sae, "n_heads")?,
            n_layers: count(&mut sae, "n_attn_layers")?,
            bottleneck: count(&mut sae, "bottleneck_factor")?,
            k: if chooses { Some(sae.require("kval_topk", "a whole number", k)?) } else { None },
            tied: sae.require("tied_weights", "true or false", tied)?,
        })
    }
}

fn linear(file: &SafetensorsFile, layer: usize, name: &str, [out, width]: [usize; 2]) -> Result<TemporalLinear> {
    let at = |part: &str| format!("attn_layers.{layer}.{name}.{part}");
    let weight = file.load_f32_shaped(&at("weight"), &[out, width])?;
    Ok(TemporalLinear { weight, bias: vector(file, &at("bias"), out)? })
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let path = source.path.join(CONFIG);
    let config = Config::read(&path, source)?;
    let file = SafetensorsFile::open(source.path.join(WEIGHTS))?;
    // No more names than the file has tensors, however many layers are claimed.
    let layers = 0..config.n_layers.min(file.names().len());
    let of =
        |layer: usize| LINEAR.map(|name| ["weight", "bias"].map(|part| format!("attn_layers.{layer}.{name}.{part}")));
    let mut known: Vec<String> = layers.flat_map(of).flatten().collect();
    known.extend(["D", "b"].map(Into::into));
    known.extend((!config.tied).then(|| "E".to_owned()));
    refuse_strangers(&file, SaeFormat::Temporal, &known.iter().map(String::as_str).collect::<Vec<_>>())?;
    let [d_sae, d_in] = sizes(&file, "D")?;
    let over = |key: &str| source.options.overrides.get(key).and_then(as_count);
    agree(&path, "llm.dimin", over("d_in").or(Some(config.d_in)), d_in)?;
    agree(
        &path,
        "llm.dimin * sae.exp_factor",
        over("d_sae").or(Some((config.d_in as f64 * config.exp_factor) as usize)),
        d_sae,
    )?;
    // Two digits are listed of some.
    if let Some(listed) = source.options.norm_scaling_factor
        && (f64::from(listed) - config.factor).abs() > 0.02 * config.factor
    {
        let expected = format!("{listed}, the release's norm_scaling_factor");
        return Err(super::circuit_tracer::bad(&path, "sae.scaling_factor", expected, config.factor.to_string()));
    }
    let narrow = [d_sae / config.bottleneck, d_sae];
    let layer = |layer: usize| {
        Ok(TemporalLayerParts {
            q: linear(&file, layer, LINEAR[0], narrow)?,
            k: linear(&file, layer, LINEAR[1], narrow)?,
            v: linear(&file, layer, LINEAR[2], [d_sae, d_sae])?,
            o: linear(&file, layer, LINEAR[3], [d_sae, d_sae])?,
        })
    };
    let w_enc = || file.load_f32_shaped("E", &[d_in, d_sae]);
    let parts = TemporalParts {
        w_enc: if config.tied { None } else { Some(w_enc()?) },
        w_dec: file.load_f32_shaped("D", &[d_sae, d_in])?,
        b_dec: vector(&file, "b", d_in)?,
        apply_b_dec_to_input: true,
        layers: (0..config.n_layers).map(layer).collect::<Result<_>>()?,
        n_heads: config.n_heads,
        k: config.k,
        activation_normalization_factor: config.factor as f32,
        normalization: Normalization::None,
        act_shape: InputShape::Flat,
        metadata: SaeMetadata {
            hook_name: number_after(&source.published_path(), "layer_")
                .map(|at| format!("blocks.{at}.hook_resid_post")),
            prepend_bos: Some(true),
            ..SaeMetadata::default()
        },
    };
    Ok(TemporalSae::on(source.options.load.engine, parts)?.into())
}
