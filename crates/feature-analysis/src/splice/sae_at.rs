//! One SAE and where it goes.

use crate::Result;
use model_hooks::{HookPoint, HookSelector, HookedModel, SpecialTokens};
use sae_core::SparseCoder;
use std::collections::BTreeSet;
use std::fmt;

/// A sparse coder with the place that it takes in a forward pass, unchecked; [`Splice::with`](super::Splice::with) checks it.
///
/// ```
/// use feature_analysis::splice::SaeAt;
/// # fn demo(sae: &sae_core::Sae) -> feature_analysis::Result<()> {
/// let at = SaeAt::new("blocks.8.hook_resid_pre".parse()?, sae).error_term(true).exclude_tokens([50256]);
/// # Ok(()) }
/// ```
pub struct SaeAt<'a> {
    pub(super) coder: Box<dyn SparseCoder + 'a>,
    pub(super) input: HookPoint,
    pub(super) output: HookPoint,
    pub(super) head: Option<usize>,
    pub(super) error_term: bool,
    pub(super) excluded: BTreeSet<u32>,
}

impl<'a> SaeAt<'a> {
    /// An SAE that reads and replaces the value at `hook`. The coder may be borrowed, boxed or shared.
    #[must_use]
    pub fn new(hook: HookPoint, coder: impl SparseCoder + 'a) -> Self {
        Self::between(hook, hook, coder)
    }

    /// A transcoder: it reads the value at `input` and replaces the one at `output`.
    #[must_use]
    pub fn between(input: HookPoint, output: HookPoint, coder: impl SparseCoder + 'a) -> Self {
        Self { coder: Box::new(coder), input, output, head: None, error_term: false, excluded: BTreeSet::new() }
    }

    /// A coder where its metadata say that it belongs: `hook_name`, `hook_name_out` and `hook_head_index`.
    ///
    /// # Errors
    /// [`sae_core::Error::MissingMetadata`] without a hook name, [`model_hooks::Error::UnknownHookName`], [`model_hooks::Error::ModuleName`]
    /// for a module whose hook point depends on the model's family: [`home_in`](Self::home_in) reads those too.
    pub fn home(coder: &'a dyn SparseCoder) -> Result<Self> {
        Self::named(coder, &|name| name.parse())
    }

    /// As [`home`](Self::home), in a model: also where the metadata name a module in Hugging Face's words (`model.layers.7.mlp`).
    ///
    /// # Errors
    /// [`sae_core::Error::MissingMetadata`] without a hook name; as [`HookedModel::hook_point`].
    pub fn home_in(model: &dyn HookedModel, coder: &'a dyn SparseCoder) -> Result<Self> {
        Self::named(coder, &|name| model.hook_point(name))
    }

    fn named(coder: &'a dyn SparseCoder, find: &dyn Fn(&str) -> model_hooks::Result<HookPoint>) -> Result<Self> {
        let missing = sae_core::Error::MissingMetadata { key: "hook_name" };
        let metadata = coder.provenance().filter(|metadata| metadata.hook_name.is_some()).ok_or(missing)?;
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
    pub(crate) fn borrowed(&self) -> SaeAt<'_> {
        let Self { input, output, head, error_term, .. } = *self;
        SaeAt { coder: Box::new(&*self.coder), input, output, head, error_term, excluded: self.excluded.clone() }
    }

    pub(crate) fn coder(&self) -> &dyn SparseCoder {
        &*self.coder
    }

    pub(crate) fn excludes(&self, token: u32) -> bool {
        self.excluded.contains(&token)
    }

    /// Whether what the SAE misses is added to its output, so that the output is the original value as long as nothing is edited. Off
    /// at first.
    #[must_use]
    pub fn error_term(mut self, on: bool) -> Self {
        self.error_term = on;
        self
    }

    /// Leaves the original value wherever one of these tokens stands. Adds to those that were named before.
    #[must_use]
    pub fn exclude_tokens(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.excluded.extend(ids);
        self
    }

    /// Leaves the original value at BOS, EOS, padding and separators, which is what SAELens' `exclude_special_tokens=True` does. (Special
    /// tokens of chat templates have no such role and are not left out; [`SpecialTokens::ids`] has all.)
    #[must_use]
    pub fn exclude_special(self, special: &SpecialTokens) -> Self {
        self.exclude_tokens([special.bos, special.eos, special.pad, special.sep].into_iter().flatten())
    }

    /// Only one head of per-head values goes through the SAE, whose width is then `d_head`. (Otherwise all heads, side by side, are one
    /// vector.)
    #[must_use]
    pub fn head(mut self, head: usize) -> Self {
        self.head = Some(head);
        self
    }
}

impl fmt::Debug for SaeAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaeAt")
            .field("input", &format_args!("{}", self.input))
            .field("output", &format_args!("{}", self.output))
            .field("head", &self.head)
            .field("d_in", &self.coder.d_in())
            .field("d_out", &self.coder.d_out())
            .field("d_sae", &self.coder.d_sae())
            .field("error_term", &self.error_term)
            .field("excluded", &self.excluded)
            .finish()
    }
}
