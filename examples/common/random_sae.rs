//! An SAE of random weights, to show the mechanics on a model that no SAE is at hand for.

use super::Outcome;
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use saescope::activation_store::HookRows;
use saescope::model_hooks::{HookPoint, LanguageModel};
use saescope::sae_core::{Activation, Sae, SaeMetadata, SaeParts};
use saescope::tensor_kernels::Engine;

/// The widest published SAEs have so many features.
const MOST_FEATURES: usize = 1 << 24;

/// `random:D_SAE@HOOK`.
#[derive(Clone, Debug)]
pub struct Spec {
    d_sae: usize,
    hook: HookPoint,
}

impl Spec {
    /// The flag, if it asks for random weights at all.
    pub fn parse(flag: &str) -> Outcome<Option<Self>> {
        let Some(rest) = flag.strip_prefix("random:") else { return Ok(None) };
        let wrong = || format!("`{flag}` is not random:D_SAE@HOOK, such as random:2048@blocks.1.hook_resid_pre");
        let (d_sae, hook) = rest.split_once('@').ok_or_else(wrong)?;
        let d_sae = d_sae.parse().map_err(|_| wrong())?;
        if !(1..=MOST_FEATURES).contains(&d_sae) {
            return Err(format!("`{flag}` has {d_sae} features, expected 1 to {MOST_FEATURES}").into());
        }
        Ok(Some(Self { d_sae, hook: hook.parse()? }))
    }

    /// Random unit directions, read and written by the same rows; the 32 strongest of each token are kept.
    pub fn build(&self, model: &LanguageModel, engine: Engine, seed: u64) -> Outcome<Sae> {
        if !model.hooked().hook_points().contains(&self.hook) {
            let (hook, layers) = (self.hook, model.shape().n_layers);
            return Err(
                format!("`{hook}` is no hook point of model `{}` with its {layers} layers", model.name()).into()
            );
        }
        let width = HookRows::resolve(self.hook, model.shape())?.width();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let len = self.d_sae.checked_mul(width).ok_or("the SAE has more weights than can be counted")?;
        let mut rows = Vec::new();
        rows.try_reserve_exact(len).map_err(|_| format!("{len} weights do not fit into memory"))?;
        rows.resize(len, 0_f32);
        for row in rows.chunks_exact_mut(width) {
            row.fill_with(|| rng.random_range(-1.0..1.0));
            let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            row.iter_mut().for_each(|w| *w /= norm);
        }
        let w_dec = Tensor::from_vec(rows, (self.d_sae, width), &Device::Cpu)?;
        let mut parts = SaeParts::new(w_dec.t()?.contiguous()?, vec![0.0; self.d_sae], w_dec, vec![0.0; width]);
        parts.activation = Activation::TopK { k: 32.min(self.d_sae), rescale_by_decoder_norm: false };
        parts.metadata = SaeMetadata {
            hook_name: Some(self.hook.to_string()),
            context_size: Some(128.min(model.shape().n_ctx)),
            prepend_bos: Some(model.tokenizer().is_some_and(|t| t.bos().is_some())),
            ..SaeMetadata::default()
        };
        Ok(Sae::on(engine, parts)?)
    }
}
