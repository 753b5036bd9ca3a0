//! One SAE with its place in a forward pass, and the hook points that a coder reads and writes.

use crate::error::Result;
use activation_store::{ResolvedFilter, TokenFilter, TokenPos};
use model_hooks::{HookPoint, HookSelector, HookedModel, Tokenizer};
use sae_core::SparseCoder;
use std::fmt;

/// A sparse coder with the place that it takes in a forward pass, unchecked; [`Splice::with`](crate::Splice::with) checks it.
///
/// ```
/// use activation_store::TokenFilter;
/// use sae_hooks::HookedSae;
/// # fn demo(model: &model_hooks::LanguageModel, sae: &sae_core::Sae) -> sae_hooks::Result<()> {
/// let at = HookedSae::new("blocks.8.hook_resid_pre".parse()?, sae).error_term(true).filter(&TokenFilter::structural(), model.tokenizer())?;
/// # Ok(()) }
/// ```
pub struct HookedSae<'a> {
    pub(crate) coder: Box<dyn SparseCoder + 'a>,
    pub(crate) input: HookPoint,
    pub(crate) output: HookPoint,
    pub(crate) head: Option<usize>,
    pub(crate) error_term: bool,
    pub(crate) filter: ResolvedFilter,
}

impl<'a> HookedSae<'a> {
    /// An SAE that reads and replaces the value at `hook`. The coder may be borrowed, boxed or shared.
    #[must_use]
    pub fn new(hook: HookPoint, coder: impl SparseCoder + 'a) -> Self {
        Self::between(hook, hook, coder)
    }

    /// A transcoder: it reads the value at `input` and replaces the one at `output`.
    #[must_use]
    pub fn between(input: HookPoint, output: HookPoint, coder: impl SparseCoder + 'a) -> Self {
        Self {
            coder: Box::new(coder),
            input,
            output,
            head: None,
            error_term: false,
            filter: ResolvedFilter::everything(),
        }
    }

    /// A coder where its metadata say that it belongs: `hook_name`, `hook_name_out` and `hook_head_index`.
    ///
    /// # Errors
    /// [`sae_core::Error::MissingMetadata`] without a hook name, [`model_hooks::Error::UnknownHookName`], [`model_hooks::Error::ModuleName`]
    /// for a module whose hook point depends on the model's family: [`from_metadata_in`](Self::from_metadata_in) reads those too.
    pub fn from_metadata(coder: &'a dyn SparseCoder) -> Result<Self> {
        Self::named(coder, &|name| name.parse())
    }

    /// As [`from_metadata`](Self::from_metadata), in a model: also where the metadata name a module in Hugging Face's words (`model.layers.7.mlp`).
    ///
    /// # Errors
    /// [`sae_core::Error::MissingMetadata`] without a hook name; as [`HookedModel::hook_point`].
    pub fn from_metadata_in(model: &dyn HookedModel, coder: &'a dyn SparseCoder) -> Result<Self> {
        Self::named(coder, &|name| model.hook_point(name))
    }

    fn named(coder: &'a dyn SparseCoder, find: &dyn Fn(&str) -> model_hooks::Result<HookPoint>) -> Result<Self> {
        let missing = sae_core::Error::MissingMetadata { key: "hook_name" };
        let metadata = coder.metadata().filter(|metadata| metadata.hook_name.is_some()).ok_or(missing)?;
        let input = find(metadata.hook_name.as_deref().unwrap_or_default())?;
        let output = metadata.hook_name_out.as_deref().map_or(Ok(input), find)?;
        Ok(Self { head: metadata.hook_head_index, ..Self::between(input, output, coder) })
    }

    /// What it reads: a hook point, or one head of it.
    #[must_use]
    pub fn input(&self) -> HookSelector {
        HookSelector { point: self.input, head: self.head }
    }

    /// What it writes. Of a transcoder only the input can be a head of its own.
    #[must_use]
    pub fn output(&self) -> HookSelector {
        HookSelector { point: self.output, head: self.head.filter(|_| self.input == self.output) }
    }

    /// The same with a borrowed coder.
    pub(crate) fn borrowed(&self) -> HookedSae<'_> {
        let Self { input, output, head, error_term, .. } = *self;
        HookedSae { coder: Box::new(&*self.coder), input, output, head, error_term, filter: self.filter.clone() }
    }

    pub(crate) fn coder(&self) -> &dyn SparseCoder {
        &*self.coder
    }

    /// Whether the original value is kept at a token; `x` is the vector at the input hook.
    pub(crate) fn excludes(&self, pos: usize, token: u32, x: &[f32]) -> bool {
        let at = TokenPos { row: 0, pos: u32::try_from(pos).unwrap_or(u32::MAX) };
        let square = |x: &f32| f64::from(*x) * f64::from(*x);
        self.filter.exclusion(at, token, false, || x.iter().map(square).sum::<f64>().sqrt() as f32).is_some()
    }

    /// Whether what the SAE misses is added to its output, so that the output is the original value as long as nothing is edited. Off
    /// at first.
    #[must_use]
    pub fn error_term(mut self, on: bool) -> Self {
        self.error_term = on;
        self
    }

    /// Leaves the original value at the tokens that a filter excludes: [`TokenFilter::structural`] is SAELens' `exclude_special_tokens=True`.
    /// Without a filter every token goes through the SAE, as in SAELens. Positions count from the first token of a row, padding aside; the norm is
    /// that of the vector at the input hook. A forward pass is not told which tokens packing inserted: none of them counts as inserted.
    ///
    /// # Errors
    /// As [`TokenFilter::resolve`].
    pub fn filter(mut self, filter: &TokenFilter, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        self.filter = filter.resolve(tokenizer)?;
        Ok(self)
    }

    /// Only one head of per-head values goes through the SAE, whose width is then `d_head`. (Otherwise all heads, side by side, are one
    /// vector.)
    #[must_use]
    pub fn head(mut self, head: usize) -> Self {
        self.head = Some(head);
        self
    }
}

impl fmt::Debug for HookedSae<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookedSae")
            .field("input", &format_args!("{}", self.input))
            .field("output", &format_args!("{}", self.output))
            .field("head", &self.head)
            .field("d_in", &self.coder.d_in())
            .field("d_out", &self.coder.d_out())
            .field("d_sae", &self.coder.d_sae())
            .field("error_term", &self.error_term)
            .field("filter", &self.filter)
            .finish()
    }
}

/// The hook points that a coder reads and writes: one for an SAE, two for a transcoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoderHooks {
    /// The one whose activations go in.
    pub input: HookSelector,
    /// The one whose activations it reconstructs, and replaces.
    pub output: HookSelector,
}

impl CoderHooks {
    /// An SAE at this hook point (or one head of it).
    #[must_use]
    pub fn sae(at: impl Into<HookSelector>) -> Self {
        let at = at.into();
        Self { input: at, output: at }
    }

    /// Where an SAE's or transcoder's metadata say that it belongs: `hook_name`, `hook_name_out` and `hook_head_index`.
    ///
    /// # Errors
    /// As [`HookedSae::from_metadata`].
    pub fn from_metadata(coder: &dyn SparseCoder) -> Result<Self> {
        Ok(Self::of(&HookedSae::from_metadata(coder)?))
    }

    /// As [`from_metadata`](Self::from_metadata), in a model: also where the metadata name a module in Hugging Face's words.
    ///
    /// # Errors
    /// As [`HookedSae::from_metadata_in`].
    pub fn from_metadata_in(model: &dyn HookedModel, coder: &dyn SparseCoder) -> Result<Self> {
        Ok(Self::of(&HookedSae::from_metadata_in(model, coder)?))
    }

    fn of(at: &HookedSae<'_>) -> Self {
        Self { input: at.input(), output: at.output() }
    }

    /// A transcoder from one hook point to another that is not before it.
    #[must_use]
    pub fn transcoder(input: HookPoint, output: HookPoint) -> Self {
        Self { input: input.into(), output: output.into() }
    }
}
