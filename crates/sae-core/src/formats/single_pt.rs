//! The formats of one `.pt` file whose name says the rest: Qwen Scope, qresearch's DeepSeek R1 and Goodfire's.
//!
//! ```text
//! matrices are stored as torch.nn.Linear has them: W_enc = stored^T, W_dec = stored^T; nothing is subtracted from the input
//! qwen_scope    layerL.sae.pt    W_enc, W_dec, b_enc, b_dec    TopK, k and width of SAE-Res-{model}-W{N}K-L0_{k}
//! deepseek_r1, goodfire          {model}-SAE-l{layer}.pt[h]    ReLU
//! ```

use super::source::{RequiredFiles, Source};
use super::weights::{agree, number_after, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::as_count;
use crate::{Activation, Dictionary, Error, Result, Sae, SaeMetadata, SaeParts};
use serde_json::Value;
use std::path::Path;
use tensor_files::{TensorFile, TorchFile};

pub(super) const QWEN_SCOPE: Reader = Reader { format: SaeFormat::QwenScope, recognizes: is_qwen, files, open: qwen };
pub(super) const DEEPSEEK_R1: Reader =
    Reader { format: SaeFormat::DeepseekR1, recognizes: is_deepseek, files, open: deepseek };
pub(super) const GOODFIRE: Reader =
    Reader { format: SaeFormat::Goodfire, recognizes: is_goodfire, files, open: goodfire };

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_qwen(path: &Path) -> bool {
    path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| layer_file(name).is_some())
}

fn layer_file(name: &str) -> Option<usize> {
    name.strip_prefix("layer")?.strip_suffix(".sae.pt")?.parse().ok()
}

fn named_after_model(path: &Path, tensor: &str) -> bool {
    let torch = path.extension().is_some_and(|ending| ending == "pt" || ending == "pth");
    let named = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| model_and_layer(name).is_some());
    torch && named && TorchFile::open(path).is_ok_and(|file| file.contains(tensor))
}

fn is_deepseek(path: &Path) -> bool {
    named_after_model(path, "encoder.weight")
}

fn is_goodfire(path: &Path) -> bool {
    named_after_model(path, "encoder_linear.weight")
}

fn files(path: &str) -> RequiredFiles {
    RequiredFiles { required: vec![path.into()], optional: vec![] }
}

fn model_and_layer(name: &str) -> Option<(&str, usize)> {
    let (model, layer) = file_name(name).rsplit_once("-SAE-l")?;
    Some((model, layer.split('.').next()?.parse().ok()?))
}

fn metadata(model: String, layer: Option<usize>) -> SaeMetadata {
    SaeMetadata {
        model_name: Some(model),
        hook_name: layer.map(|layer| format!("blocks.{layer}.hook_resid_post")),
        prepend_bos: Some(true),
        ..SaeMetadata::default()
    }
}

fn qwen(source: &Source<'_>) -> Result<Dictionary> {
    let (path, over) = (source.published_path(), &source.options.overrides);
    let name = source.repo().unwrap_or(&path);
    let said = name.split_once("SAE-Res-").and_then(|(_, rest)| {
        let (model, rest) = rest.split_once("-W")?;
        Some((model.to_owned(), number_after(rest, "")?.checked_mul(1024)?, number_after(rest, "L0_")?))
    });
    let k = over.get("k").and_then(as_count).or(said.as_ref().map(|said| said.2)).ok_or_else(|| Error::Parameter {
        name: "origin",
        expected: "a repository named SAE-Res-{model}-W{N}K-L0_{k}, or an override of `k`".into(),
        found: format!("`{name}`"),
    })?;
    let layer = layer_file(file_name(&path));
    let mut about = said.as_ref().map(|said| metadata(format!("Qwen/{}", said.0), layer)).unwrap_or_default();
    about.context_size = Some(1024);
    if let Some(layer) = layer {
        about.other.insert("hf_hook_name".into(), Value::from(format!("model.layers.{layer}")));
    }
    let activation = Activation::TopK { k, rescale_by_decoder_norm: false };
    read(source, SaeFormat::QwenScope, ["W_enc", "b_enc", "W_dec", "b_dec"], said.map(|said| said.1), activation, about)
}

fn deepseek(source: &Source<'_>) -> Result<Dictionary> {
    linear(source, SaeFormat::DeepseekR1, "encoder", "decoder", "deepseek-ai", Some(1024))
}

fn goodfire(source: &Source<'_>) -> Result<Dictionary> {
    linear(source, SaeFormat::Goodfire, "encoder_linear", "decoder_linear", "meta-llama", None)
}

fn linear(
    source: &Source<'_>,
    format: SaeFormat,
    encoder: &str,
    decoder: &str,
    owner: &str,
    context: Option<usize>,
) -> Result<Dictionary> {
    let path = source.published_path();
    let mut about = match model_and_layer(&path) {
        Some((model, layer)) => metadata(format!("{owner}/{model}"), Some(layer)),
        None => SaeMetadata::default(),
    };
    (about.context_size, about.dataset_path) = (context, Some("lmsys/lmsys-chat-1m".into()));
    let names = [(encoder, "weight"), (encoder, "bias"), (decoder, "weight"), (decoder, "bias")]
        .map(|(a, b)| format!("{a}.{b}"));
    read(source, format, names.each_ref().map(String::as_str), None, Activation::Relu, about)
}

/// `names`: the encoder's matrix and bias, the decoder's matrix and bias.
fn read(
    source: &Source<'_>,
    format: SaeFormat,
    names: [&str; 4],
    d_sae_said: Option<usize>,
    activation: Activation,
    metadata: SaeMetadata,
) -> Result<Dictionary> {
    let file = TorchFile::open(source.path)?;
    refuse_strangers(&file, format, &names)?;
    let [d_sae, d_in] = sizes(&file, names[0])?;
    let over = |key: &str| source.options.overrides.get(key).and_then(as_count);
    agree(file.path(), "d_in", over("d_in"), d_in)?;
    agree(file.path(), "d_sae", over("d_sae").or(d_sae_said), d_sae)?;
    let mut parts = SaeParts::new(
        transposed(&file, names[0], d_in, d_sae)?,
        vector(&file, names[1], d_sae)?,
        transposed(&file, names[2], d_sae, d_in)?,
        vector(&file, names[3], d_in)?,
    );
    (parts.activation, parts.metadata) = (activation, metadata);
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
