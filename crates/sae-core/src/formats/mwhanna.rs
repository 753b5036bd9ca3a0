//! Hanna's transcoders: `layer_L.safetensors` with `W_enc [d_sae, d_in]`, `W_dec [d_sae, d_out]`, `b_enc`, `b_dec`, for each layer of Qwen 3.
//!
//! ```text
//! f = relu(x W_enc^T + b_enc)        y = f W_dec + b_dec         x: mlp.hook_in, y: hook_mlp_out
//! wandb-config.yaml (or wanb-config.yaml)    d_model, d_feature, batch_size (the context), act_fn: each as `value` of its key
//! config.yaml (not of every repository)      model_name, else it follows from qwen3-{size}b in the repository's name
//! ```

use super::circuit_tracer::{CONFIG, Layer, has_layers, needs, sizes_agree};
use super::source::{RequiredFiles, Source};
use super::weights::{agree, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat, yaml};
use crate::formats::json_keys::Keys;
use crate::{Dictionary, Result, Sae, SaeMetadata, SaeParts};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tensor_files::SafetensorsFile;

pub(super) const READER: Reader = Reader { format: SaeFormat::Mwhanna, recognizes, files, open };

const STEM: &str = "layer_";
/// The second is how some repositories spell it.
const TRAINING: [&str; 2] = ["wandb-config.yaml", "wanb-config.yaml"];

fn recognizes(path: &Path) -> bool {
    TRAINING.iter().any(|beside| has_layers(path, STEM, beside))
}

/// `path` is the layer's file; one of the two spellings of the training configuration is there, and `config.yaml` where there is one.
fn files(path: &str) -> RequiredFiles {
    let folder = path.rfind('/').map_or("", |at| &path[..=at]);
    let beside = TRAINING.iter().chain([&CONFIG]).map(|name| format!("{folder}{name}"));
    RequiredFiles { required: vec![path.into()], optional: beside.collect() }
}

/// Options of the training: `{key: {value: ..}}`, among other keys that are not read.
fn training(folder: &Path) -> Result<(PathBuf, [Option<usize>; 3])> {
    let path = TRAINING.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    let path = path.unwrap_or_else(|| folder.join(TRAINING[0]));
    let mut map = yaml::read_object(&path)?;
    let mut value = |key: &str| match map.remove(key) {
        Some(Value::Object(mut said)) => said.remove("value"),
        said => said,
    };
    let said = ["d_model", "d_feature", "batch_size", "act_fn"].map(|key| (key, value(key)));
    let map = said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let mut keys = Keys { path: &path, prefix: "", map };
    keys.read("act_fn", "relu", |value| value.as_str().filter(|name| *name == "relu").map(drop))?;
    let said = [keys.count("d_model")?, keys.count("d_feature")?, keys.count("batch_size")?];
    Ok((path, said))
}

fn model(source: &Source<'_>, folder: &Path) -> Result<Option<String>> {
    let path = folder.join(CONFIG);
    if path.is_file() {
        let mut keys = Keys { path: &path, prefix: "", map: yaml::read_object(&path)? };
        let kind = |value: &Value| value.as_str().filter(|kind| *kind == "transcoder_set").map(drop);
        keys.read("model_kind", "transcoder_set", kind)?;
        return keys.string("model_name");
    }
    let size = source.repo().and_then(|repo| repo.split("qwen3-").nth(1)?.split_once('b').map(|(size, _)| size));
    let number = size.filter(|size| size.parse::<f32>().is_ok());
    Ok(number.map(|size| format!("Qwen/Qwen3-{size}B")))
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let Layer { folder, number: layer } = Layer::of(source, STEM)?;
    let file = SafetensorsFile::open(folder.join(format!("{STEM}{layer}.safetensors")))?;
    refuse_strangers(&file, SaeFormat::Mwhanna, &["W_enc", "W_dec", "b_enc", "b_dec"])?;
    let ([d_sae, d_in], [_, d_out]) = (sizes(&file, "W_enc")?, sizes(&file, "W_dec")?);
    let (said_in, [d_model, d_feature, context_size]) = training(&folder)?;
    for (key, said, held) in [("d_model", d_model, d_in), ("d_model", d_model, d_out), ("d_feature", d_feature, d_sae)]
    {
        agree(&said_in, key, said, held)?;
    }
    sizes_agree(source, file.path(), [("d_in", d_in), ("d_sae", d_sae), ("d_out", d_out)])?;
    let mut parts = SaeParts::new(
        transposed(&file, "W_enc", d_in, d_sae)?,
        vector(&file, "b_enc", d_sae)?,
        file.load_f32_shaped("W_dec", &[d_sae, d_out])?,
        vector(&file, "b_dec", d_out)?,
    );
    parts.transcoder = true;
    parts.metadata = SaeMetadata {
        model_name: model(source, &folder)?,
        hook_name: Some(format!("blocks.{layer}.mlp.hook_in")),
        hook_name_out: Some(format!("blocks.{layer}.hook_mlp_out")),
        context_size,
        dataset_path: Some("monology/pile-uncopyrighted".into()),
        ..needs()
    };
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
