//! Names of features across SAEs.

use super::SpliceError;
use crate::{Error, Result};
use model_hooks::HookPoint;
use sae_core::FeatureId;
use std::fmt;
use std::str::FromStr;

/// A feature of the SAE whose output stands at a hook point, for tables over several SAEs. `Display` and `FromStr` write `<hook>/<feature>`.
///
/// ```
/// use feature_analysis::splice::FeatureHookName;
/// let name: FeatureHookName = "blocks.8.hook_resid_pre/1234".parse()?;
/// assert_eq!(name, FeatureHookName { hook: "blocks.8.hook_resid_pre".parse()?, feature: 1234 });
/// assert_eq!(name.to_string(), "blocks.8.hook_resid_pre/1234");
/// # Ok::<(), feature_analysis::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureHookName {
    /// Where the SAE's output stands.
    pub hook: HookPoint,
    /// The feature.
    pub feature: FeatureId,
}

impl fmt::Display for FeatureHookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hook, self.feature)
    }
}

impl FromStr for FeatureHookName {
    type Err = Error;

    /// Reads `<hook point>/<number>`; the number as `Display` writes it.
    ///
    /// # Errors
    /// [`SpliceError::BadFeatureName`], and the hook point's own error with the nearest hook points.
    fn from_str(name: &str) -> Result<Self> {
        let bad = || SpliceError::BadFeatureName { name: name.into() };
        let (hook, digits) = name.split_once('/').ok_or_else(bad)?;
        let feature =
            digits.parse::<FeatureId>().ok().filter(|feature| feature.to_string() == digits).ok_or_else(bad)?;
        Ok(Self { hook: hook.parse()?, feature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused() {
        for bad in [
            "",
            "7",
            "blocks.0.hook_mlp_out",
            "blocks.0.hook_mlp_out/",
            "blocks.0.hook_mlp_out/07",
            "blocks.0.hook_mlp_out/+7",
        ] {
            let error = bad.parse::<FeatureHookName>().unwrap_err().to_string();
            assert!(error.contains("/1234"), "{bad}: {error}");
        }
        let error = "blocks.0.hook_mlp_uot/7".parse::<FeatureHookName>().unwrap_err().to_string();
        assert!(error.contains("blocks.0.hook_mlp_out"), "{error}");
    }
}
