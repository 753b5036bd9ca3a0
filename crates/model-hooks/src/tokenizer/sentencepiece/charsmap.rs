//! Compiled rules of normalization (`precompiled_charsmap`), checked: the `tokenizers` crate indexes them without bounds checks.
//!
//! Little-endian: the size of a trie in bytes, the trie (a double array of 32-bit units), the texts that it leads to, each ended by a zero.

/// Larger ones are refused: sentencepiece's own have 240 kB.
const MAX_BYTES: usize = 4 << 20;

/// Whether every walk through the trie stays inside it and ends at a text.
pub(in crate::tokenizer) fn check(charsmap: &[u8]) -> Result<(), String> {
    let bad = |what: &str| Err(format!("its precompiled_charsmap {what}"));
    if charsmap.len() > MAX_BYTES {
        return bad(&format!("has {} bytes, at most {MAX_BYTES} are read", charsmap.len()));
    }
    let Some((size, rest)) = charsmap.split_first_chunk::<4>() else { return bad("has no size") };
    let size = u32::from_le_bytes(*size) as usize;
    if size == 0 || !size.is_multiple_of(1024) || size > rest.len() {
        return bad(&format!("has a trie of {size} bytes, expected blocks of 1024 within its {}", rest.len()));
    }
    let (trie, texts) = rest.split_at(size);
    let Ok(texts) = std::str::from_utf8(texts) else { return bad("leads to text that is not UTF-8") };
    let units: Vec<Unit> = trie.as_chunks::<4>().0.iter().map(|unit| Unit(u32::from_le_bytes(*unit))).collect();
    // The trie is whole blocks of 256 units, and a step changes the last eight bits of a place: it stays in the block.
    let root = units.first().map_or(usize::MAX, |unit| unit.offset());
    let mut seen = vec![false; units.len()];
    let mut open = vec![root];
    match seen.get_mut(root) {
        Some(seen) => *seen = true,
        None => return bad("leads out of its trie"),
    }
    while let Some(place) = open.pop() {
        for label in 1..=255 {
            let at = place ^ label;
            let Some(unit) = units.get(at) else { return bad("leads out of its trie") };
            if unit.label() != label as u32 {
                continue;
            }
            let next = at ^ unit.offset();
            let (Some(target), Some(seen)) = (units.get(next), seen.get_mut(next)) else {
                return bad("leads out of its trie");
            };
            if unit.has_leaf() && !texts.is_char_boundary(target.value()) {
                return bad("leads out of its texts");
            }
            if !std::mem::replace(seen, true) {
                open.push(next);
            }
        }
    }
    Ok(())
}

/// A unit of the double array, as darts-clone packs it.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & (1 << 9)) >> 6)) as usize
    }

    fn label(self) -> u32 {
        self.0 & ((1 << 31) | 0xFF)
    }

    fn has_leaf(self) -> bool {
        (self.0 >> 8) & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & ((1 << 31) - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charsmap(units: &[(usize, u32)], texts: &[u8]) -> Vec<u8> {
        let mut trie = vec![0u32; 256];
        units.iter().for_each(|(at, unit)| trie[*at] = *unit);
        [&1024u32.to_le_bytes()[..], &trie.concat_bytes(), texts].concat()
    }

    trait ConcatBytes {
        fn concat_bytes(&self) -> Vec<u8>;
    }

    impl ConcatBytes for Vec<u32> {
        fn concat_bytes(&self) -> Vec<u8> {
            self.iter().flat_map(|unit| unit.to_le_bytes()).collect()
        }
    }

    #[test]
    fn walks_stay_inside() {
        // From the root (place 1) by `a` to place 2, where a leaf says text 0.
        let a = usize::from(b'a');
        let step = |to: usize, leaf: u32| u32::from(b'a') | leaf << 8 | (to as u32) << 10;
        let sound = [(0, 1 << 10), (1 ^ a, step(1 ^ a ^ 2, 1)), (2, 0)];
        assert_eq!(check(&charsmap(&sound, b"b\0")), Ok(()));
        let with = |units: &[(usize, u32)], texts: &[u8]| check(&charsmap(units, texts)).unwrap_err();
        assert!(with(&[(0, 300 << 10)], b"").contains("out of its trie"));
        assert!(with(&[(0, 1 << 10), (1 ^ a, step(4096, 0))], b"").contains("out of its trie"));
        assert!(with(&[(0, 1 << 10), (1 ^ a, step(1 ^ a ^ 2, 1)), (2, 9)], b"b\0").contains("out of its texts"));
        assert!(
            with(&[(0, 1 << 10), (1 ^ a, step(1 ^ a ^ 2, 1)), (2, 1)], "é\0".as_bytes()).contains("out of its texts")
        );
        assert!(with(&sound, &[0xFF]).contains("UTF-8"));
        for bad in [&[][..], &[0, 0], &[0, 0, 0, 0], &[0, 4, 0, 0, 1], &[4, 0, 0, 0, 1, 2, 3, 4]] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        // Circles end.
        assert_eq!(check(&charsmap(&[(0, 1 << 10), (1 ^ a, step(a, 0))], b"")), Ok(()));
    }
}
