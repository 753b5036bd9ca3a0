use activation_store::TokenPos;

/// Why an evaluation cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// There is nothing to average over.
    #[error("no token counts: {rows} rows with {tokens} tokens, {excluded} of them excluded")]
    NoTokens {
        /// Rows of tokens.
        rows: u64,
        /// Their tokens.
        tokens: u64,
        /// Those that are left out.
        excluded: u64,
    },
    /// There are tokens, but none that predicts another.
    #[error("no counted token is followed by another, so there is no loss: {rows} rows, {tokens} counted tokens")]
    NoPredictions {
        /// Rows of tokens.
        rows: u64,
        /// Counted tokens.
        tokens: u64,
    },
    /// A number is NaN or infinite.
    #[error("{what} at row {}, position {} is {value}; every value must be finite", at.row, at.pos)]
    NotFinite {
        /// What it is.
        what: &'static str,
        /// The value.
        value: f64,
        /// The token.
        at: TokenPos,
    },
    /// More would be held in memory than the option allows.
    #[error(
        "after {rows} rows, {what} take {bytes} bytes, allowed are {allowed}: look at fewer rows (`rows`), set `mean_ablation` to false, \
         or raise `held_bytes`"
    )]
    Held {
        /// What is held.
        what: &'static str,
        /// Rows of tokens that have been read.
        rows: u64,
        /// What they would take.
        bytes: u64,
        /// [`EvalOptions::held_bytes`](super::EvalOptions::held_bytes).
        allowed: u64,
    },
    /// The SAE's width is not that of the hook point.
    #[error("the {side} of the SAE is {found}, but `{hook}` has width {expected}")]
    Width {
        /// "d_in" or "d_out".
        side: &'static str,
        /// The hook point.
        hook: String,
        /// Its width.
        expected: usize,
        /// The SAE's.
        found: usize,
    },
    /// The SAE writes before it has read.
    #[error("the output hook `{output}` comes before the input hook `{input}`")]
    Order {
        /// Where the SAE reads.
        input: String,
        /// Where it writes.
        output: String,
    },
}
