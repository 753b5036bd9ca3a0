//! Marks' dictionary_learning: `ae.pt`, a state dict, and the trainer's `config.json`.
//!
//! | class | inputs | features |
//! |---|---|---|
//! | `AutoEncoder` | `x - bias` | `max(h, 0)` |
//! | `AutoEncoder` with `decoder.bias` (`AutoEncoderNew`) | `x` | `max(h, 0)` |
//! | `AutoEncoderTopK` | `x - b_dec` | the k largest of `max(h, 0)` of each token, whatever threshold is stored |
//! | `BatchTopKSAE`, `MatryoshkaBatchTopKSAE` | `x - b_dec` | `max(h, 0)` above the stored threshold, for -1 (never set) all |
//! | `GatedAutoEncoder` | `x - decoder_bias` | gate `h + gate_bias > 0`, size `max(exp(r_mag) h + mag_bias, 0)` |
//! | `JumpReluAutoEncoder` | `x` | `h` above each feature's threshold |
//!
//! Weights are those stored: `AutoEncoder.from_pretrained` brings decoder rows to norm 1 unless told not to, which is
//! [`Sae::fold_w_dec_norm`](crate::Sae::fold_w_dec_norm). Neither BOS nor text is recorded in the files.

use super::source::{RequiredFiles, Source, at};
use super::weights::{agree, refuse_strangers, sizes, transposed, vector};
use super::{Reader, SaeFormat};
use crate::formats::json_keys::{Keys, read_object};
use crate::{Activation, Dictionary, Error, Result, Sae, SaeMetadata, SaeParts};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;
use tensor_files::{TensorFile, TorchFile};

pub(super) const READER: Reader = Reader { format: SaeFormat::DictionaryLearning, recognizes, files, open };

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "ae.pt";

fn recognizes(path: &Path) -> bool {
    path.join(CONFIG).is_file() && path.join(WEIGHTS).is_file()
}

fn files(path: &str) -> RequiredFiles {
    RequiredFiles { required: vec![at(path, CONFIG), at(path, WEIGHTS)], optional: vec![] }
}

/// The names of a class' tensors.
struct Names {
    encoder: &'static str,
    b_enc: &'static str,
    decoder: &'static str,
    b_dec: &'static str,
    /// Whether matrices lie as `torch.nn.Linear` has them, outputs first.
    linear: bool,
    /// Whether the decoder's bias is subtracted from inputs.
    shifts: bool,
    more: &'static [&'static str],
}

const LINEAR: Names = Names {
    encoder: "encoder.weight",
    b_enc: "encoder.bias",
    decoder: "decoder.weight",
    b_dec: "b_dec",
    linear: true,
    shifts: true,
    more: &[],
};
const PLAIN: Names = Names {
    encoder: "W_enc",
    b_enc: "b_enc",
    decoder: "W_dec",
    b_dec: "b_dec",
    linear: false,
    shifts: false,
    more: &[],
};

impl Names {
    /// `None` for a class that is not read.
    fn of(class: &str, file: &TorchFile) -> Option<Self> {
        Some(match class {
            // Since the April update the trainer writes `AutoEncoder` for both: the tensors tell.
            "AutoEncoder" | "AutoEncoderNew" if file.contains("decoder.bias") => {
                Self { b_dec: "decoder.bias", shifts: false, ..LINEAR }
            }
            "AutoEncoder" | "AutoEncoderNew" => Self { b_dec: "bias", ..LINEAR },
            "AutoEncoderTopK" | "BatchTopKSAE" => Self { more: &["k", "threshold"], ..LINEAR },
            "MatryoshkaBatchTopKSAE" => Self { shifts: true, more: &["k", "threshold", "group_sizes"], ..PLAIN },
            "GatedAutoEncoder" => {
                Self { b_enc: "gate_bias", b_dec: "decoder_bias", more: &["r_mag", "mag_bias"], ..LINEAR }
            }
            "JumpReluAutoEncoder" => Self { more: &["threshold"], ..PLAIN },
            _ => return None,
        })
    }

    fn all(&self) -> Vec<&'static str> {
        [&[self.encoder, self.b_enc, self.decoder, self.b_dec], self.more].concat()
    }

    /// `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`.
    fn matrices(&self, file: &TorchFile, d_in: usize, d_sae: usize) -> Result<(Tensor, Tensor)> {
        let read = |name, rows, columns| match self.linear {
            true => transposed(file, name, rows, columns),
            false => Ok(file.load_f32_shaped(name, &[rows, columns])?),
        };
        Ok((read(self.encoder, d_in, d_sae)?, read(self.decoder, d_sae, d_in)?))
    }
}

const CLASSES: &str = "AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE, GatedAutoEncoder or JumpReluAutoEncoder";

fn activation(
    class: &str,
    trainer: &mut Keys<'_>,
    source: &Source<'_>,
    file: &TorchFile,
    d_sae: usize,
) -> Result<Activation> {
    Ok(match class {
        "AutoEncoderTopK" => {
            let said = source.stated("k").or(trainer.count("k")?);
            let held = if file.contains("k") { file.read_i64("k", &[])?.first().copied() } else { None };
            let held = held.and_then(|k| usize::try_from(k).ok());
            if let Some(held) = held {
                agree(trainer.path, "trainer.k", said, held)?;
            }
            let k = trainer.require("k", "a whole number, here or in the weights", held.or(said))?;
            Activation::TopK { k, rescale_by_decoder_norm: false }
        }
        "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" => {
            let threshold = file.read_f32("threshold", &[])?;
            Activation::JumpRelu { threshold: threshold.iter().map(|x| x.max(0.0)).cycle().take(d_sae).collect() }
        }
        "GatedAutoEncoder" => Activation::Gated {
            r_mag: vector(file, "r_mag", d_sae)?.into(),
            b_mag: vector(file, "mag_bias", d_sae)?.into(),
        },
        "JumpReluAutoEncoder" => Activation::JumpRelu { threshold: vector(file, "threshold", d_sae)?.into() },
        _ => Activation::Relu,
    })
}

/// The groups of a matryoshka SAE are its nested widths: together they are all features.
fn check_groups(file: &TorchFile, d_sae: usize) -> Result<Option<Value>> {
    let Some(&[groups]) = file.shape("group_sizes").as_deref() else { return Ok(None) };
    let sizes = file.read_i64("group_sizes", &[groups])?;
    let sum = sizes.iter().try_fold(0i64, |sum, size| sum.checked_add(*size).filter(|_| *size > 0));
    if sum != Some(d_sae as i64) {
        return Err(Error::BadKey {
            path: file.path().into(),
            key: "group_sizes".into(),
            expected: format!("positive sizes that add up to the {d_sae} features"),
            found: format!("{sizes:?}"),
        });
    }
    Ok(Some(sizes.into()))
}

/// The hook point of a module by the name that the training script gives it, `resid_post_layer_3`.
fn hook(module: Option<&str>, layer: usize) -> Option<String> {
    let point = match module {
        None => "hook_resid_post",
        Some(name) if name.starts_with("resid_post") => "hook_resid_post",
        Some(name) if name.starts_with("mlp_out") => "hook_mlp_out",
        Some(name) if name.starts_with("attn_out") || name.starts_with("attention_out") => "hook_attn_out",
        Some(_) => return None,
    };
    Some(format!("blocks.{layer}.{point}"))
}

fn metadata(trainer: &mut Keys<'_>, context_size: Option<usize>) -> Result<SaeMetadata> {
    let (layer, module) = (trainer.count("layer")?, trainer.string("submodule_name")?);
    let mut metadata = SaeMetadata {
        // As SAELens names it: without the owner.
        model_name: trainer.string("lm_name")?.map(|name| name.rsplit('/').next().unwrap_or(&name).to_owned()),
        hook_name: layer.and_then(|layer| hook(module.as_deref(), layer)),
        context_size,
        ..SaeMetadata::default()
    };
    metadata.other.extend(module.map(|module| ("submodule_name".into(), module.into())));
    Ok(metadata)
}

fn open(source: &Source<'_>) -> Result<Dictionary> {
    let path = source.path.join(CONFIG);
    let mut keys = Keys { path: &path, prefix: "", map: read_object(&path)? };
    let trainer = keys.object("trainer")?;
    let trainer = keys.require("trainer", "an object", trainer)?;
    let mut trainer = Keys { path: &path, prefix: "trainer.", map: trainer };
    let buffer = keys.object("buffer")?.unwrap_or_default();
    let context_size = Keys { path: &path, prefix: "buffer.", map: buffer }.count("ctx_len")?;
    let class = trainer.string("dict_class")?;
    let class = trainer.require("dict_class", "a class of dictionary_learning", class)?;
    let file = TorchFile::open(source.path.join(WEIGHTS))?;
    let names = Names::of(&class, &file).ok_or_else(|| trainer.bad("dict_class", CLASSES, &class.as_str().into()))?;
    refuse_strangers(&file, SaeFormat::DictionaryLearning, &names.all())?;
    let [rows, columns] = sizes(&file, names.encoder)?;
    let [d_in, d_sae] = if names.linear { [columns, rows] } else { [rows, columns] };
    for (key, override_of, held) in [("activation_dim", "d_in", d_in), ("dict_size", "d_sae", d_sae)] {
        agree(&path, &format!("trainer.{key}"), trainer.count(key)?, held)?;
        agree(&path, override_of, source.stated(override_of), held)?;
    }
    let (w_enc, w_dec) = names.matrices(&file, d_in, d_sae)?;
    let b_dec = vector(&file, names.b_dec, d_in)?;
    let mut parts = SaeParts::new(w_enc, vector(&file, names.b_enc, d_sae)?, w_dec, b_dec.clone());
    parts.input_shift = names.shifts.then_some(b_dec);
    parts.activation = activation(&class, &mut trainer, source, &file, d_sae)?;
    parts.metadata = metadata(&mut trainer, context_size)?;
    parts.metadata.other.extend(check_groups(&file, d_sae)?.map(|groups| ("group_sizes".into(), groups)));
    Ok(Sae::on(source.options.load.engine, parts)?.into())
}
