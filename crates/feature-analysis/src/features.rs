//! Which features to look at.

use crate::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_without_repeats_and_reproducibly() {
        let drawn = random_features(120, 100, 3).unwrap();
        assert_eq!(drawn.len(), 100);
        sae_core::check_feature_list(&drawn, 120).unwrap();
        assert_eq!(drawn, random_features(120, 100, 3).unwrap());
        assert_ne!(drawn, random_features(120, 100, 4).unwrap());
        assert_eq!(random_features(5, 5, 0).unwrap().len(), 5);
    }

    #[test]
    fn too_many_are_refused() {
        assert_eq!(
            random_features(10, 11, 0).unwrap_err().to_string(),
            "11 features asked of an SAE of 10; possible: 1 to 10"
        );
    }
}
