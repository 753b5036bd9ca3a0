//! Which features to look at.

use crate::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// `n` different features of `0..d_sae`, drawn without repeats (the notebook's `torch.randint` can repeat one). The same seed gives
/// the same features in the same order, on every machine.
///
/// # Errors
/// No features asked for, or more than there are.
pub fn random_features(d_sae: usize, n: usize, seed: u64) -> Result<Vec<u32>> {
    if n == 0 || n > d_sae {
        return Err(Error::FeatureCount { asked: n, d_sae });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Ok(rand::seq::index::sample(&mut rng, d_sae, n).into_iter().map(|f| f as u32).collect())
}

/// Checks a list of features: none missing from the SAE, none named twice, and at least one.
///
/// # Errors
/// [`Error::NoFeatures`], [`Error::FeatureRange`], [`Error::FeatureTwice`].
pub fn check_features(features: &[u32], d_sae: usize) -> Result<()> {
    if features.is_empty() {
        return Err(Error::NoFeatures { d_sae });
    }
    let mut seen = HashMap::with_capacity(features.len());
    for (place, &feature) in features.iter().enumerate() {
        if feature as usize >= d_sae {
            return Err(Error::FeatureRange { feature, d_sae });
        }
        if let Some(first) = seen.insert(feature, place) {
            return Err(Error::FeatureTwice { feature, first, second: place });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_without_repeats_and_reproducibly() {
        let drawn = random_features(120, 100, 3).unwrap();
        assert_eq!(drawn.len(), 100);
        check_features(&drawn, 120).unwrap();
        assert_eq!(drawn, random_features(120, 100, 3).unwrap());
        assert_ne!(drawn, random_features(120, 100, 4).unwrap());
        assert_eq!(random_features(5, 5, 0).unwrap().len(), 5);
    }

    #[test]
    fn lists_are_refused_with_names() {
        let refuse = |list: &[u32]| check_features(list, 10).unwrap_err().to_string();
        assert_eq!(refuse(&[]), "no features given; at least one of 0..10 is needed");
        assert_eq!(refuse(&[3, 10]), "feature 10 is outside this SAE, whose features are 0..10");
        assert_eq!(refuse(&[3, 1, 3]), "feature 3 is listed twice, at places 0 and 2");
        assert_eq!(
            random_features(10, 11, 0).unwrap_err().to_string(),
            "11 features asked of an SAE of 10; possible: 1 to 10"
        );
    }
}
