/// What stops a preflight itself. A pairing that is wrong is not an error but a [`PreflightReport`](super::PreflightReport).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not run the tokens.
    #[error("the model failed on the sample: {0}")]
    Model(#[from] model_hooks::Error),
    /// The SAE could not read the activations.
    #[error("the SAE failed on the sample: {0}")]
    Coder(#[from] sae_core::Error),
    /// The filter of tokens, or the tokens.
    #[error("the sample's tokens: {0}")]
    Tokens(#[from] activation_store::Error),
    /// The tensor library's.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// With this module's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
