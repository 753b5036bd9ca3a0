//! [`HookPoint`]: the places where a forward pass can be captured or edited, with TransformerLens' names.

mod modules;
mod names;
mod rows;
mod sites;

pub(crate) use modules::Module;
pub(crate) use names::{known_to, nearest};
pub use rows::{HookRows, HookSelector};
pub use sites::Site;

/// A place in the final norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NormSite {
    /// `ln_final.hook_scale` `[batch, pos, 1]`.
    Scale,
    /// `ln_final.hook_normalized` `[batch, pos, d_model]`: before gain and bias.
    Normalized,
}

/// A place in the forward pass. `Ord` is execution order; `Display` and `FromStr` are TransformerLens' names.
///
/// ```
/// use model_hooks::{HookPoint, Site};
/// let at: HookPoint = "blocks.7.hook_resid_pre".parse()?;
/// assert_eq!(at, HookPoint::Block { layer: 7, site: Site::ResidPre });
/// assert_eq!(at, "blocks.7.hook_in".parse()?); // the name of newer versions
/// assert!("blocks.7.hook_resid_prae".parse::<HookPoint>().unwrap_err().to_string().contains("blocks.7.hook_resid_pre"));
/// # Ok::<(), model_hooks::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HookPoint {
    /// `hook_embed` `[batch, pos, d_model]`: token embeddings.
    Embed,
    /// `hook_pos_embed` `[batch, pos, d_model]`: absolute position embeddings (families that have them).
    PosEmbed,
    /// `blocks.{layer}.…`
    Block {
        /// Index of the block, from 0.
        layer: u16,
        /// The place inside it.
        site: Site,
    },
    /// `ln_final.…`
    FinalNorm(NormSite),
    /// `logits` `[batch, pos, d_vocab]` (TransformerLens returns them; newer versions call the point `unembed.hook_out`).
    Logits,
}

impl HookPoint {
    /// The block of a point inside one.
    #[must_use]
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Block { layer, .. } => Some(usize::from(layer)),
            _ => None,
        }
    }

    /// The place inside the block, for a point inside one.
    #[must_use]
    pub fn site(self) -> Option<Site> {
        match self {
            Self::Block { site, .. } => Some(site),
            _ => None,
        }
    }

    /// The names of the value's axes, in the glossary's words: `["batch", "pos", "d_model"]`.
    #[must_use]
    pub fn axes(self) -> &'static [&'static str] {
        match self {
            Self::Embed | Self::PosEmbed | Self::FinalNorm(NormSite::Normalized) => &["batch", "pos", "d_model"],
            Self::Block { site, .. } => site.axes(),
            Self::FinalNorm(NormSite::Scale) => &["batch", "pos", "1"],
            Self::Logits => &["batch", "pos", "d_vocab"],
        }
    }

    /// The axis of the value that counts heads, if it has one: 2 for `q`, `k`, `v`, their inputs, norms and rotations, `z` and `result`,
    /// 1 for `attn_scores` and `pattern`. (The one norm that OLMo 2 takes over all heads has a scale without that axis.)
    #[must_use]
    pub fn head_axis(self) -> Option<usize> {
        self.axes().iter().position(|axis| matches!(*axis, "head" | "kv_head"))
    }

    /// Whether the heads of the value are key-value heads (fewer than query heads in grouped attention).
    #[must_use]
    pub fn is_per_kv_head(self) -> bool {
        self.axes().contains(&"kv_head")
    }

    /// The axis of the value that counts positions (query positions for `attn_scores` and `pattern`, as in TransformerLens).
    #[must_use]
    pub fn pos_axis(self) -> usize {
        self.axes().iter().position(|axis| matches!(*axis, "pos" | "q_pos")).unwrap_or(1)
    }
}
