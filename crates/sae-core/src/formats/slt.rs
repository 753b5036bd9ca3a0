//! circuit-tracer's per-layer transcoders: `layer_L.safetensors` and one `config.yaml` for all layers.
//!
//! ```text
//! f = act(x W_enc^T + b_enc)        y = f W_dec + b_dec + x W_skip^T
//! W_enc [d_sae, d_in]   W_dec [d_sae, d_out]   W_skip [d_out, d_in], if there is one
//! act: JumpReLU where the file holds activation_function.threshold; TopK (negative values stay) where config.yaml names it; else ReLU
//! ```

use super::circuit_tracer::{CONFIG, Config, Layer, bad, has_layers, sizes_agree, split};
use super::source::{RequiredFiles, Source};
use super::weights::{refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::{Activation, Dictionary, Result, Sae, SaeParts};
use serde_json::Value;
use std::path::Path;
use tensor_files::SafetensorsFile;

pub(super) const READER: Reader = Reader { format: SaeFormat::Slt, recognizes, files, open };

const STEM: &str = "layer_";
const THRESHOLD: &str = "activation_function.threshold";

fn recognizes(path: &Path) -> bool {
    has_layers(path, STEM, CONFIG)
}

/// `path` ends in the layer, as a number (`3`, `folder/3`) or as its file (`layer_3.safetensors`). Without one nothing can be named.
fn files(path: &str) -> RequiredFiles {
    let (folder, layer) = split(path, STEM);
    let required = layer.map(|layer| vec![format!("{folder}{STEM}{layer}.safetensors"), format!("{folder}{CONFIG}")]);
    RequiredFiles { required: required.unwrap_or_default(), optional: vec![] }
}

/// A list of files must give the layer the file that is read.
fn listed(config: &Config, layer: usize, name: &str) -> Result<()> {
    let Some(files) = &config.transcoders else { return Ok(()) };
    let key = format!("transcoders[{layer}]");
    match files.get(layer) {
        Some(Value::String(file)) if file.rsplit('/').next() == Some(name) => Ok(()),
        Some(other) => Err(bad(&config.path, &key, format!("`{name}`"), other.to_string())),
        None => Err(bad(&config.path, &key, format!("`{name}`"), format!("not in a list of {}", files.len()))),
    }
}

/// Its JumpReLU would let negative values above a negative threshold pass; ours ends at zero.
fn refuse_negative(activation: &Activation, file: &Path) -> Result<()> {
    let Activation::JumpRelu { threshold } = activation else { return Ok(()) };
    match threshold.iter().find(|threshold| **threshold < 0.0) {
        Some(negative) => Err(bad(file, THRESHOLD, "thresholds that are not negative", negative.to_string())),
        None => Ok(()),
    }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let Layer { folder, number: layer } = Layer::of(source, STEM)?;
    let config = Config::read(source, &folder, "transcoder_set")?;
    let name = format!("{STEM}{layer}.safetensors");
    listed(&config, layer, &name)?;
    let file = SafetensorsFile::open(folder.join(name))?;
    refuse_strangers(&file, SaeFormat::Slt, &["W_enc", "W_dec", "b_enc", "b_dec", "W_skip", THRESHOLD])?;
    let ([d_sae, d_in], [_, d_out]) = (sizes(&file, "W_enc")?, sizes(&file, "W_dec")?);
    sizes_agree(source, file.path(), [("d_in", d_in), ("d_sae", d_sae), ("d_out", d_out)])?;
    let mut parts = SaeParts::new(
        transposed(&file, "W_enc", d_in, d_sae)?,
        vector(&file, "b_enc", d_sae)?,
        file.load_f32_shaped("W_dec", &[d_sae, d_out])?,
        vector(&file, "b_dec", d_out)?,
    );
    if file.contains("W_skip") {
        parts.w_skip = Some(file.load_f32_shaped("W_skip", &[d_out, d_in])?);
    }
    parts.transcoder = true;
    parts.activation = config.activation(source, &file, THRESHOLD, d_sae)?;
    refuse_negative(&parts.activation, file.path())?;
    parts.metadata = config.metadata(layer);
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
