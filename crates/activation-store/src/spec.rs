//! What an activation store delivers: [`ActivationSpec`].

use crate::{Error, Result, TokenFilter};
use model_hooks::{HookPoint, ModelShape, NormSite, Site};

/// A hook point to read, or one head of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookChoice {
    /// The place.
    pub point: HookPoint,
    /// One head of a per-head place; without it the heads lie side by side in a row.
    pub head: Option<usize>,
}

impl From<HookPoint> for HookChoice {
    fn from(point: HookPoint) -> Self {
        Self { point, head: None }
    }
}

/// A hook point as rows: what is read, and how wide a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookRows {
    /// The place.
    pub point: HookPoint,
    /// The one head that is read, if only one is.
    pub head: Option<usize>,
    /// Numbers in a row.
    pub width: usize,
}

impl HookRows {
    /// The rows of a hook point in a model of this shape.
    ///
    /// # Errors
    /// [`Error::NotRows`] for a place without one row for each position (scores, patterns), [`Error::Option`] for a head that
    /// is not there.
    pub fn of(choice: HookChoice, shape: &ModelShape) -> Result<Self> {
        let HookChoice { point, head } = choice;
        let (heads, width) = row_shape(point, shape).ok_or(Error::NotRows { hook: point })?;
        let width = match (head, heads) {
            (None, None) => width,
            (None, Some(heads)) => heads * width,
            (Some(head), Some(heads)) if head < heads => width,
            (Some(head), heads) => {
                return Err(Error::Option {
                    option: "hook_head_index",
                    found: head.to_string(),
                    expected: match heads {
                        Some(heads) => format!("less than the {heads} heads of {point}"),
                        None => format!("none, since {point} has no heads"),
                    },
                });
            }
        };
        Ok(Self { point, head, width })
    }
}

impl std::fmt::Display for HookRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.head {
            None => self.point.fmt(f),
            Some(head) => write!(f, "{} (head {head})", self.point),
        }
    }
}

/// Number of heads, if there are any, and the width of one of them; `None` where positions are not rows.
fn row_shape(point: HookPoint, shape: &ModelShape) -> Option<(Option<usize>, usize)> {
    Some(match point {
        HookPoint::Embed | HookPoint::PosEmbed | HookPoint::FinalNorm(NormSite::Normalized) => (None, shape.d_model),
        HookPoint::FinalNorm(NormSite::Scale) => (None, 1),
        HookPoint::Logits => (None, shape.d_vocab),
        HookPoint::Block { site, .. } => match site {
            Site::ResidPre | Site::ResidMid | Site::ResidPost | Site::AttnOut | Site::MlpOut => (None, shape.d_model),
            Site::Ln1Normalized | Site::Ln2Normalized => (None, shape.d_model),
            Site::Ln1Scale | Site::Ln2Scale => (None, 1),
            Site::Q | Site::RotQ | Site::Z => (Some(shape.n_heads), shape.d_head),
            Site::K | Site::V | Site::RotK => (Some(shape.n_kv_heads), shape.d_head),
            Site::Result => (Some(shape.n_heads), shape.d_model),
            Site::MlpPre | Site::MlpPreLinear | Site::MlpPost => (None, shape.d_mlp),
            _ => return None,
        },
        _ => return None,
    })
}

/// In which order rows leave a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// Drawn uniformly among the rows in the ring; the same seed gives the same batches.
    Seeded(u64),
    /// In the order of the documents, through a buffer of one batch.
    Unshuffled,
}

/// What a source of activations delivers: from where, which positions, in what order, how many at a time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ActivationSpec {
    /// Name of the model.
    pub model: String,
    /// The hook points, in the order of [`crate::ActivationBatch::rows`].
    pub hooks: Vec<HookRows>,
    /// Tokens in a row of tokens.
    pub context_size: usize,
    /// The positions of a row that are kept, ascending.
    pub positions: Vec<u32>,
    /// Which tokens are delivered.
    pub filter: TokenFilter,
    /// Rows of tokens in one forward pass.
    pub store_batch_size_prompts: usize,
    /// Rows in a batch, at most.
    pub batch_rows: usize,
    /// Slots of the ring; 0 for a source without one.
    pub ring_slots: usize,
    /// The order.
    pub shuffle: Shuffle,
    /// SAELens' mixing fraction, where its schedule is followed.
    pub mix_fraction: Option<f64>,
}

impl ActivationSpec {
    /// A source of one's own: these hooks, at most `batch_rows` rows at a time, in order, every token; contexts of one token.
    #[must_use]
    pub fn new(model: impl Into<String>, hooks: Vec<HookRows>, batch_rows: usize) -> Self {
        Self {
            model: model.into(),
            hooks,
            context_size: 1,
            positions: vec![0],
            filter: TokenFilter::everything(),
            store_batch_size_prompts: batch_rows,
            batch_rows,
            ring_slots: 0,
            shuffle: Shuffle::Unshuffled,
            mix_fraction: None,
        }
    }

    /// Numbers in a row, over all hooks.
    #[must_use]
    pub fn width(&self) -> usize {
        self.hooks.iter().map(|hook| hook.width).sum()
    }
}

/// Upper bound of what a store holds in memory beside the model, the tokenizer and the documents, in bytes:
///
/// ```text
/// ring_slots * (4 * width + 32)               the ring: rows, addresses, tokens, the permutation
/// + 3 * prompts * context * (4 * width + 32)  one forward pass's rows: whole, cut to what is kept, what waits
/// + batch * (4 * width + 32)                  the batch being handed out
/// ```
///
/// The forward pass's own intermediate values come on top; rows of tokens are kept as [`crate::KeepRows`] says.
#[must_use]
pub fn memory_bytes(spec: &ActivationSpec) -> u64 {
    let row = 4 * spec.width() as u64 + 32;
    let chunk = (spec.store_batch_size_prompts * spec.context_size) as u64;
    spec.ring_slots as u64 * row + 3 * chunk * row + spec.batch_rows as u64 * row
}
