//! The places inside a spliced SAE, with SAELens' names, and the names of its features.

use model_hooks::HookPoint;
use sae_core::FeatureId;

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

/// The places with their names, in the order of the enum.
pub(crate) const SITES: [(SaeSite, &str); 6] = [
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
/// use sae_hooks::{SaeHookPoint, SaeSite};
/// let point: SaeHookPoint = "blocks.8.hook_resid_pre.hook_sae_acts_post".parse()?;
/// assert_eq!(point, SaeHookPoint::new("blocks.8.hook_resid_pre".parse()?, SaeSite::ActsPost));
/// assert_eq!(point.to_string(), "blocks.8.hook_resid_pre.hook_sae_acts_post");
/// # Ok::<(), sae_hooks::Error>(())
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

/// A feature of the SAE whose output stands at a hook point, for tables over several SAEs. `Display` and `FromStr` write `<hook>/<feature>`.
///
/// ```
/// use sae_hooks::FeatureHookName;
/// let name: FeatureHookName = "blocks.8.hook_resid_pre/1234".parse()?;
/// assert_eq!(name, FeatureHookName { hook: "blocks.8.hook_resid_pre".parse()?, feature: 1234 });
/// assert_eq!(name.to_string(), "blocks.8.hook_resid_pre/1234");
/// # Ok::<(), sae_hooks::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureHookName {
    /// Where the SAE's output stands.
    pub hook: HookPoint,
    /// The feature.
    pub feature: FeatureId,
}

/// The six names, for errors.
pub(crate) fn site_names() -> String {
    SITES.map(|(_, name)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        assert!(SITES.iter().enumerate().all(|(i, (site, _))| *site as usize == i));
    }
}
