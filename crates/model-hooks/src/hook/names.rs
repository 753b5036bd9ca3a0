//! TransformerLens' names of the hook points, in both directions.

use super::{HookPoint, Module, NormSite, Site};
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Names of TransformerLens' newer bridge that denote one of the tensors above in every family. `mlp.in.hook_out` is not
/// among them: it is `hook_pre` in a plain MLP and `hook_pre_linear` in a gated one. `mlp.hook_in` is no alias of `hook_mlp_in`: it is
/// a tensor of its own, behind the norm.
const SITE_ALIASES: [(Site, &str); 14] = [
    (Site::ResidPre, "hook_in"),
    (Site::ResidPre, "ln1.hook_in"),
    (Site::Q, "attn.q.hook_out"),
    (Site::K, "attn.k.hook_out"),
    (Site::V, "attn.v.hook_out"),
    (Site::Z, "attn.o.hook_in"),
    (Site::AttnOut, "attn.hook_out"),
    (Site::AttnOut, "attn.o.hook_out"),
    (Site::ResidMid, "ln2.hook_in"),
    (Site::MlpPre, "mlp.gate.hook_out"),
    (Site::MlpPost, "mlp.out.hook_in"),
    (Site::MlpOut, "mlp.hook_out"),
    (Site::MlpOut, "mlp.out.hook_out"),
    (Site::ResidPost, "hook_out"),
];

const OUTSIDE: [(HookPoint, &str); 5] = [
    (HookPoint::Embed, "hook_embed"),
    (HookPoint::PosEmbed, "hook_pos_embed"),
    (HookPoint::FinalNorm(NormSite::Scale), "ln_final.hook_scale"),
    (HookPoint::FinalNorm(NormSite::Normalized), "ln_final.hook_normalized"),
    (HookPoint::Logits, "logits"),
];

const OUTSIDE_ALIASES: [(HookPoint, &str); 3] = [
    (HookPoint::Embed, "embed.hook_out"),
    (HookPoint::PosEmbed, "pos_embed.hook_out"),
    (HookPoint::Logits, "unembed.hook_out"),
];

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block { layer, site } => write!(f, "blocks.{layer}.{site}"),
            other => {
                let name = OUTSIDE.iter().find(|(point, _)| point == other).map_or("", |(_, name)| name);
                f.write_str(name)
            }
        }
    }
}

impl FromStr for HookPoint {
    type Err = Error;

    /// Reads a TransformerLens name, old or new, or the name of a module in Hugging Face's words whose output is the same hook point in every
    /// family (`model.layers.7`, `transformer.h.1.mlp`); [`HookedModel::hook_point`](crate::HookedModel::hook_point) reads the others too.
    ///
    /// # Errors
    /// [`Error::UnknownHookName`] with the nearest names, [`Error::ModuleName`] for a module whose hook point depends on the family.
    fn from_str(name: &str) -> Result<Self> {
        let found = match split_block(name) {
            Some((layer, rest)) => {
                known_in_block().find(|(_, known)| *known == rest).map(|(site, _)| Self::Block { layer, site })
            }
            None => OUTSIDE.iter().chain(&OUTSIDE_ALIASES).find(|(_, known)| *known == name).map(|&(point, _)| point),
        };
        if let Some(module) = Module::parse(name).filter(|_| found.is_none()) {
            return module.alone(name);
        }
        found.ok_or_else(|| Error::UnknownHookName { name: name.into(), nearest: nearest_known(name) })
    }
}

/// The point, where the model has it.
pub(crate) fn known_to(points: &[HookPoint], point: HookPoint) -> Result<HookPoint> {
    if points.contains(&point) {
        return Ok(point);
    }
    let known = points.iter().map(ToString::to_string);
    Err(Error::UnknownHookPoint { point, nearest: nearest(&point.to_string(), known) })
}

/// Every name of a place in a block, canonical ones first.
fn known_in_block() -> impl Iterator<Item = (Site, &'static str)> {
    Site::all().map(|site| (site, site.name())).chain(SITE_ALIASES)
}

/// `blocks.7.rest` -> `(7, rest)`; the number must be written as Display writes it.
fn split_block(name: &str) -> Option<(u16, &str)> {
    let (digits, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let layer: u16 = digits.parse().ok()?;
    (layer.to_string() == digits).then_some((layer, rest))
}

fn nearest_known(name: &str) -> Vec<String> {
    let layer = name.strip_prefix("blocks.").map_or("0", |rest| rest.split('.').next().unwrap_or("0"));
    let layer: u16 = layer.parse().unwrap_or(0);
    let blocks = known_in_block().map(|(_, rest)| format!("blocks.{layer}.{rest}"));
    let outside = OUTSIDE.iter().chain(&OUTSIDE_ALIASES).map(|(_, name)| (*name).to_string());
    nearest(name, blocks.chain(outside))
}

/// The three of `known` with the smallest edit distance to `name`, nearest first.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let mut ranked: Vec<(usize, String)> = known.map(|k| (edit_distance(name, &k), k)).collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked.into_iter().take(3).map(|(_, k)| k).collect()
}

/// Levenshtein's distance; `a` is cut so that a hostile name costs little.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        let sites: Vec<Site> = Site::all().collect();
        for (i, site) in sites.iter().enumerate() {
            assert_eq!(*site as usize, i);
        }
        assert!(sites.windows(2).all(|w| w[0] < w[1]));
        assert!(OUTSIDE.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn names_round_trip() {
        let blocks = Site::all().map(|site| HookPoint::Block { layer: 65535, site });
        for point in OUTSIDE.iter().map(|(p, _)| *p).chain(blocks) {
            assert_eq!(point.to_string().parse::<HookPoint>().unwrap(), point);
        }
    }

    #[test]
    fn aliases_denote_the_same_point() {
        for (alias, name) in [
            ("blocks.3.hook_in", "blocks.3.hook_resid_pre"),
            ("blocks.3.hook_out", "blocks.3.hook_resid_post"),
            ("blocks.3.attn.hook_out", "blocks.3.hook_attn_out"),
            ("blocks.3.mlp.hook_out", "blocks.3.hook_mlp_out"),
            ("blocks.3.ln2.hook_in", "blocks.3.hook_resid_mid"),
            ("unembed.hook_out", "logits"),
            ("embed.hook_out", "hook_embed"),
        ] {
            assert_eq!(alias.parse::<HookPoint>().unwrap(), name.parse().unwrap());
        }
    }

    #[test]
    fn unknown_names_are_errors_with_the_nearest() {
        for bad in [
            "",
            "hook_tokens",
            "blocks.7",
            "blocks.+7.hook_q",
            "blocks.07.hook_resid_pre",
            "blocks.70000.hook_resid_pre",
        ] {
            assert!(matches!(bad.parse::<HookPoint>(), Err(Error::UnknownHookName { .. })), "{bad}");
        }
        let Err(Error::UnknownHookName { nearest, .. }) = "blocks.7.attn.hook_patern".parse::<HookPoint>() else {
            panic!("accepted")
        };
        assert_eq!(nearest[0], "blocks.7.attn.hook_pattern");
    }
}
