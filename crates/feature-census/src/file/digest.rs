//! Digest of the content of a file: detects damage that leaves a readable census.

use crate::tally::FeatureParts;
use activation_store::sample_hash;

/// `state = mix(state ^ address_key(word))` over all words, in order.
pub(super) struct Digest(u64);

impl Digest {
    /// Starts with the header.
    pub(super) fn new(header: &str) -> Self {
        let mut digest = Self(header.len() as u64);
        header.bytes().for_each(|byte| digest.word(u64::from(byte)));
        digest
    }

    fn word(&mut self, word: u64) {
        self.0 = sample_hash::hash(self.0, sample_hash::address_key(word));
    }

    fn wide(&mut self, word: u128) {
        self.word((word >> 64) as u64);
        self.word(word as u64);
    }

    /// Goes on with a feature and the edges in whose documents it fired.
    pub(super) fn feature(&mut self, parts: &FeatureParts, edges: &[u32]) {
        let FeatureParts { count, sum, squares, min, max, documents, histogram, top, samples, together } = parts;
        [*count, *documents].into_iter().for_each(|word| self.word(word));
        [*sum as u128, *squares].into_iter().for_each(|word| self.wide(word));
        [min, max].into_iter().for_each(|value| self.word(u64::from(value.to_bits())));
        for &(bin, count) in histogram {
            self.word(u64::from(bin));
            self.word(count);
        }
        for kept in top.iter().chain(samples.iter().map(|(_, kept)| kept)) {
            self.word(kept.address);
            self.word(u64::from(kept.value.to_bits()) << 32 | u64::from(kept.token));
        }
        together.iter().for_each(|&both| self.word(both));
        edges.iter().for_each(|&edge| self.word(u64::from(edge)));
    }

    /// The sum, as the file has it.
    pub(super) fn finish(self) -> String {
        format!("{:016x}", self.0)
    }
}
