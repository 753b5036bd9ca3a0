//! Hash that decides which activations a sample of a feature contains: those with the lowest [`hash`]. Files depend on it, so it never changes
//! (another one would be another version of the format).

/// A bijection of the 64-bit numbers whose output looks random: the finalizer of splitmix64 (David Stafford's "Mix13").
///
/// ```text
/// z ^= z >> 30;  z *= 0xBF58476D1CE4E5B9;  z ^= z >> 27;  z *= 0x94D049BB133111EB;  z ^= z >> 31      (modulo 2^64)
/// ```
#[inline]
const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The part of the hash that an address decides, as [`TokenPos::to_u64`](crate::TokenPos::to_u64) returns it.
#[must_use]
#[inline]
pub const fn address_key(address: u64) -> u64 {
    mix(address.wrapping_add(0x9E37_79B9_7F4A_7C15))
}

/// The part of the hash that seed and feature decide.
#[must_use]
#[inline]
pub const fn feature_key(seed: u64, feature: u32) -> u64 {
    // An odd constant other than that of addresses, so that no seed makes the two keys of small numbers equal.
    mix(mix(seed ^ 0x2545_F491_4F6C_DD1D) ^ (feature as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

/// `hash(seed, feature, address) = mix(feature_key(seed, feature) ^ address_key(address))`. Different addresses have different hashes, because
/// `mix` is a bijection: there are no ties.
#[must_use]
#[inline]
pub const fn hash(feature_key: u64, address_key: u64) -> u64 {
    mix(feature_key ^ address_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_is_the_one_of_all_files() {
        assert_eq!(mix(0x9E37_79B9_7F4A_7C15), 0xE220_A839_7B1D_CDAF, "splitmix64's first number from seed 0");
        assert_eq!(hash(feature_key(0, 0), address_key(0)), FIRST);
        assert_eq!(hash(feature_key(7, 24_575), address_key(123 << 24 | 45)), SECOND);
    }

    const FIRST: u64 = 0x428E_2847_F389_DFB2;
    const SECOND: u64 = 0x6390_10FF_013C_1C06;

    #[test]
    fn bits_are_even() {
        let mut ones = [0u32; 64];
        for feature in 0..64 {
            for address in 0..64 {
                let hash = hash(feature_key(1, feature), address_key(address));
                ones.iter_mut().enumerate().for_each(|(bit, count)| *count += (hash >> bit & 1) as u32);
            }
        }
        // 4096 tosses: 2048 +- 32 (one sigma).
        assert!(ones.iter().all(|&count| (1888..2208).contains(&count)), "{ones:?}");
    }
}
