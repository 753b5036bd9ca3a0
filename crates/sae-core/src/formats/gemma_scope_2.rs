//! Gemma Scope 2: `params.safetensors` and mostly `config.json` in a folder, or one file per layer of a cross-layer transcoder.
//!
//! ```text
//! f = h where h > threshold, h = x w_enc + b_enc      y = f w_dec + b_dec + x affine_skip_connection      nothing is subtracted from x
//! repository  google/gemma-scope-2-{270m,1b,4b,12b,27b}-{pt,it}
//! path        {resid_post,attn_out,mlp_out,transcoder}[_all]/layer_L_width_W_l0_S[_affine], clt/width_W_l0_S/params_layer_L
//! ```
//!
//! A cross-layer file holds `w_dec [d_sae, layers, d_out]`, entry l for layer l. As in SAELens it is opened with the sum over layers: good for
//! codes, not for the reconstruction of any one layer (metadata: `w_dec_summed_over_layers`).
//!
//! Transcoders were trained on `pre_feedforward_layernorm.output`, which `hf_hook_name` says: `mlp.hook_in`. (SAELens 6.54 names `hook_mlp_in`, which lies
//! before that norm, so that a transcoder there reads other values than it was trained on.)

use super::source::{RequiredFiles, Source, at};
use super::weights::{agree, number_after, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::{Keys, read_object};
use crate::{Activation, Dictionary, Error, InputShape, Result, Sae, SaeMetadata, SaeParts};
use candle_core::Tensor;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tensor_files::{SafetensorsFile, TensorFile};

pub(super) const READER: Reader = Reader { format: SaeFormat::GemmaScope2, recognizes, files, open };

const FILE: &str = "params.safetensors";
const SKIP: &str = "affine_skip_connection";
const TENSORS: [&str; 6] = ["w_enc", "b_enc", "threshold", "b_dec", "w_dec", SKIP];

/// The weights: in the folder, the file itself, or the file whose ending the table of releases leaves out.
fn weights(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.join(FILE);
    }
    let mut with_ending = path.as_os_str().to_owned();
    with_ending.push(".safetensors");
    if path.is_file() { path.into() } else { with_ending.into() }
}

fn recognizes(path: &Path) -> bool {
    let file = weights(path);
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    file.is_file() && (name == FILE || name.starts_with("params_layer_"))
}

fn files(path: &str) -> RequiredFiles {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.starts_with("params_layer_") {
        let stem = path.strip_suffix(".safetensors").unwrap_or(path);
        return RequiredFiles { required: vec![format!("{stem}.safetensors")], optional: vec![] };
    }
    RequiredFiles { required: vec![at(path, FILE)], optional: vec![at(path, "config.json")] }
}

/// The hook points in and out, from the path, or from the configuration's name of the module.
fn hooks(path: &str, module: &str) -> Option<(String, Option<String>)> {
    let told = |name: &str, end: &str| path.contains(name) || module.ends_with(end);
    let layer = number_after(path, "layer_").or_else(|| number_after(module, "layers."))?;
    let block = |point: &str| format!("blocks.{layer}.{point}");
    Some(if told("transcoder", "pre_feedforward_layernorm.output") || path.contains("clt/") {
        (block("mlp.hook_in"), Some(block("hook_mlp_out")))
    } else if told("attn_out", "self_attn.o_proj.input") {
        (block("attn.hook_z"), None)
    } else if told("mlp_out", "post_feedforward_layernorm.output") {
        (block("hook_mlp_out"), None)
    } else if told("resid_post", &format!("layers.{layer}.output")) {
        (block("hook_resid_post"), None)
    } else {
        return None;
    })
}

/// `google/gemma-3-..`, from the configuration's `gemma-v3-..` or the repository; the base model of 270m has no `-pt`.
fn model(said: Option<String>, repo: Option<&str>) -> Option<String> {
    let name = said.or_else(|| Some(repo?.replace("gemma-scope-2", "gemma-3")))?.replace("-v3", "-3");
    let name = if name.contains("google") { name } else { format!("google/{name}") };
    Some(if name.contains("270m") { name.replace("-pt", "") } else { name })
}

fn metadata(source: &Source<'_>, keys: &mut Keys<'_>, hooks: Option<(String, Option<String>)>) -> Result<SaeMetadata> {
    let stated = |key: &str| source.options.overrides.get(key).and_then(Value::as_str).map(str::to_owned);
    let found = stated("hook_name").map(|hook| (hook, stated("hook_name_out")));
    let (hook, hook_out) = found.or(hooks).ok_or_else(|| Error::Parameter {
        name: "origin",
        expected:
            "a path with layer_L and resid_post, attn_out, mlp_out, transcoder or clt, or an override of `hook_name`"
                .into(),
        found: format!("`{}`", source.published_path()),
    })?;
    Ok(SaeMetadata {
        model_name: model(keys.string("model_name")?, source.repo()),
        hook_name: Some(hook),
        hook_name_out: hook_out,
        context_size: Some(1024),
        prepend_bos: Some(true),
        dataset_path: Some("monology/pile-uncopyrighted".into()),
        ..SaeMetadata::default()
    })
}

/// `w_dec`, summed over layers where it has them, and whether it was.
fn decoder(file: &SafetensorsFile, d_sae: usize) -> Result<(Tensor, bool)> {
    if let Some(&[_, layers, d_out]) = file.shape("w_dec").as_deref() {
        return Ok((file.load_f32_shaped("w_dec", &[d_sae, layers, d_out])?.sum(1)?, true));
    }
    let [_, d_out] = sizes(file, "w_dec")?;
    Ok((file.load_f32_shaped("w_dec", &[d_sae, d_out])?, false))
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let file = SafetensorsFile::open(weights(source.path))?;
    refuse_strangers(&file, SaeFormat::GemmaScope2, &TENSORS)?;
    let beside = file.path().with_file_name("config.json");
    let map = if beside.is_file() { read_object(&beside)? } else { Map::new() };
    let mut keys = Keys { path: &beside, prefix: "", map };
    match keys.string("architecture")? {
        Some(other) if other != "jump_relu" => return Err(keys.bad("architecture", "\"jump_relu\"", &other.into())),
        _ => {}
    }
    let module = keys.string("hf_hook_point_in")?;
    let path = source.published_path();
    let mut metadata = metadata(source, &mut keys, hooks(&path, module.as_deref().unwrap_or_default()))?;
    let transcoder = metadata.hook_name_out.is_some();
    // As the configuration says, else as the name says; a skip connection that neither mentions is used as well.
    let skips = match keys.boolean("affine_connection")? {
        Some(false) => refuse_strangers(&file, SaeFormat::GemmaScope2, &TENSORS[..5]).map(|()| false)?,
        said => said.unwrap_or(transcoder && path.contains("affine")) || file.contains(SKIP),
    };
    let [d_in, d_sae] = sizes(&file, "w_enc")?;
    agree(file.path(), "d_in", source.stated("d_in"), d_in)?;
    agree(file.path(), "d_sae", source.stated("d_sae"), d_sae)?;
    let (w_dec, summed) = decoder(&file, d_sae)?;
    let d_out = if transcoder { w_dec.dim(1)? } else { d_in };
    metadata.other.extend(keys.map);
    metadata.other.extend(module.map(|module| ("hf_hook_name".into(), module.into())));
    metadata.other.extend(summed.then(|| ("w_dec_summed_over_layers".into(), true.into())));
    let w_enc = file.load_f32_shaped("w_enc", &[d_in, d_sae])?;
    let mut parts = SaeParts::new(w_enc, vector(&file, "b_enc", d_sae)?, w_dec, vector(&file, "b_dec", d_out)?);
    parts.activation = Activation::JumpRelu { threshold: vector(&file, "threshold", d_sae)?.into() };
    parts.w_skip = if skips { Some(transposed(&file, SKIP, d_out, d_in)?) } else { None };
    parts.act_shape = match &metadata.hook_name {
        Some(hook) if hook.ends_with("hook_z") => InputShape::PerHead,
        _ => InputShape::Flat,
    };
    (parts.transcoder, parts.metadata) = (transcoder, metadata);
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
