//! Folders of dictionaries that are no [`Sae`](crate::Sae).

use super::config::Architecture;
use super::load::{LoadOptions, Weights};
use crate::{
    Dictionary, Error, MatchingPursuit, MatchingPursuitParts, Result, TemporalLayerParts, TemporalLinear,
    TemporalParts, TemporalSae,
};

impl Weights<'_> {
    /// The folder's dictionary, if its architecture is a type of its own.
    pub(super) fn other(&self, options: &LoadOptions) -> Result<Option<Dictionary>> {
        let config = self.config;
        let (d_in, d_sae) = (config.d_in, config.d_sae);
        Ok(match config.architecture {
            Architecture::MatchingPursuit { residual_threshold, max_iterations, stop_on_duplicate_support } => {
                let b_dec = self.vector("b_dec", d_in)?;
                let parts = MatchingPursuitParts {
                    w_dec: self.file.load_f32_shaped("W_dec", &[d_sae, d_in])?,
                    b_dec: config.apply_b_dec_to_input.then_some(b_dec),
                    residual_threshold,
                    max_iterations,
                    stop_on_duplicate_support,
                    normalization: config.normalization,
                    act_shape: config.act_shape,
                    metadata: config.metadata.clone(),
                };
                Some(MatchingPursuit::on(options.engine, parts)?.into())
            }
            Architecture::Temporal { n_heads, n_layers, k, tied, factor } => {
                let w_enc = || self.file.load_f32_shaped("W_enc", &[d_in, d_sae]);
                let parts = TemporalParts {
                    w_enc: if tied { None } else { Some(w_enc()?) },
                    w_dec: self.file.load_f32_shaped("W_dec", &[d_sae, d_in])?,
                    b_dec: self.vector("b_dec", d_in)?,
                    apply_b_dec_to_input: config.apply_b_dec_to_input,
                    layers: (0..n_layers).map(|layer| self.layer(layer)).collect::<Result<_>>()?,
                    n_heads,
                    k,
                    activation_normalization_factor: factor,
                    normalization: config.normalization,
                    act_shape: config.act_shape,
                    metadata: config.metadata.clone(),
                };
                Some(TemporalSae::on(options.engine, parts)?.into())
            }
            _ => None,
        })
    }

    fn layer(&self, layer: usize) -> Result<TemporalLayerParts> {
        let linear = |name: &str| {
            let at = |part: &str| format!("attn_layers.{layer}.{name}.{part}");
            let bias = self.file.load_f32(&at("bias"))?.flatten_all()?.to_vec1()?;
            Ok::<_, Error>(TemporalLinear { weight: self.file.load_f32(&at("weight"))?, bias })
        };
        Ok(TemporalLayerParts {
            q: linear("q_target")?,
            k: linear("k_ctx")?,
            v: linear("v_ctx")?,
            o: linear("c_proj")?,
        })
    }
}
