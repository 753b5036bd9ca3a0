//! Where a forward pass can be watched or changed: [`HookPoint`], with TransformerLens' names.

mod names;

pub(crate) use names::nearest;

/// A place inside one transformer block. The order of the variants is the order of execution.
///
/// Axes: `batch`, `pos`, `head` (query heads), `kv_head`, `d_model`, `d_head`, `d_mlp`, `q_pos`, `k_pos`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Site {
    /// `hook_resid_pre` `[batch, pos, d_model]`: the residual stream that enters the block.
    ResidPre,
    /// `hook_attn_in` `[batch, pos, head, d_model]`: `resid_pre` once for each head, read by its query, key and value (only where every
    /// head has its own key and value). Made only when tapped.
    AttnIn,
    /// `hook_q_input` `[batch, pos, head, d_model]`: `resid_pre` as the query of each head reads it. Made only when tapped.
    QInput,
    /// `hook_k_input` `[batch, pos, kv_head, d_model]`: `resid_pre` as each key reads it. Made only when tapped.
    KInput,
    /// `hook_v_input` `[batch, pos, kv_head, d_model]`: `resid_pre` as each value reads it. Made only when tapped.
    VInput,
    /// `ln1.hook_scale` `[batch, pos, 1]`: what the first norm divides by.
    Ln1Scale,
    /// `ln1.hook_normalized` `[batch, pos, d_model]`: after division, before gain and bias.
    Ln1Normalized,
    /// `attn.hook_q` `[batch, pos, head, d_head]`: queries, before rotation.
    Q,
    /// `attn.hook_k` `[batch, pos, kv_head, d_head]`: keys, before rotation.
    K,
    /// `attn.hook_v` `[batch, pos, kv_head, d_head]`: values.
    V,
    /// `attn.q_norm.hook_scale` `[batch, pos, head, 1]`: what the norm of queries divides by; `[batch, pos, 1]` where it is one norm
    /// over all heads.
    QNormScale,
    /// `attn.q_norm.hook_normalized` `[batch, pos, head, d_head]`: queries after division, before the gain.
    QNormNormalized,
    /// `attn.k_norm.hook_scale` `[batch, pos, kv_head, 1]`: what the norm of keys divides by; `[batch, pos, 1]` where it is one norm
    /// over all heads.
    KNormScale,
    /// `attn.k_norm.hook_normalized` `[batch, pos, kv_head, d_head]`: keys after division, before the gain.
    KNormNormalized,
    /// `attn.hook_rot_q` `[batch, pos, head, d_head]`: queries after rotary embedding (rotary families only).
    RotQ,
    /// `attn.hook_rot_k` `[batch, pos, kv_head, d_head]`: keys after rotary embedding (rotary families only).
    RotK,
    /// `attn.hook_attn_scores` `[batch, head, q_pos, k_pos]`: scaled and masked (-inf), before softmax.
    AttnScores,
    /// `attn.hook_pattern` `[batch, head, q_pos, k_pos]`: after softmax.
    Pattern,
    /// `attn.hook_z` `[batch, pos, head, d_head]`: pattern times values.
    Z,
    /// `attn.hook_result` `[batch, pos, head, d_model]`: each head's own contribution `z W_O`, computed only when tapped.
    Result,
    /// `ln1_post.hook_scale` `[batch, pos, 1]`: what the norm after attention divides by.
    Ln1PostScale,
    /// `ln1_post.hook_normalized` `[batch, pos, d_model]`: attention's output after division, before the gain.
    Ln1PostNormalized,
    /// `hook_attn_out` `[batch, pos, d_model]`: what attention adds to the stream.
    AttnOut,
    /// `hook_resid_mid` `[batch, pos, d_model]`: between attention and MLP.
    ResidMid,
    /// `hook_mlp_in` `[batch, pos, d_model]`: the stream as the MLP reads it, before its norm. Made only when tapped.
    MlpIn,
    /// `ln2.hook_scale` `[batch, pos, 1]`: what the second norm divides by.
    Ln2Scale,
    /// `ln2.hook_normalized` `[batch, pos, d_model]`: after division, before gain and bias.
    Ln2Normalized,
    /// `mlp.hook_pre` `[batch, pos, d_mlp]`: `x W_in + b_in`; in gated MLPs `x W_gate`.
    MlpPre,
    /// `mlp.hook_pre_linear` `[batch, pos, d_mlp]`: `x W_in` (gated MLPs only).
    MlpPreLinear,
    /// `mlp.hook_post` `[batch, pos, d_mlp]`: `act(pre)`; in gated MLPs `act(x W_gate) * (x W_in)`.
    MlpPost,
    /// `ln2_post.hook_scale` `[batch, pos, 1]`: what the norm after the MLP divides by.
    Ln2PostScale,
    /// `ln2_post.hook_normalized` `[batch, pos, d_model]`: the MLP's output after division, before the gain.
    Ln2PostNormalized,
    /// `hook_mlp_out` `[batch, pos, d_model]`: what the MLP adds to the stream.
    MlpOut,
    /// `hook_resid_post` `[batch, pos, d_model]`: the residual stream that leaves the block.
    ResidPost,
}

impl Site {
    /// Whether the value is a copy of the residual stream for one of its readers. Such values are made only for a tap that names them
    /// ([`Capture::all`](crate::Capture::all) does not); editing one changes what that reader reads, and nothing else.
    #[must_use]
    pub fn is_input_copy(self) -> bool {
        matches!(self, Self::AttnIn | Self::QInput | Self::KInput | Self::VInput | Self::MlpIn)
    }

    /// Whether it is a place in a norm that only some families have: of queries, of keys, after attention, after the MLP.
    pub(crate) fn is_extra_norm(self) -> bool {
        let of_heads = [Self::QNormScale, Self::QNormNormalized, Self::KNormScale, Self::KNormNormalized];
        let after = [Self::Ln1PostScale, Self::Ln1PostNormalized, Self::Ln2PostScale, Self::Ln2PostNormalized];
        of_heads.contains(&self) || after.contains(&self)
    }
}

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

    /// The axis of the value that counts heads, if it has one: 2 for `q`, `k`, `v`, their inputs, norms and rotations, `z` and `result`,
    /// 1 for `attn_scores` and `pattern`.
    #[must_use]
    pub fn head_axis(self) -> Option<usize> {
        match self.site()? {
            Site::Q | Site::K | Site::V | Site::RotQ | Site::RotK | Site::Z | Site::Result => Some(2),
            Site::AttnIn | Site::QInput | Site::KInput | Site::VInput => Some(2),
            Site::QNormNormalized | Site::KNormNormalized => Some(2),
            Site::AttnScores | Site::Pattern => Some(1),
            _ => None,
        }
    }

    /// Whether the heads of the value are key-value heads (fewer than query heads in grouped attention).
    #[must_use]
    pub fn is_per_kv_head(self) -> bool {
        let Some(site) = self.site() else { return false };
        matches!(
            site,
            Site::K | Site::V | Site::RotK | Site::KInput | Site::VInput | Site::KNormScale | Site::KNormNormalized
        )
    }

    /// The axis of the value that counts positions (query positions for `attn_scores` and `pattern`, as in TransformerLens).
    #[must_use]
    pub fn pos_axis(self) -> usize {
        match self.site() {
            Some(Site::AttnScores | Site::Pattern) => 2,
            _ => 1,
        }
    }
}
