//! Gemma Scope: `params.npz` with `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_out]`, `b_enc`, `b_dec`, `threshold`; everything else is in names.
//!
//! ```text
//! f = h where h > threshold, h = x W_enc + b_enc       x_hat = f W_dec + b_dec        (JumpReLU, no input shift)
//! embedding:   W_enc /= sqrt(d_in)   W_dec *= sqrt(d_in)     b_dec stays, as in SAELens
//! repository   google/gemma-scope-{2b,9b,27b}-{pt,it}-{res,mlp,att,transcoders}
//! path         layer_L/width_W/average_l0_N, embedding/width_W/average_l0_N
//! ```
//!
//! A width is the power of two whose thousands (millions) the name tells: 16k is 16,384, 65k is 65,536, 1m is 1,048,576.

use super::source::{RequiredFiles, Source};
use super::weights::{agree, number_after, refuse_strangers, sizes, vector};
use super::{Reader, SaeFormat};
use crate::{Activation, Dictionary, Error, InputShape, Result, Sae, SaeMetadata, SaeParts};
use std::path::Path;
use tensor_files::{NpzFile, TensorFile};

pub(super) const READER: Reader = Reader { format: SaeFormat::GemmaScope, recognizes, files, open };

const FILE: &str = "params.npz";
const TENSORS: [&str; 5] = ["W_enc", "W_dec", "b_enc", "b_dec", "threshold"];

fn recognizes(path: &Path) -> bool {
    path.join(FILE).is_file() || path.file_name().is_some_and(|name| name == FILE)
}

fn files(path: &str) -> RequiredFiles {
    RequiredFiles { required: vec![format!("{path}/{FILE}")], optional: vec![] }
}

/// Facts from the names of repository and folder.
#[derive(Debug, PartialEq)]
struct Names {
    metadata: SaeMetadata,
    d_in: usize,
    d_sae: Option<usize>,
}

fn names(repo: &str, path: &str) -> Option<Names> {
    let parts: Vec<&str> = repo.split_once("gemma-scope-")?.1.split(['-', '/']).collect();
    let &[size, tuned, site, ..] = parts.as_slice() else { return None };
    let (d_model, d_heads) = match size {
        "2b" => (2304, 2048),
        "9b" => (3584, 4096),
        "27b" => (4608, 4096),
        _ => return None,
    };
    let layer = number_after(path, "layer_");
    let at = |point: &str| layer.map(|layer| format!("blocks.{layer}.{point}"));
    let (hook, hook_out, d_in) = match site {
        "res" if path.contains("embedding") => ("hook_embed".into(), None, d_model),
        "res" => (at("hook_resid_post")?, None, d_model),
        "mlp" => (at("hook_mlp_out")?, None, d_model),
        "att" => (at("attn.hook_z")?, None, d_heads),
        "transcoders" => (at("ln2.hook_normalized")?, at("hook_mlp_out"), d_model),
        _ => return None,
    };
    let metadata = SaeMetadata {
        model_name: Some(format!("gemma-2-{size}{}", if tuned == "it" { "-it" } else { "" })),
        hook_name: Some(hook),
        hook_name_out: hook_out,
        context_size: Some(1024),
        prepend_bos: Some(true),
        dataset_path: Some("monology/pile-uncopyrighted".into()),
        ..SaeMetadata::default()
    };
    Some(Names { metadata, d_in, d_sae: width(path) })
}

fn width(path: &str) -> Option<usize> {
    let name = path.split("width_").nth(1)?.split('/').next()?;
    let (count, unit) = name.split_at(name.len().checked_sub(1)?);
    let unit = if unit == "k" {
        1_000
    } else if unit == "m" {
        1_000_000
    } else {
        return None;
    };
    let count: usize = count.parse().ok()?;
    (10..32).map(|power| 1_usize << power).find(|width| width / unit == count)
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let is_file = source.path.is_file();
    let file = NpzFile::open(if is_file { source.path.into() } else { source.path.join(FILE) })?;
    refuse_strangers(&file, SaeFormat::GemmaScope, &TENSORS)?;
    let path = source.published_path();
    let said = names(source.repo().unwrap_or(&path), &path);
    let stated = |key: &str| source.options.overrides.get(key).and_then(|value| value.as_str());
    let hook = stated("hook_name").or(said.as_ref().and_then(|said| said.metadata.hook_name.as_deref()));
    // The hook decides what is computed: heads, the embedding's scale, whether it is a transcoder.
    let hook = hook.map(str::to_owned).ok_or_else(|| Error::Parameter {
        name: "origin",
        expected: "google/gemma-scope-{2b,9b,27b}-{pt,it}-{res,mlp,att,transcoders} and layer_L/width_W/.., or an override of `hook_name`".into(),
        found: format!("`{}` and `{path}`", source.repo().unwrap_or("no repository")),
    })?;
    let [d_in, d_sae] = sizes(&file, "W_enc")?;
    let due = |key: &str, said: Option<usize>| {
        source.options.overrides.get(key).and_then(crate::formats::json_keys::as_count).or(said)
    };
    agree(file.path(), "d_in", due("d_in", said.as_ref().map(|said| said.d_in)), d_in)?;
    agree(file.path(), "d_sae", due("d_sae", said.as_ref().and_then(|said| said.d_sae)), d_sae)?;
    let metadata = said.map(|said| said.metadata).unwrap_or_default();
    let transcoder = metadata.hook_name_out.is_some() || stated("hook_name_out").is_some();
    let d_out = if transcoder { sizes(&file, "W_dec")?[1] } else { d_in };
    let mut w_enc = file.load_f32_shaped("W_enc", &[d_in, d_sae])?;
    let mut w_dec = file.load_f32_shaped("W_dec", &[d_sae, d_out])?;
    if hook == "hook_embed" {
        let scale = (d_in as f64).sqrt();
        (w_enc, w_dec) = ((w_enc / scale)?, (w_dec * scale)?);
    }
    let mut parts = SaeParts::new(w_enc, vector(&file, "b_enc", d_sae)?, w_dec, vector(&file, "b_dec", d_out)?);
    parts.activation = Activation::JumpRelu { threshold: vector(&file, "threshold", d_sae)?.into() };
    parts.transcoder = transcoder;
    parts.act_shape = if hook.ends_with("hook_z") { InputShape::PerHead } else { InputShape::Flat };
    parts.metadata = metadata;
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn widths() {
        let of = |name: &str| super::width(&format!("layer_3/width_{name}/average_l0_9"));
        let known = [("4k", 4096), ("16k", 16384), ("32k", 32768), ("65k", 65536), ("131k", 131_072), ("1m", 1 << 20)];
        for (name, width) in known {
            assert_eq!(of(name), Some(width), "{name}");
        }
        assert_eq!(of("17k"), None);
    }
}
