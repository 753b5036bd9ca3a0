//! Maps Hugging Face module names in SAE configurations to the hook points of their outputs.
//!
//! ```text
//! transformer.h.1, model.layers.7, gpt_neox.layers.3, layers.7     the block's output     hook_resid_post
//! ... .mlp                                                         the MLP's output       hook_mlp_out
//! ... .attn, .self_attn, .attention                                attention's output     hook_attn_out
//! ... .pre_feedforward_layernorm, .ln_2                            the MLP's input        mlp.hook_in
//! ... .post_feedforward_layernorm                                  behind the MLP's norm  hook_mlp_out
//! ... .post_attention_layernorm       with norms behind attention: hook_attn_out, without: mlp.hook_in
//! ```
//!
//! Where a norm follows attention and MLP (Gemma 2 and 3, OLMo 2), `hook_attn_out` and `hook_mlp_out` lie behind it, and the outputs of the
//! modules `self_attn` and `mlp` before it, where there is no hook point. The names of Llama, Gemma and OLMo modules do not differ, so that
//! these need a model.

use super::{HookPoint, Site};
use crate::{Error, Result};

/// A module of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    layer: u16,
    part: Part,
    /// Whether the name is one of a family without norms behind attention and MLP.
    plain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Block,
    Attention,
    Mlp,
    PreAttentionNorm,
    PostAttentionNorm,
    PreMlpNorm,
    PostMlpNorm,
}

impl Module {
    /// The module of a name, `None` where it is none of a block.
    pub fn parse(name: &str) -> Option<Self> {
        let mut rest = name.strip_suffix(".output").unwrap_or(name);
        let mut plain = false;
        while let Some((prefix, inner)) = rest.split_once('.') {
            match prefix {
                "model" | "language_model" => {}
                "transformer" | "gpt_neox" => plain = true,
                _ => break,
            }
            rest = inner;
        }
        let (list, rest) = rest.split_once('.')?;
        plain |= match list {
            "h" => true,
            "layers" => false,
            _ => return None,
        };
        let (digits, part) = rest.split_once('.').unwrap_or((rest, ""));
        let layer: u16 = digits.parse().ok()?;
        if layer.to_string() != digits {
            return None;
        }
        let part = match part {
            "" => Part::Block,
            "attn" | "self_attn" | "attn.attention" => Part::Attention,
            "attention" => {
                plain = true;
                Part::Attention
            }
            "mlp" => Part::Mlp,
            "input_layernorm" | "ln_1" => Part::PreAttentionNorm,
            "post_attention_layernorm" => Part::PostAttentionNorm,
            "pre_feedforward_layernorm" | "ln_2" => Part::PreMlpNorm,
            "post_feedforward_layernorm" => Part::PostMlpNorm,
            _ => return None,
        };
        Some(Self { layer, part, plain })
    }

    /// The hook point by the name alone, in any model that has such a module.
    pub fn alone(self, name: &str) -> Result<HookPoint> {
        let site = match self.part {
            Part::Attention | Part::Mlp | Part::PostAttentionNorm if !self.plain => {
                return Err(Error::ModuleName {
                    name: name.into(),
                    reason:
                        "which hook point that is depends on whether the family has norms behind attention and MLP; \
                             resolve it with HookedModel::hook_point, or use TransformerLens' name"
                            .into(),
                });
            }
            _ => self.site(name, [false; 2])?,
        };
        Ok(self.at(site))
    }

    /// The hook point in a model with these points.
    pub fn among(self, name: &str, points: &[HookPoint]) -> Result<HookPoint> {
        let norms = [Site::Ln1PostScale, Site::Ln2PostScale].map(|site| points.contains(&self.at(site)));
        Ok(self.at(self.site(name, norms)?))
    }

    /// `after_attention`, `after_mlp`: whether a norm follows.
    fn site(self, name: &str, [after_attention, after_mlp]: [bool; 2]) -> Result<Site> {
        let before_norm = |out: Site, norm: &str| Error::ModuleName {
            name: name.into(),
            reason: format!(
                "in this model a norm follows it, and no hook point lies between; `{}` is the output of the norm, `{norm}`",
                self.at(out)
            ),
        };
        Ok(match self.part {
            Part::Block => Site::ResidPost,
            Part::Attention if after_attention => {
                return Err(before_norm(Site::AttnOut, "post_attention_layernorm"));
            }
            Part::Attention => Site::AttnOut,
            Part::Mlp if after_mlp => return Err(before_norm(Site::MlpOut, "post_feedforward_layernorm")),
            Part::Mlp | Part::PostMlpNorm => Site::MlpOut,
            Part::PostAttentionNorm if after_attention => Site::AttnOut,
            Part::PostAttentionNorm | Part::PreMlpNorm => Site::MlpInput,
            Part::PreAttentionNorm => {
                return Err(Error::ModuleName {
                    name: name.into(),
                    reason: format!(
                        "no hook point shows the norm with its gain and bias; `{}` is the value before them",
                        self.at(Site::Ln1Normalized)
                    ),
                });
            }
        })
    }

    fn at(self, site: Site) -> HookPoint {
        HookPoint::Block { layer: self.layer, site }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_the_points_that_their_outputs_are() {
        for (name, point) in [
            ("transformer.h.1", "blocks.1.hook_resid_post"),
            ("model.layers.7", "blocks.7.hook_resid_post"),
            ("gpt_neox.layers.3", "blocks.3.hook_resid_post"),
            ("layers.12", "blocks.12.hook_resid_post"),
            ("h.0", "blocks.0.hook_resid_post"),
            ("model.language_model.layers.5", "blocks.5.hook_resid_post"),
            ("language_model.model.layers.5.output", "blocks.5.hook_resid_post"),
            ("transformer.h.1.mlp", "blocks.1.hook_mlp_out"),
            ("transformer.h.1.attn", "blocks.1.hook_attn_out"),
            ("gpt_neox.layers.3.attention", "blocks.3.hook_attn_out"),
            ("gpt_neox.layers.3.mlp", "blocks.3.hook_mlp_out"),
            ("transformer.h.1.ln_2", "blocks.1.mlp.hook_in"),
            ("model.layers.7.pre_feedforward_layernorm.output", "blocks.7.mlp.hook_in"),
            ("model.layers.7.post_feedforward_layernorm", "blocks.7.hook_mlp_out"),
        ] {
            assert_eq!(name.parse::<HookPoint>().unwrap().to_string(), point, "{name}");
        }
    }

    #[test]
    fn what_depends_on_the_family_needs_a_model() {
        let points = |sites: &[Site]| -> Vec<HookPoint> {
            sites.iter().map(|&site| HookPoint::Block { layer: 7, site }).collect()
        };
        let (llama, gemma2) = (points(&[]), points(&[Site::Ln1PostScale, Site::Ln2PostScale]));
        for (name, in_llama, in_gemma2) in [
            ("model.layers.7.mlp", Some("blocks.7.hook_mlp_out"), None),
            ("model.layers.7.self_attn", Some("blocks.7.hook_attn_out"), None),
            ("model.layers.7.post_attention_layernorm", Some("blocks.7.mlp.hook_in"), Some("blocks.7.hook_attn_out")),
            ("model.layers.7", Some("blocks.7.hook_resid_post"), Some("blocks.7.hook_resid_post")),
            ("model.layers.7.input_layernorm", None, None),
        ] {
            let module = Module::parse(name).unwrap();
            let found = |points| module.among(name, points).ok().map(|point| point.to_string());
            assert_eq!((found(&llama).as_deref(), found(&gemma2).as_deref()), (in_llama, in_gemma2), "{name}");
            if name != "model.layers.7" {
                assert!(matches!(name.parse::<HookPoint>(), Err(Error::ModuleName { .. })), "{name}");
            }
        }
    }

    #[test]
    fn other_names_are_no_modules() {
        for name in ["model.layers", "model.layers.07", "layers.x", "model.norm", "transformer.h.1.mlp.c_fc", "lm_head"]
        {
            assert_eq!(Module::parse(name), None, "{name}");
        }
    }
}
