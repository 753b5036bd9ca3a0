use std::sync::Arc;
use tensor_kernels::SparseRule;

/// What turns a feature's pre-activation `h = x~ W_enc + b_enc` into its activation `f`.
///
/// ```text
/// Relu      f = max(h, 0)
/// TopK      f = max(h, 0) for the k largest h of a token (equal h: the lower feature first), else 0
///           with rescale_by_decoder_norm: h is multiplied by |W_dec[j]| before, and f divided by it in decode
/// JumpRelu  f = max(h, 0) where h > threshold (strictly), else 0
/// Gated     f = max(x~ W_enc * exp(r_mag) + b_mag, 0) where h > 0, else 0       (b_enc is the gate's bias)
/// ```
///
/// Sources: Bricken et al. 2023; Gao et al. 2024 (arXiv 2406.04093); Rajamanoharan et al. 2024 (arXiv 2407.14435, 2404.16014).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// The standard SAE.
    Relu,
    /// The k strongest features of each token.
    TopK {
        /// How many features a token keeps at most.
        k: usize,
        /// Whether features compete by what they add to the output, as if the decoder rows had norm 1.
        rescale_by_decoder_norm: bool,
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
    /// The name that SAELens gives to this architecture.
    #[must_use]
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::Relu => "standard",
            Self::TopK { .. } => "topk",
            Self::JumpRelu { .. } => "jumprelu",
            Self::Gated { .. } => "gated",
        }
    }
}

/// An activation with what it needs per column worked out, for the columns of one encoder.
#[derive(Clone)]
pub(crate) enum Rule {
    Relu,
    TopK { k: usize, norms: Option<Arc<[f32]>> },
    JumpRelu { threshold: Arc<[f32]> },
    Gated { gain: Arc<[f32]>, b_mag: Arc<[f32]> },
}

/// The active features of one row while the columns are still being worked through, left to right.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) entries: Vec<(u32, f32)>,
    /// TopK: the k-th best value so far once there are k, else 0. Only larger ones can still enter.
    floor: f32,
}

impl Row {
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.floor = 0.0;
    }
}

/// Columns looked at together: most such groups hold no active feature and are passed over by one vectorised test.
const GROUP: usize = 16;

impl Rule {
    /// Adds the active features among the columns `first..first + dots.len()` to `row`. Columns must come left to right.
    ///
    /// A NaN pre-activation counts as active, so that it shows in the result.
    pub(crate) fn collect(&self, row: &mut Row, first: usize, dots: &[f32], bias: &[f32]) {
        let bias = &bias[first..first + dots.len()];
        match self {
            Self::Relu | Self::Gated { .. } => {
                for_open_groups(
                    dots,
                    bias,
                    |d, b| any(d, b, 0.0),
                    |at, dot| {
                        self.push(row, first + at, dot, bias[at]);
                    },
                );
            }
            Self::JumpRelu { threshold } => {
                let threshold = &threshold[first..first + dots.len()];
                let open = |d: &[f32], b: &[f32], t: &[f32]| {
                    d.iter().zip(b).zip(t).fold(false, |open, ((d, b), t)| open | above(d + b, *t))
                };
                let groups = dots.chunks(GROUP).zip(bias.chunks(GROUP)).zip(threshold.chunks(GROUP));
                for (group, ((d, b), t)) in groups.enumerate() {
                    if open(d, b, t) {
                        for (at, (&dot, &b)) in d.iter().zip(b).enumerate() {
                            self.push(row, first + group * GROUP + at, dot, b);
                        }
                    }
                }
            }
            Self::TopK { k, norms: None } => {
                for (group, (d, b)) in dots.chunks(GROUP).zip(bias.chunks(GROUP)).enumerate() {
                    if any(d, b, row.floor) {
                        for (at, (dot, b)) in d.iter().zip(b).enumerate() {
                            compete(row, *k, (first + group * GROUP + at) as u32, dot + b);
                        }
                    }
                }
            }
            Self::TopK { k, norms: Some(norms) } => {
                for (at, ((dot, b), norm)) in dots.iter().zip(bias).zip(&norms[first..]).enumerate() {
                    compete(row, *k, (first + at) as u32, (dot + b) * norm);
                }
            }
        }
    }

    /// Puts the entries of a row into their final order and number.
    pub(crate) fn finish(&self, row: &mut Row) {
        if let Self::TopK { k, .. } = self {
            keep_best(row, *k);
            row.entries.sort_unstable_by_key(|entry| entry.0);
        }
    }

    /// The same rule as the kernels name it.
    pub(crate) fn for_kernels(&self) -> SparseRule<'_> {
        match self {
            Self::Relu => SparseRule::Relu,
            Self::TopK { k, norms } => SparseRule::TopK { k: *k, norms: norms.as_deref() },
            Self::JumpRelu { threshold } => SparseRule::JumpRelu { threshold },
            Self::Gated { gain, b_mag } => SparseRule::Gated { gain, b_mag },
        }
    }

    /// The activation of one column, for rules whose columns are independent. `TopK` is never asked.
    pub(crate) fn value(&self, column: usize, dot: f32, bias: f32) -> f32 {
        let pre = dot + bias;
        let (open, value) = match self {
            Self::Relu | Self::TopK { .. } => (true, pre),
            Self::JumpRelu { threshold } => (above(pre, threshold[column]), pre),
            Self::Gated { gain, b_mag } => (above(pre, 0.0), dot * gain[column] + b_mag[column]),
        };
        if open && above(value, 0.0) { value } else { 0.0 }
    }

    /// What the activation function of one column reads; of a Gated SAE the magnitude.
    pub(crate) fn pre_activation(&self, column: usize, dot: f32, bias: f32) -> f32 {
        match self {
            Self::Gated { gain, b_mag } => dot * gain[column] + b_mag[column],
            Self::Relu | Self::TopK { .. } | Self::JumpRelu { .. } => dot + bias,
        }
    }

    fn push(&self, row: &mut Row, column: usize, dot: f32, bias: f32) {
        let value = self.value(column, dot, bias);
        if value != 0.0 {
            row.entries.push((column as u32, value));
        }
    }
}

/// `value > limit`, and true for NaN.
fn above(value: f32, limit: f32) -> bool {
    let at_most = value <= limit;
    !at_most
}

fn any(dots: &[f32], bias: &[f32], limit: f32) -> bool {
    dots.iter().zip(bias).fold(false, |open, (d, b)| open | above(d + b, limit))
}

fn for_open_groups(
    dots: &[f32],
    bias: &[f32],
    open: impl Fn(&[f32], &[f32]) -> bool,
    mut each: impl FnMut(usize, f32),
) {
    for (group, (d, b)) in dots.chunks(GROUP).zip(bias.chunks(GROUP)).enumerate() {
        if open(d, b) {
            for (at, &dot) in d.iter().enumerate() {
                each(group * GROUP + at, dot);
            }
        }
    }
}

/// Lets a feature into the row if it can still be among the k best. Strictly above the floor: of equal values the one
/// that came first, the lower feature, stays.
fn compete(row: &mut Row, k: usize, feature: u32, value: f32) {
    if above(value, row.floor) {
        row.entries.push((feature, value));
        if row.entries.len() >= 2 * k + GROUP {
            keep_best(row, k);
        }
    }
}

/// Keeps the k largest values, of equal values the lower features.
fn keep_best(row: &mut Row, k: usize) {
    if row.entries.len() < k {
        return;
    }
    // NaN is the largest in this order, as in torch.topk.
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0));
    let (_, last, _) = row.entries.select_nth_unstable_by(k - 1, order);
    row.floor = if last.1.is_nan() { f32::INFINITY } else { last.1 };
    row.entries.truncate(k);
}
