//! OpenAI's sparse_autoencoder: a `.pt` state dict.
//!
//! ```text
//! x~ = LN(x) - pre_bias (LN with TopK only: (x - mu) / (sd + 1e-5), sd with n - 1)     h = x~ encoder.weight^T + latent_bias
//! x_hat = (f decoder.weight^T + pre_bias) * sd + mu                                    tied: decoder.linear.weight [n, d] is W_dec
//! W_enc = encoder.weight^T   W_dec = decoder.weight^T   b_enc = latent_bias   b_dec = input_shift = pre_bias
//! path: {location}[_v4|_v5_32k|_v5_128k]/autoencoders/{layer}.pt of GPT-2 small
//! ```
//!
//! TopK with `postact_fn: Identity` keeps negative values among the k.

use super::source::{RequiredFiles, Source};
use super::weights::{agree, number_after, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::as_count;
use crate::{Activation, Dictionary, Error, Normalization, Result, Sae, SaeMetadata, SaeParts};
use std::path::Path;
use tensor_files::{TensorFile, TorchFile};

pub(super) const READER: Reader = Reader { format: SaeFormat::OpenAi, recognizes, files, open };

const TENSORS: [&str; 8] = [
    "pre_bias",
    "latent_bias",
    "encoder.weight",
    "decoder.weight",
    "decoder.linear.weight",
    "stats_last_nonzero",
    "latents_activation_frequency",
    "latents_mean_square",
];

fn recognizes(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "pt")
        && TorchFile::open(path).is_ok_and(|file| file.contains("pre_bias") && file.contains("latent_bias"))
}

fn files(path: &str) -> RequiredFiles {
    RequiredFiles { required: vec![path.into()], optional: vec![] }
}

fn metadata(path: &str) -> SaeMetadata {
    let layer = number_after(path, "autoencoders/");
    let points = [
        ("mlp_post_act", "mlp.hook_post"),
        ("resid_delta_attn", "hook_attn_out"),
        ("resid_post_attn", "hook_resid_mid"),
        ("resid_delta_mlp", "hook_mlp_out"),
        ("resid_post_mlp", "hook_resid_post"),
    ];
    let point = points.into_iter().find(|(location, _)| path.contains(location));
    match (layer, point) {
        (Some(layer), Some((_, point))) => SaeMetadata {
            model_name: Some("gpt2-small".into()),
            hook_name: Some(format!("blocks.{layer}.{point}")),
            ..SaeMetadata::default()
        },
        _ => SaeMetadata::default(),
    }
}

fn activation(source: &Source<'_>, file: &TorchFile) -> Result<(Activation, Normalization)> {
    let bad = |key: &str, expected: &str, found: String| Error::BadKey {
        path: file.path().into(),
        key: key.into(),
        expected: expected.into(),
        found,
    };
    let name = file.values().get("activation").and_then(|value| value.as_str()).unwrap_or("ReLU");
    match name {
        "ReLU" => Ok((Activation::Relu, Normalization::None)),
        "TopK" => {
            let state = file.values().get("activation_state_dict");
            let said =
                state.and_then(|state| state.get("k")).and_then(|k| k.as_i64()).and_then(|k| usize::try_from(k).ok());
            let k = source.options.overrides.get("k").and_then(as_count).or(said).ok_or_else(|| Error::MissingKey {
                path: file.path().into(),
                key: "activation_state_dict.k".into(),
                expected: "a whole number",
            })?;
            let after =
                state.and_then(|state| state.get("postact_fn")).and_then(|name| name.as_str()).unwrap_or("ReLU");
            let rule = match after {
                "ReLU" => Activation::TopK { k, rescale_by_decoder_norm: false },
                "Identity" => Activation::SignedTopK { k },
                other => return Err(bad("activation_state_dict.postact_fn", "ReLU or Identity", other.into())),
            };
            Ok((rule, Normalization::LayerNorm))
        }
        other => Err(bad("activation", "ReLU or TopK", other.into())),
    }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let file = TorchFile::open(source.path)?;
    refuse_strangers(&file, SaeFormat::OpenAi, &TENSORS)?;
    let [d_sae, d_in] = sizes(&file, "encoder.weight")?;
    let over = |key: &str| source.options.overrides.get(key).and_then(as_count);
    agree(file.path(), "d_in", over("d_in"), d_in)?;
    agree(file.path(), "d_sae", over("d_sae"), d_sae)?;
    let w_dec = match file.contains("decoder.linear.weight") {
        true => file.load_f32_shaped("decoder.linear.weight", &[d_sae, d_in])?,
        false => transposed(&file, "decoder.weight", d_sae, d_in)?,
    };
    let bias = vector(&file, "pre_bias", d_in)?;
    let w_enc = transposed(&file, "encoder.weight", d_in, d_sae)?;
    let mut parts = SaeParts::new(w_enc, vector(&file, "latent_bias", d_sae)?, w_dec, bias.clone());
    parts.input_shift = Some(bias);
    (parts.activation, parts.normalization) = activation(source, &file)?;
    parts.metadata = metadata(&source.published_path());
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
