//! EleutherAI's sparsify: `sae.safetensors` and `cfg.json` in a folder named after the hooked module; the training's `config.json` one above.
//!
//! ```text
//! h = (x - b_dec) encoder.weight^T + encoder.bias       transcode: x alone
//! f = the k largest max(h, 0), or of each of k groups of neighbors the largest (groupmax)
//! y = f W_dec + b_dec + x W_skip^T                      W_dec [num_latents, d_in]; the skip reads x as it comes
//! num_latents, or d_in * expansion_factor where that is 0 or absent
//! layers.L          the block's output: hook_resid_post
//! layers.L.mlp      the MLP's output: hook_mlp_out; transcode: from the MLP's input to its output
//! ```
//!
//! Texts were packed with EOS between them and before the first.

use super::source::{RequiredFiles, Source, at};
use super::weights::{agree, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::{Keys, read_object};
use crate::{Activation, Dictionary, OpenNote, Result, Sae, SaeMetadata, SaeParts, SeparatorToken};
use serde_json::Value;
use std::path::Path;
use tensor_files::SafetensorsFile;

pub(super) const READER: Reader = Reader { format: SaeFormat::Sparsify, recognizes, files, open };

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae.safetensors";
const TENSORS: [&str; 5] = ["encoder.weight", "encoder.bias", "W_dec", "b_dec", "W_skip"];

fn recognizes(path: &Path) -> bool {
    path.join(CONFIG).is_file() && path.join(WEIGHTS).is_file()
}

fn files(path: &str) -> RequiredFiles {
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    RequiredFiles { required: vec![at(path, CONFIG), at(path, WEIGHTS)], optional: vec![at(above, "config.json")] }
}

/// Hook points in and out of a module, by the name that Hugging Face's model gives it.
fn hooks(module: &str, transcode: bool) -> Option<(String, Option<String>)> {
    let parts: Vec<&str> = module.split(['.', '/']).collect();
    if matches!(parts.as_slice(), [.., "embed_tokens" | "embed_in" | "wte"]) {
        return (!transcode).then(|| ("hook_embed".into(), None));
    }
    let block = parts.iter().position(|part| matches!(*part, "layers" | "h"))?;
    let layer: usize = parts.get(block + 1)?.parse().ok()?;
    let (from, to) = match parts.get(block + 2..)? {
        [] => ("hook_resid_pre", "hook_resid_post"),
        ["mlp"] => ("mlp.hook_in", "hook_mlp_out"),
        ["attn" | "attention" | "self_attn"] => ("attn.hook_in", "hook_attn_out"),
        _ => return None,
    };
    let (from, to) = (format!("blocks.{layer}.{from}"), format!("blocks.{layer}.{to}"));
    Some(if transcode { (from, Some(to)) } else { (to, None) })
}

/// Model, dataset and context size of a training's configuration: the file is one only where it has sparsify's section.
fn training(path: &Path) -> Result<SaeMetadata> {
    let mut keys = Keys { path, prefix: "", map: read_object(path)? };
    if !keys.object("sae").is_ok_and(|section| section.is_some()) {
        return Ok(SaeMetadata::default());
    }
    Ok(SaeMetadata {
        model_name: keys.string("model")?,
        dataset_path: keys.string("dataset")?,
        context_size: keys.count("ctx_len")?,
        ..SaeMetadata::default()
    })
}

/// Facts from the folder's name and the training configuration.
fn metadata(source: &Source<'_>, transcode: bool) -> Result<SaeMetadata> {
    let path = source.published_path();
    let module = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().replace("layers_", "layers.");
    let mut metadata = SaeMetadata {
        prepend_bos: Some(false),
        sequence_separator_token: Some(SeparatorToken::Named("eos".into())),
        ..SaeMetadata::default()
    };
    if let Some((hook, out)) = hooks(&module, transcode) {
        (metadata.hook_name, metadata.hook_name_out) = (Some(hook), out);
        metadata.other.insert("hf_hook_name".into(), Value::from(module));
    }
    let above = source.path.join("..").join("config.json");
    if above.is_file() {
        // Metadata only: an unreadable file is a note, not an error.
        match training(&above) {
            Ok(said) => {
                (metadata.model_name, metadata.dataset_path) = (said.model_name, said.dataset_path);
                metadata.context_size = said.context_size;
            }
            Err(error) => source.note(OpenNote::FileSkipped { path: above, reason: error.to_string() }),
        }
    }
    Ok(metadata)
}

fn activation(source: &Source<'_>, keys: &mut Keys<'_>) -> Result<Activation> {
    let said = keys.count("k")?;
    let k = keys.require("k", "how many latents fire", source.stated("k").or(said))?;
    if keys.boolean("signed")? == Some(true) {
        return Err(keys.bad(
            "signed",
            "false: no released version that can be compared with has the other",
            &Value::Bool(true),
        ));
    }
    match keys.string("activation")?.as_deref() {
        None | Some("topk") => Ok(Activation::TopK { k, rescale_by_decoder_norm: false }),
        Some("groupmax") => Ok(Activation::GroupMax { k }),
        Some(other) => Err(keys.bad("activation", "\"topk\" or \"groupmax\"", &Value::from(other))),
    }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let path = source.path.join(CONFIG);
    let mut keys = Keys { path: &path, prefix: "", map: read_object(&path)? };
    let file = SafetensorsFile::open(source.path.join(WEIGHTS))?;
    refuse_strangers(&file, SaeFormat::Sparsify, &TENSORS)?;
    let [d_sae, d_in] = sizes(&file, "encoder.weight")?;
    let (said_in, factor) = (keys.count("d_in")?, keys.count("expansion_factor")?);
    agree(&path, "d_in", source.stated("d_in").or(said_in), d_in)?;
    let latents = keys.count("num_latents")?.filter(|latents| *latents > 0);
    match latents.or(source.stated("d_sae")) {
        Some(latents) => agree(&path, "num_latents", Some(latents), d_sae)?,
        None => agree(&path, "d_in * expansion_factor", factor.map(|factor| factor.saturating_mul(d_in)), d_sae)?,
    }
    let transcode = keys.boolean("transcode")?.unwrap_or(false);
    let skips = keys.boolean("skip_connection")?.unwrap_or(false);
    let bias = vector(&file, "b_dec", d_in)?;
    let mut parts = SaeParts::new(
        transposed(&file, "encoder.weight", d_in, d_sae)?,
        vector(&file, "encoder.bias", d_sae)?,
        file.load_f32_shaped("W_dec", &[d_sae, d_in])?,
        bias.clone(),
    );
    parts.activation = activation(source, &mut keys)?;
    if skips {
        parts.w_skip = Some(file.load_f32_shaped("W_skip", &[d_in, d_in])?);
    } else {
        refuse_strangers(&file, SaeFormat::Sparsify, &TENSORS[..4])?;
    }
    parts.transcoder = transcode;
    parts.input_shift = (!transcode).then_some(bias);
    parts.metadata = metadata(source, transcode)?;
    // What only training asks.
    ["normalize_decoder", "multi_topk"].iter().for_each(|key| drop(keys.take(key)));
    source.refuse_keys(&keys)?;
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
