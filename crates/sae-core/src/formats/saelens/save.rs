use super::auxiliary::{SCALER_FILE, WHITENING_FILE};
use super::{CFG_FILE, LAYOUT_VERSION, SPARSITY_FILE, WEIGHTS_FILE, legacy};
use crate::{Activation, Error, InputShape, Normalization, Result, Sae, SparseCoder};
use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use tensor_files::{AtomicFolder, save_safetensors, write_atomically};

/// Architectures that SAELens opens for inference.
const WRITTEN: [&str; 9] = [
    "standard",
    "topk",
    "abstopk",
    "jumprelu",
    "gated",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
];

impl Sae {
    /// Saves the SAE as a folder that SAELens 6 opens, weights in f32. [`Sae::load`] gives back the same bits.
    ///
    /// Everything is first written beside the folder. Then it gets its name, or it and the folder that is there change places: at any moment, whatever
    /// happens, the folder is not there, or holds the old SAE, or the new one; files of other names in it stay. Only where the system cannot do that ([`AtomicFolder::replace`]
    /// says where) the files change one after the other, and a process that is killed within that moment leaves a folder that every reader refuses.
    ///
    /// # Errors
    /// [`Error::CannotSave`] when the input shift is not `b_dec` (SAELens knows no other) or SAELens has no such architecture,
    /// [`Error::RoundedWeights`] when `W_enc` is packed in
    /// a precision that does not keep it, [`Error::File`], [`Error::Io`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let io = |source| Error::Io { path: folder.to_path_buf(), source };
        let (config, tensors) = (self.config_json()?, self.named_tensors()?);
        let new = AtomicFolder::create(folder)?;
        save_safetensors(new.path().join(WEIGHTS_FILE), &tensors, None)?;
        if let Some(sparsity) = self.sparsity() {
            let tensor = Tensor::new(sparsity, &Device::Cpu)?;
            save_safetensors(new.path().join(SPARSITY_FILE), &[("sparsity", tensor)], None)?;
        }
        let text = serde_json::to_string(&config).map_err(|e| io(e.into()))?;
        write_atomically(&new.path().join(CFG_FILE), |file| {
            file.write_all(text.as_bytes())
                .map_err(|source| tensor_files::Error::Io { path: folder.join(CFG_FILE), source })
        })?;
        // A file of another SAE's factor must not stay: it would be applied to this one.
        Ok(new.replace(&[CFG_FILE, WEIGHTS_FILE, SPARSITY_FILE, SCALER_FILE, WHITENING_FILE])?)
    }

    fn named_tensors(&self) -> Result<Vec<(&'static str, Tensor)>> {
        let vector = |v: &[f32]| Tensor::new(v, &Device::Cpu);
        let mut tensors = vec![
            ("W_enc", self.exact_w_enc_t("saving")?.t()?.contiguous()?),
            ("W_dec", self.w_dec().clone()),
            ("b_dec", vector(self.b_dec())?),
        ];
        if let Some(w_skip) = self.w_skip()? {
            tensors.push(("W_skip", w_skip));
        }
        match self.activation() {
            Activation::JumpRelu { threshold } => {
                tensors.extend([("b_enc", vector(self.b_enc())?), ("threshold", vector(threshold)?)]);
            }
            Activation::Gated { r_mag, b_mag } => {
                let gate = vector(self.b_enc())?;
                tensors.extend([("b_gate", gate), ("r_mag", vector(r_mag)?), ("b_mag", vector(b_mag)?)]);
            }
            _ => tensors.push(("b_enc", vector(self.b_enc())?)),
        }
        Ok(tensors)
    }

    fn config_json(&self) -> Result<Map<String, Value>> {
        if !WRITTEN.contains(&self.architecture()) || (self.w_skip()?.is_some() && !self.is_transcoder()) {
            return Err(Error::CannotSave { what: "an architecture that SAELens does not open" });
        }
        let apply_b_dec_to_input = match self.input_shift() {
            None => false,
            Some(_) if self.is_transcoder() => {
                return Err(Error::CannotSave { what: "a transcoder with an input shift" });
            }
            Some(shift) if shift == self.b_dec() => true,
            Some(_) => return Err(Error::CannotSave { what: "an input shift other than b_dec" }),
        };
        let mut config = Map::new();
        let mut put = |key: &str, value: Value| config.insert(key.into(), value);
        put("architecture", json!(self.architecture()));
        put("d_in", json!(self.d_in()));
        put("d_sae", json!(self.d_sae()));
        put("dtype", json!("float32"));
        put("device", json!("cpu"));
        put("apply_b_dec_to_input", json!(apply_b_dec_to_input));
        put("normalize_activations", json!(normalization_name(self.normalization())));
        put("reshape_activations", json!(if self.act_shape() == InputShape::PerHead { "hook_z" } else { "none" }));
        if self.is_transcoder() {
            put("d_out", json!(self.d_out()));
        }
        if let Activation::TopK { k, rescale_by_decoder_norm } | Activation::AbsTopK { k, rescale_by_decoder_norm } =
            self.activation()
        {
            put("k", json!(k));
            put("rescale_acts_by_decoder_norm", json!(rescale_by_decoder_norm));
        }
        let mut metadata = self.metadata().to_json();
        // SAELens decides by this version whether it must rewrite the configuration.
        if legacy::is_pre_6(Path::new(CFG_FILE), &metadata).unwrap_or(true) {
            metadata.insert("sae_lens_version".into(), json!(LAYOUT_VERSION));
        }
        put("metadata", Value::Object(metadata));
        Ok(config)
    }
}

fn normalization_name(normalization: Normalization) -> &'static str {
    match normalization {
        Normalization::None => "none",
        Normalization::ExpectedAverageOnlyIn => "expected_average_only_in",
        Normalization::ConstantNormRescale => "constant_norm_rescale",
        Normalization::LayerNorm => "layer_norm",
    }
}
