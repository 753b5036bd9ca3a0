use std::sync::Arc;

/// Activation function: turns a feature's pre-activation `h = x~ W_enc + b_enc` into its activation `f`.
///
/// ```text
/// Relu        f = max(h, 0)
/// TopK        f = max(h, 0) for the k largest h of a token (equal h: the lower feature first), else 0
/// AbsTopK     f = h for the k largest |h| of a token, else 0                     features fire in both directions
/// SignedTopK  f = h for the k largest h of a token, negative ones too, else 0
/// BatchTopK   f = max(h, 0) for the int(k * n) largest h > 0 of all n tokens of the batch, else 0
/// GroupMax    f = max(h, 0) for the largest h of each of k groups of d_sae/k neighbors, else 0
/// JumpRelu    f = max(h, 0) where h > threshold (strictly), else 0
/// Gated       f = max(x~ W_enc * exp(r_mag) + b_mag, 0) where h > 0, else 0      (b_enc is the gate's bias)
///
/// with rescale_by_decoder_norm: h is multiplied by |W_dec[j]| before features compete, and f divided by it in decode
/// ```
///
/// Equal values that compete for a last place: the lower feature wins (of a batch, the earlier token).
///
/// Sources: Bricken et al. 2023; Gao et al. 2024 (arXiv 2406.04093); Rajamanoharan et al. 2024 (arXiv 2407.14435, 2404.16014);
/// Bussmann et al. 2024 (arXiv 2412.06410, BatchTopK); arXiv 2510.00404 (AbsTopK). `SignedTopK` is the TopK of circuit-tracer, and of
/// OpenAI's sparse_autoencoder where nothing follows the choice; `GroupMax` is sparsify's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// The standard SAE.
    Relu,
    /// The k strongest features of each token.
    TopK {
        /// Maximum number of active features per token.
        k: usize,
        /// Whether features compete by what they add to the output, as if the decoder rows had norm 1.
        rescale_by_decoder_norm: bool,
    },
    /// The k features of each token that are strongest in either direction; activations keep their sign.
    AbsTopK {
        /// Maximum number of active features per token.
        k: usize,
        /// As for [`TopK`](Self::TopK).
        rescale_by_decoder_norm: bool,
    },
    /// The k largest pre-activations of each token as they are, negative ones too.
    SignedTopK {
        /// Maximum number of active features per token.
        k: usize,
    },
    /// The strongest features of a whole batch: BatchTopK and matryoshka SAEs as they are trained (published ones are
    /// [`JumpRelu`](Self::JumpRelu)).
    ///
    /// A token's features depend on the other tokens of the call: the same token in another batch has others, and so has a batch that is
    /// encoded in two halves.
    BatchTopK {
        /// Average number of active features per token.
        k: f64,
        /// As for [`TopK`](Self::TopK).
        rescale_by_decoder_norm: bool,
    },
    /// The strongest feature of each group of neighbors.
    GroupMax {
        /// Number of groups; divides `d_sae`.
        k: usize,
    },
    /// A threshold per feature. BatchTopK and matryoshka SAEs are saved as this.
    JumpRelu {
        /// `[d_sae]`; negative thresholds are allowed and act as 0.
        threshold: Arc<[f32]>,
    },
    /// One product, read twice: a gate that opens and a magnitude that passes.
    Gated {
        /// `[d_sae]`, the logarithm of the magnitude path's gain.
        r_mag: Arc<[f32]>,
        /// `[d_sae]`, the magnitude path's bias.
        b_mag: Arc<[f32]>,
    },
}

impl Activation {
    /// The name that SAELens gives to an SAE with this activation; ours for those that it does not have (`signed_topk`, `groupmax`).
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::Relu => "standard",
            Self::TopK { .. } => "topk",
            Self::AbsTopK { .. } => "abstopk",
            Self::SignedTopK { .. } => "signed_topk",
            Self::BatchTopK { .. } => "batchtopk",
            Self::GroupMax { .. } => "groupmax",
            Self::JumpRelu { .. } => "jumprelu",
            Self::Gated { .. } => "gated",
        }
    }

    /// Whether features compete by what they add to the output.
    #[must_use]
    pub fn rescales_by_decoder_norm(&self) -> bool {
        match self {
            Self::TopK { rescale_by_decoder_norm, .. }
            | Self::AbsTopK { rescale_by_decoder_norm, .. }
            | Self::BatchTopK { rescale_by_decoder_norm, .. } => *rescale_by_decoder_norm,
            _ => false,
        }
    }
}
