use activation_store::ExclusionCounts;

/// What the folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeuronpediaReport {
    /// Rows of tokens.
    pub rows: u64,
    /// Tokens in a row.
    pub context: usize,
    /// Files of features.
    pub files: usize,
    /// Features that fire, and how often all of them do.
    pub alive: usize,
    /// Activations that are not 0.
    pub activations: u64,
    /// How many of them are below 0: none but of SAEs with signed codes.
    pub negative: u64,
    /// Tokens on which activations do not count.
    pub excluded: ExclusionCounts,
}
