//! Names of places and features, written and read.

use crate::error::{Error, Result};
use crate::sae_hook_point::{FeatureHookName, SITES, SaeHookPoint};
use sae_core::FeatureId;
use std::fmt;
use std::str::FromStr;

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
    /// [`Error::UnknownSite`] with the six names, and the hook point's own error with the nearest hook points.
    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::UnknownSite { name: name.into() };
        let (hook, last) = name.rsplit_once('.').ok_or_else(unknown)?;
        let (site, _) = SITES.iter().find(|(_, known)| *known == last).ok_or_else(unknown)?;
        Ok(Self::new(hook.parse()?, *site))
    }
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
    /// [`Error::BadFeatureName`], and the hook point's own error with the nearest hook points.
    fn from_str(name: &str) -> Result<Self> {
        let bad = || Error::BadFeatureName { name: name.into() };
        let (hook, digits) = name.split_once('/').ok_or_else(bad)?;
        let feature =
            digits.parse::<FeatureId>().ok().filter(|feature| feature.to_string() == digits).ok_or_else(bad)?;
        Ok(Self { hook: hook.parse()?, feature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sae_hook_point::SaeSite;

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
