//! Kissane and Krzyzanowski's attention SAEs: `<name>.pt` with `W_enc`, `W_dec`, `b_enc`, `b_dec` as they are used, and `<name>_cfg.json`.
//!
//! ```text
//! f = relu((z - b_dec) W_enc + b_enc)     z_hat = f W_dec + b_dec         z: the heads side by side
//! ```

use super::source::{RequiredFiles, Source};
use super::weights::{agree, refuse_strangers, sizes, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::{Keys, as_count, read_object};
use crate::{Dictionary, InputShape, Result, Sae, SaeMetadata, SaeParts};
use std::path::{Path, PathBuf};
use tensor_files::{TensorFile, TorchFile};

pub(super) const READER: Reader = Reader { format: SaeFormat::ConnorRob, recognizes, files, open };

fn config(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}_cfg.json"))
}

fn recognizes(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "pt") && config(path).is_file()
}

fn files(path: &str) -> RequiredFiles {
    let stem = path.strip_suffix(".pt").unwrap_or(path);
    RequiredFiles { required: vec![path.into(), format!("{stem}_cfg.json")], optional: vec![] }
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let path = config(source.path);
    let mut keys = Keys { path: &path, prefix: "", map: read_object(&path)? };
    let file = TorchFile::open(source.path)?;
    refuse_strangers(&file, SaeFormat::ConnorRob, &["W_enc", "W_dec", "b_enc", "b_dec"])?;
    let [d_in, d_sae] = sizes(&file, "W_enc")?;
    let over = |key: &str| source.options.overrides.get(key).and_then(as_count);
    let (said_in, said_sae) = (keys.count("act_size")?, keys.count("dict_size")?);
    agree(&path, "act_size", over("d_in").or(said_in), d_in)?;
    agree(&path, "dict_size", over("d_sae").or(said_sae), d_sae)?;
    let hook = keys.string("act_name")?;
    let hook = keys.require("act_name", "the hook point that was trained on", hook)?;
    let bias = vector(&file, "b_dec", d_in)?;
    let w_dec = file.load_f32_shaped("W_dec", &[d_sae, d_in])?;
    let mut parts = SaeParts::new(
        file.load_f32_shaped("W_enc", &[d_in, d_sae])?,
        vector(&file, "b_enc", d_sae)?,
        w_dec,
        bias.clone(),
    );
    parts.input_shift = Some(bias);
    parts.act_shape = InputShape::PerHead;
    parts.metadata = SaeMetadata {
        model_name: keys.string("model_name")?.or(Some("gpt2-small".into())),
        hook_name: Some(hook),
        context_size: keys.count("seq_len")?.or(Some(128)),
        prepend_bos: Some(true),
        dataset_path: Some("Skylion007/openwebtext".into()),
        ..SaeMetadata::default()
    };
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
