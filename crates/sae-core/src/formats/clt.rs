//! circuit-tracer's cross-layer transcoders: `W_enc_L.safetensors`, `W_dec_L.safetensors` and one `config.yaml`; mntss' releases.
//!
//! ```text
//! f_l = act(x_l W_enc_l^T + b_enc_l)        y_L = sum over l <= L of f_l W_dec_l[:, L - l] + b_dec_L + x_L W_skip_L
//! W_enc_L [d_sae, d_in]   W_dec_L [d_sae, layers - L, d_out]   W_skip_L [d_in, d_out]   threshold_L: JumpReLU, else ReLU
//! ```
//!
//! What is opened is one layer, as SAELens shows it: `W_dec` is the sum over the layers that it writes to, so that codes are the
//! transcoder's own, and what they decode to is what layer L adds to all of these layers together, not the value of `hook_name_out`.

use super::circuit_tracer::{CONFIG, Config, Layer, bad, has_layers, number_of_file, sizes_agree, split};
use super::source::{RequiredFiles, Source};
use super::weights::{refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::{Activation, Dictionary, Result, Sae, SaeParts};
use candle_core::Tensor;
use std::path::Path;
use tensor_files::{SafetensorsFile, TensorFile};

pub(super) const READER: Reader = Reader { format: SaeFormat::Clt, recognizes, files, open };

const STEM: &str = "W_enc_";

fn recognizes(path: &Path) -> bool {
    has_layers(path, STEM, CONFIG)
}

/// `path` ends in the layer, as a number (`3`, `folder/3`) or as its encoder's file (`W_enc_3.safetensors`). Without one nothing can
/// be named.
fn files(path: &str) -> RequiredFiles {
    let (folder, layer) = split(path, STEM);
    let required = layer.map(|layer| {
        let names = [format!("{STEM}{layer}.safetensors"), format!("W_dec_{layer}.safetensors"), CONFIG.into()];
        names.iter().map(|name| format!("{folder}{name}")).collect()
    });
    RequiredFiles { required: required.unwrap_or_default(), optional: vec![] }
}

/// The highest layer of the folder, which says how many layers a decoder writes to; files of one layer alone do not tell.
fn last_layer(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| number_of_file(name.to_str()?, STEM)).max().unwrap_or_default()
}

/// `W_dec` summed over the layers that it writes to.
fn decoder(folder: &Path, layer: usize, d_sae: usize) -> Result<Tensor> {
    let file = SafetensorsFile::open(folder.join(format!("W_dec_{layer}.safetensors")))?;
    let name = format!("W_dec_{layer}");
    refuse_strangers(&file, SaeFormat::Clt, &[&name])?;
    let shape = TensorFile::shape(&file, &name).unwrap_or_default();
    let (layers, d_out) = match *shape {
        [_, layers, d_out] => (layers, d_out),
        _ => (1, 0),
    };
    let last = last_layer(folder).max(layer);
    let least = last.saturating_sub(layer).saturating_add(1);
    if layers < least {
        let expected = format!("[{d_sae}, {least} or more, d_out]: the folder has layers up to {last}");
        return Err(bad(file.path(), &name, expected, format!("{shape:?}")));
    }
    Ok(file.load_f32_shaped(&name, &[d_sae, layers, d_out])?.sum(1)?)
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let Layer { folder, number: layer } = Layer::of(source, STEM)?;
    let config = Config::read(source, &folder, "cross_layer_transcoder")?;
    let file = SafetensorsFile::open(folder.join(format!("{STEM}{layer}.safetensors")))?;
    let names = ["W_enc", "b_enc", "b_dec", "W_skip", "threshold"].map(|name| format!("{name}_{layer}"));
    refuse_strangers(&file, SaeFormat::Clt, &names.each_ref().map(String::as_str))?;
    let [w_enc, b_enc, b_dec, w_skip, threshold] = names;
    let [d_sae, d_in] = sizes(&file, &w_enc)?;
    let w_dec = decoder(&folder, layer, d_sae)?;
    let d_out = w_dec.dim(1)?;
    sizes_agree(source, file.path(), [("d_in", d_in), ("d_sae", d_sae), ("d_out", d_out)])?;
    let (bias, b_dec) = (vector(&file, &b_enc, d_sae)?, vector(&file, &b_dec, d_out)?);
    let mut parts = SaeParts::new(transposed(&file, &w_enc, d_in, d_sae)?, bias, w_dec, b_dec);
    if file.contains(&w_skip) {
        // Applied from the other side than in the per-layer files.
        parts.w_skip = Some(transposed(&file, &w_skip, d_out, d_in)?);
    }
    parts.transcoder = true;
    parts.activation = config.activation(source, &file, &threshold, d_sae)?;
    if matches!(parts.activation, Activation::SignedTopK { .. }) {
        return Err(bad(&config.path, "activation", "relu or jumprelu in a cross-layer transcoder", "topk".into()));
    }
    parts.metadata = config.metadata(layer);
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
