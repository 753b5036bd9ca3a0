use crate::sae_hook_point::{SaeHookPoint, site_names};
use model_hooks::HookPoint;
use std::fmt::Display;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with SAEs inside a forward pass. All but a few are found while the splice is built, before anything runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not the name of a place inside an SAE.
    #[error("unknown place in an SAE `{name}`; expected a hook point followed by one of: {}", site_names())]
    UnknownSite {
        /// The name as given.
        name: String,
    },
    /// Not the name of a feature of an SAE.
    #[error(
        "not the name of a feature: `{name}`; expected a hook point, a slash and a number, such as `blocks.8.hook_resid_pre/1234`"
    )]
    BadFeatureName {
        /// The name as given.
        name: String,
    },
    /// A second SAE that would write where one already does.
    #[error("two SAEs would write `{hook}`; splice one of them, or run the second as a tap of its own after the first")]
    TwoAtOneHook {
        /// The hook point.
        hook: HookPoint,
    },
    /// A transcoder whose output hook comes before its input hook.
    #[error("the output hook `{output}` comes before the input hook `{input}`")]
    OutputBeforeInput {
        /// Where the input is read.
        input: HookPoint,
        /// Where the output would be written.
        output: HookPoint,
    },
    /// A hook point whose values are not one vector per position.
    #[error("values at `{hook}` are not vectors per position, so no SAE fits there")]
    NotVectors {
        /// The hook point.
        hook: HookPoint,
    },
    /// The SAE's width is not the hook point's.
    #[error("the SAE's {side} is {found}, but vectors at `{hook}` have width {expected}{hint}")]
    Width {
        /// The hook point.
        hook: HookPoint,
        /// `d_in` or `d_out`.
        side: &'static str,
        /// The hook point's width.
        expected: usize,
        /// The SAE's.
        found: usize,
        /// What may have been meant, or nothing.
        hint: &'static str,
    },
    /// A head of a value that has no heads, or not so many.
    #[error("`{hook}` has no head {head}; it has {heads}")]
    NoSuchHead {
        /// The hook point.
        hook: HookPoint,
        /// The head that was asked for.
        head: usize,
        /// How many there are.
        heads: usize,
    },
    /// An edit or a capture where no SAE writes.
    #[error("no SAE writes `{hook}`; SAEs write: {held}")]
    NoSaeAt {
        /// The hook point.
        hook: HookPoint,
        /// Where SAEs do.
        held: String,
    },
    /// The error of an SAE that is spliced without its error term.
    #[error("`{point}` does not exist: this SAE is spliced without its error term")]
    NoErrorTerm {
        /// The place.
        point: SaeHookPoint,
    },
    /// A place that cannot be edited as a tensor.
    #[error("`{point}` cannot be edited as a tensor; {hint}")]
    NotEditable {
        /// The place.
        point: SaeHookPoint,
        /// What can be done instead.
        hint: &'static str,
    },
    /// A value was asked for that was not captured.
    #[error("`{point}` was not captured; held: {held}")]
    NotCaptured {
        /// The place.
        point: SaeHookPoint,
        /// What is held.
        held: String,
    },
    /// An edit at positions that are not there.
    #[error(
        "a feature edit at `{hook}` ends at position {end}, but there are {len}; leave the end open for positions yet to come"
    )]
    NoSuchPosition {
        /// The hook point.
        hook: HookPoint,
        /// The edit's end.
        end: usize,
        /// Positions so far.
        len: usize,
    },
    /// An edit gave back something of another shape.
    #[error("the edit at `{point}` returned {found}, expected {expected}")]
    EditChangedShape {
        /// The place.
        point: SaeHookPoint,
        /// What went in.
        expected: String,
        /// What came back.
        found: String,
    },
    /// A transcoder's output is due, but its input has not been seen in this run.
    #[error("the transcoder at `{output}` has not seen its input `{input}` in this run")]
    NoInput {
        /// The input hook.
        input: HookPoint,
        /// The output hook.
        output: HookPoint,
    },
    /// A value whose first axes are not the batch and positions of the tokens.
    #[error("the value at `{hook}` has shape {found:?}, expected {expected}")]
    Shape {
        /// The hook point.
        hook: HookPoint,
        /// The shape in words.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Gradients would be cut: sparse codes are not differentiated.
    #[error("gradients are tracked through `{hook}`, but an SAE is spliced there, which would cut them")]
    Gradients {
        /// The hook point.
        hook: HookPoint,
    },
    /// An attribution of more rows of tokens than one.
    #[error("batch of an attribution has shape {found:?}, expected [1, pos], one prompt")]
    NotOnePrompt {
        /// The shape of the tokens, `[batch, pos]`.
        found: [usize; 2],
    },
    /// A feature that the SAE does not have.
    #[error("feature {feature} is outside this SAE, whose features are 0..{d_sae}")]
    FeatureRange {
        /// The feature.
        feature: u32,
        /// Number of features of the SAE.
        d_sae: usize,
    },
    /// An option has a value that makes no sense.
    #[error("option `{option}` is {found}, expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The SAE refused. (The errors of the workspace's crates are boxed: they are several times as large as all the others.)
    #[error(transparent)]
    Sae(Box<sae_core::Error>),
    /// The filter of tokens refused.
    #[error(transparent)]
    Store(Box<activation_store::Error>),
    /// The model refused.
    #[error(transparent)]
    Model(Box<model_hooks::Error>),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl From<sae_core::Error> for Error {
    fn from(error: sae_core::Error) -> Self {
        Self::Sae(Box::new(error))
    }
}

impl From<activation_store::Error> for Error {
    fn from(error: activation_store::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<model_hooks::Error> for Error {
    fn from(error: model_hooks::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

/// Names for an error, comma between them.
pub(crate) fn listed(names: impl Iterator<Item = impl Display>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}
