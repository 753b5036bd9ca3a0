//! The table of all places in a block: name, axes, formula. The enum, its documentation, the names and `docs/hooks.md` come from it.

macro_rules! sites {
    ($($(#[$more:meta])* $site:ident $name:literal [$first:tt $($axis:tt)*] $formula:literal;)+) => {
        /// A place inside one transformer block. The order of the variants is the order of execution.
        ///
        /// Axes: `batch`, `pos`, `head` (query heads), `kv_head`, `d_model`, `d_head`, `d_mlp`, `q_pos`, `k_pos`.
        /// The sites of each family are listed in `docs/hooks.md` of the repository.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Site {
            $(
                #[doc = concat!("`", $name, "` `[", stringify!($first), $(", ", stringify!($axis),)* "]`: ", $formula, ".")]
                $(#[$more])*
                $site,
            )+
        }

        /// Every place with its canonical name, its axes and its formula, in execution order.
        const SITES: [(Site, &str, &[&str], &str); [$($name),+].len()] =
            [$((Site::$site, $name, &[stringify!($first) $(, stringify!($axis))*], $formula)),+];
    };
}

sites! {
    ResidPre "hook_resid_pre" [batch pos d_model] "the residual stream that enters the block";
    /// Made only when tapped, and only where every head has its own key and value. What an edit returns goes into `hook_q_input`,
    /// `hook_k_input` and `hook_v_input`.
    AttnIn "hook_attn_in" [batch pos head d_model] "`resid_pre` once for each head, as its query, key and value read it";
    /// Made only when tapped, beside the path. Where it is edited, `q[h] = norm(q_input[h]) W_Q[h] + b_Q[h]`: each head has a norm of
    /// its own, while the points of `ln1` show the stream that was not split (and cannot be edited in the same run).
    QInput "hook_q_input" [batch pos head d_model] "`resid_pre` as the query of each head reads it";
    /// Made only when tapped; edited as `hook_q_input` is.
    KInput "hook_k_input" [batch pos kv_head d_model] "`resid_pre` as each key reads it";
    /// Made only when tapped; edited as `hook_q_input` is.
    VInput "hook_v_input" [batch pos kv_head d_model] "`resid_pre` as each value reads it";
    Ln1Scale "ln1.hook_scale" [batch pos 1]
        "`sqrt(mean((x - m)^2) + eps)` of `resid_pre`; `m` is the mean in layer norms, 0 in RMS norms";
    Ln1Normalized "ln1.hook_normalized" [batch pos d_model] "`(x - m) / scale`, before gain and bias";
    Q "attn.hook_q" [batch pos head d_head] "queries `x W_Q + b_Q`, before their norm and rotation";
    K "attn.hook_k" [batch pos kv_head d_head] "keys `x W_K + b_K`, before their norm and rotation";
    V "attn.hook_v" [batch pos kv_head d_head] "values `x W_V + b_V`";
    /// `[batch, pos, 1]` where it is one norm over all heads (OLMo 2).
    QNormScale "attn.q_norm.hook_scale" [batch pos head 1] "`sqrt(mean(q^2) + eps)`";
    QNormNormalized "attn.q_norm.hook_normalized" [batch pos head d_head] "`q / scale`, before the gain";
    /// `[batch, pos, 1]` where it is one norm over all heads (OLMo 2).
    KNormScale "attn.k_norm.hook_scale" [batch pos kv_head 1] "`sqrt(mean(k^2) + eps)`";
    KNormNormalized "attn.k_norm.hook_normalized" [batch pos kv_head d_head] "`k / scale`, before the gain";
    RotQ "attn.hook_rot_q" [batch pos head d_head] "queries, their pairs turned by the angles of their position";
    RotK "attn.hook_rot_k" [batch pos kv_head d_head] "keys, their pairs turned by the angles of their position";
    AttnScores "attn.hook_attn_scores" [batch head q_pos k_pos]
        "`q k^T / divisor`, soft-capped where the family does; -inf where the query does not see the key";
    Pattern "attn.hook_pattern" [batch head q_pos k_pos] "`softmax(scores)`; zeros for a query that sees nothing";
    Z "attn.hook_z" [batch pos head d_head] "`pattern v`";
    /// Computed only when tapped, beside the path; where it is edited, the edited contributions are summed instead.
    Result "attn.hook_result" [batch pos head d_model] "`z W_O` of each head by itself";
    Ln1PostScale "ln1_post.hook_scale" [batch pos 1] "`sqrt(mean(x^2) + eps)` of attention's output";
    Ln1PostNormalized "ln1_post.hook_normalized" [batch pos d_model] "attention's output over its scale, before the gain";
    AttnOut "hook_attn_out" [batch pos d_model] "`sum_h result[h] + b_O` (through `ln1_post` where there is one): what is added to the stream";
    ResidMid "hook_resid_mid" [batch pos d_model] "`resid_pre + attn_out`";
    /// Made only when tapped.
    MlpIn "hook_mlp_in" [batch pos d_model] "the stream as the MLP reads it, before its norm";
    Ln2Scale "ln2.hook_scale" [batch pos 1] "`sqrt(mean((x - m)^2) + eps)` of what the MLP reads";
    Ln2Normalized "ln2.hook_normalized" [batch pos d_model] "`(x - m) / scale`, before gain and bias";
    /// What the MLP as a module is given, which is not [`MlpIn`](Self::MlpIn): that is the stream before the norm. Made only when tapped. A
    /// gain that is folded into `W_in` (`fold_ln`) is not in it.
    MlpInput "mlp.hook_in" [batch pos d_model] "what `W_in` and `W_gate` read: the norm's output with its gain and bias";
    MlpPre "mlp.hook_pre" [batch pos d_mlp] "`x W_in + b_in`; in gated MLPs `x W_gate`";
    MlpPreLinear "mlp.hook_pre_linear" [batch pos d_mlp] "`x W_in` (gated MLPs)";
    MlpPost "mlp.hook_post" [batch pos d_mlp] "`act(pre)`; in gated MLPs `act(pre) * pre_linear`";
    Ln2PostScale "ln2_post.hook_scale" [batch pos 1] "`sqrt(mean(x^2) + eps)` of the MLP's output";
    Ln2PostNormalized "ln2_post.hook_normalized" [batch pos d_model] "the MLP's output over its scale, before the gain";
    MlpOut "hook_mlp_out" [batch pos d_model] "`post W_out + b_out` (through `ln2_post` where there is one): what is added to the stream";
    ResidPost "hook_resid_post" [batch pos d_model] "the residual stream that leaves the block";
}

impl Site {
    /// Every place in a block, in execution order.
    pub fn all() -> impl Iterator<Item = Self> {
        SITES.iter().map(|&(site, ..)| site)
    }

    /// The name inside the block: `hook_resid_pre`, `attn.hook_q` ...
    #[must_use]
    pub fn name(self) -> &'static str {
        // The table lists every variant in order, as the enum is made from it.
        SITES[self as usize].1
    }

    /// The names of the value's axes, in the glossary's words: `["batch", "pos", "d_model"]`.
    #[must_use]
    pub fn axes(self) -> &'static [&'static str] {
        SITES[self as usize].2
    }

    /// The formula of the value, in one line.
    #[must_use]
    pub fn formula(self) -> &'static str {
        SITES[self as usize].3
    }

    /// Whether the value is a copy, for one of its readers, of the residual stream or its norm. Such values are made only for a tap that names them
    /// ([`Capture::all`](crate::Capture::all) does not); editing one changes what that reader reads, and nothing else.
    #[must_use]
    pub fn is_input_copy(self) -> bool {
        matches!(self, Self::AttnIn | Self::QInput | Self::KInput | Self::VInput | Self::MlpIn | Self::MlpInput)
    }

    /// Whether it is a place in a norm that only some families have: of queries, of keys, after attention, after the MLP.
    pub(crate) fn is_extra_norm(self) -> bool {
        let of_heads = [Self::QNormScale, Self::QNormNormalized, Self::KNormScale, Self::KNormNormalized];
        let after = [Self::Ln1PostScale, Self::Ln1PostNormalized, Self::Ln2PostScale, Self::Ln2PostNormalized];
        of_heads.contains(&self) || after.contains(&self)
    }
}
