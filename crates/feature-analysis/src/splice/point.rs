//! The places inside a spliced SAE, with SAELens' names.

use super::SpliceError;
use crate::{Error, Result};
use model_hooks::HookPoint;
use std::fmt;
use std::str::FromStr;

/// A place inside a spliced SAE. The order of the variants is the order of execution.
///
/// `[batch, pos]` stands before every shape; `d_in` counts all heads of a per-head hook point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SaeSite {
    /// `hook_sae_input` `[.., d_in]`: what goes in, before the SAE's own normalization and shift.
    Input,
    /// `hook_sae_acts_pre` `[.., d_sae]`, dense: what the activation function reads (of a Gated SAE the magnitudes). Watched only, and
    /// only of coders that have [`pre_acts`](sae_core::SparseCoder::pre_acts).
    ActsPre,
    /// `hook_sae_acts_post`: the sparse features, after every edit.
    ActsPost,
    /// `hook_sae_recons` `[.., d_out]`: what the features reconstruct, per-token norms undone (SAELens' hook fires before that).
    Recons,
    /// `hook_sae_error`, in the shape of the output hook's value: what the SAE misses. Exists with the error term alone.
    Error,
    /// `hook_sae_output`, in the shape of the output hook's value: what the model goes on with.
    Output,
}

const SITES: [(SaeSite, &str); 6] = [
    (SaeSite::Input, "hook_sae_input"),
    (SaeSite::ActsPre, "hook_sae_acts_pre"),
    (SaeSite::ActsPost, "hook_sae_acts_post"),
    (SaeSite::Recons, "hook_sae_recons"),
    (SaeSite::Error, "hook_sae_error"),
    (SaeSite::Output, "hook_sae_output"),
];

impl SaeSite {
    /// Every place, in execution order.
    pub fn all() -> impl Iterator<Item = Self> {
        SITES.iter().map(|&(site, _)| site)
    }

    /// SAELens' name: `hook_sae_input`, `hook_sae_acts_post` ...
    #[must_use]
    pub fn name(self) -> &'static str {
        // The table lists every variant in order; a test holds it to that.
        SITES[self as usize].1
    }
}

/// A place inside the SAE whose output stands at a hook point. `Display` and `FromStr` are SAELens' cache names.
///
/// ```
/// use feature_analysis::splice::{SaeHookPoint, SaeSite};
/// let point: SaeHookPoint = "blocks.8.hook_resid_pre.hook_sae_acts_post".parse()?;
/// assert_eq!(point, SaeHookPoint::new("blocks.8.hook_resid_pre".parse()?, SaeSite::ActsPost));
/// assert_eq!(point.to_string(), "blocks.8.hook_resid_pre.hook_sae_acts_post");
/// # Ok::<(), feature_analysis::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaeHookPoint {
    /// Where the SAE's output stands (for a transcoder its output hook).
    pub hook: HookPoint,
    /// The place inside the SAE.
    pub site: SaeSite,
}

impl SaeHookPoint {
    /// The place `site` of the SAE whose output stands at `hook`.
    #[must_use]
    pub fn new(hook: HookPoint, site: SaeSite) -> Self {
        Self { hook, site }
    }
}

impl fmt::Display for SaeHookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.hook, self.site.name())
    }
}

impl FromStr for SaeHookPoint {
    type Err = Error;

    /// Reads `<hook point>.hook_sae_...`.
    ///
    /// # Errors
    /// [`SpliceError::UnknownSite`] with the six names, and the hook point's own error with the nearest hook points.
    fn from_str(name: &str) -> Result<Self> {
        let unknown = || SpliceError::UnknownSite { name: name.into() };
        let (hook, last) = name.rsplit_once('.').ok_or_else(unknown)?;
        let (site, _) = SITES.iter().find(|(_, known)| *known == last).ok_or_else(unknown)?;
        Ok(Self::new(hook.parse()?, *site))
    }
}

/// The six names, for errors.
pub(super) fn site_names() -> String {
    SITES.map(|(_, name)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        assert!(SITES.iter().enumerate().all(|(i, (site, _))| *site as usize == i));
    }

    #[test]
    fn names_round_trip() {
        for hook in ["blocks.11.attn.hook_z", "hook_embed"] {
            for site in SaeSite::all() {
                let point = SaeHookPoint::new(hook.parse().unwrap(), site);
                assert_eq!(point.to_string().parse::<SaeHookPoint>().unwrap(), point);
                assert!(point.to_string().starts_with(hook));
            }
        }
    }

    #[test]
    fn unknown_names_are_errors_that_name_what_is_known() {
        for bad in ["", "hook_sae_input", "blocks.0.hook_mlp_out", "blocks.0.hook_mlp_out.hook_sae_acts"] {
            let error = bad.parse::<SaeHookPoint>().unwrap_err().to_string();
            assert!(error.contains("hook_sae_acts_post"), "{bad}: {error}");
        }
        let error = "blocks.0.hook_mlp_uot.hook_sae_input".parse::<SaeHookPoint>().unwrap_err().to_string();
        assert!(error.contains("blocks.0.hook_mlp_out"), "{error}");
    }
}
