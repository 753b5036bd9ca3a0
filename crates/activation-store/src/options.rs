//! How a store is set up: [`StoreOptions`], with SAELens' parameter names and meaning.

use crate::{
    Error, KeepRows, LongDocuments, PackingOptions, PretokenizedRows, ResolvedFilter, Result, Shuffle, TokenFilter,
};
use model_hooks::{LanguageModel, Tokenizer};
use sae_core::{SaeMetadata, SeparatorToken, SeqposSlice};

/// How an [`crate::ActivationStore`] is set up. `None` means: as the SAE's metadata says.
///
/// The defaults are those of SAELens' notebook. SAELens' own `from_sae` has `n_batches_in_buffer` 8, with which a ring for contexts of 128
/// holds 1,024 rows, fewer than a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// Rows of tokens in one forward pass.
    pub store_batch_size_prompts: usize,
    /// Activation rows in one batch of `next_batch`.
    pub train_batch_size_tokens: usize,
    /// Capacity of the ring in contexts: it holds `n_batches_in_buffer * positions` rows, where `positions` is `context_size` or what
    /// `seqpos_slice` leaves of it (not times `store_batch_size_prompts`, whatever the name suggests).
    pub n_batches_in_buffer: usize,
    /// Tokens in a row.
    pub context_size: Option<usize>,
    /// Whether every row begins with BOS. Without an SAE: yes, if the tokenizer has one.
    pub prepend_bos: Option<bool>,
    /// The hook point, where another than the SAE's is to be read. Its width must still be the SAE's.
    pub hook_name: Option<String>,
    /// The head of a per-head hook point, where another than the SAE's is to be read.
    pub hook_head_index: Option<usize>,
    /// Which positions of a row are kept. Without an SAE: all.
    pub seqpos_slice: Option<SeqposSlice>,
    /// One row for each document. Without an SAE: no.
    pub disable_concat_sequences: Option<bool>,
    /// Between two documents in one row. Without an SAE: BOS, if the tokenizer has one.
    pub sequence_separator_token: Option<SeparatorToken>,
    /// Which tokens are in the batches of `next_batch`: SAELens' `exclude_special_tokens`. Where neither this nor the SAE's metadata say it,
    /// every token. Activations in the documents' order, and statistics of them, are not filtered by it.
    pub filter: Option<TokenFilter>,
    /// Documents that arrive as tokens: rows already, or to be packed.
    pub token_documents: PretokenizedRows,
    /// What happens to a document of text above 8 MiB, where the tokenizer must see a document whole.
    pub long_documents: LongDocuments,
    /// The order of `next_batch`.
    pub shuffle: Shuffle,
    /// SAELens' `activations_mixing_fraction` (its default is 0.5). `None`: the ring is filled up before each batch, which mixes better.
    pub mix_fraction: Option<f64>,
    /// Leaves out the last, smaller batch, as SAELens does.
    pub drop_last: bool,
    /// Which rows of tokens the store remembers.
    pub keep_rows: KeepRows,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            store_batch_size_prompts: 8,
            train_batch_size_tokens: 4096,
            n_batches_in_buffer: 32,
            context_size: None,
            prepend_bos: None,
            hook_name: None,
            hook_head_index: None,
            seqpos_slice: None,
            disable_concat_sequences: None,
            sequence_separator_token: None,
            filter: None,
            token_documents: PretokenizedRows::default(),
            long_documents: LongDocuments::default(),
            shuffle: Shuffle::Seeded(0),
            mix_fraction: None,
            drop_last: false,
            keep_rows: KeepRows::default(),
        }
    }
}

impl StoreOptions {
    /// Fills in from an SAE's metadata what is not set.
    ///
    /// # Errors
    /// [`Error::Metadata`] when neither says `context_size` or `prepend_bos`.
    pub(crate) fn or_metadata(mut self, metadata: &SaeMetadata) -> Result<Self> {
        let missing = |key| Error::Metadata { key };
        let context_size = self.context_size.or(metadata.context_size);
        self.context_size = Some(context_size.ok_or_else(|| missing("context_size"))?);
        let prepend_bos = self.prepend_bos.or(metadata.prepend_bos);
        self.prepend_bos = Some(prepend_bos.ok_or_else(|| missing("prepend_bos"))?);
        self.hook_name = self.hook_name.or_else(|| metadata.hook_name.clone());
        self.hook_name.as_ref().ok_or_else(|| missing("hook_name"))?;
        self.hook_head_index = self.hook_head_index.or(metadata.hook_head_index);
        self.seqpos_slice = self.seqpos_slice.or(metadata.seqpos_slice);
        self.disable_concat_sequences = self.disable_concat_sequences.or(metadata.disable_concat_sequences);
        self.sequence_separator_token =
            self.sequence_separator_token.or_else(|| metadata.sequence_separator_token.clone());
        self.filter = self.filter.or_else(|| metadata.exclude_special_tokens.as_ref().map(TokenFilter::from));
        Ok(self)
    }

    /// The packing of tokens into rows. Without a tokenizer nothing can be inserted unless its id is given.
    pub(crate) fn packing(&self, model: &LanguageModel) -> Result<PackingOptions> {
        let context_size = self.context_size.ok_or(Error::Metadata { key: "context_size" })?;
        let n_ctx = model.shape().n_ctx;
        if !(1..=n_ctx).contains(&context_size) {
            return Err(Error::Option {
                option: "context_size",
                found: context_size.to_string(),
                expected: format!("at least 1, at most n_ctx = {n_ctx} of model `{}`", model.name()),
            });
        }
        let tokenizer = model.tokenizer();
        let bos = tokenizer.and_then(Tokenizer::bos);
        let begin_batch = match self.prepend_bos {
            Some(false) => None,
            None => bos,
            // Rows that come packed keep their own beginnings, so that a model without a tokenizer can be used.
            Some(true) if tokenizer.is_none() => None,
            Some(true) => Some(bos.ok_or(model_hooks::Error::NoBos)?),
        };
        Ok(PackingOptions {
            begin_batch,
            begin_sequence: None,
            separator: self.separator(tokenizer)?,
            disable_concat: self.disable_concat_sequences.unwrap_or(false),
            tokens: self.token_documents,
            long_documents: self.long_documents,
            ..PackingOptions::new(context_size)
        })
    }

    /// SAELens takes a named token that the tokenizer lacks for no separator at all; here that is an error, unless the name is
    /// only the default.
    fn separator(&self, tokenizer: Option<&Tokenizer>) -> Result<Option<u32>> {
        let special = tokenizer.map(Tokenizer::special);
        let name = match &self.sequence_separator_token {
            None => return Ok(special.and_then(|s| s.bos)),
            Some(SeparatorToken::Nothing) => return Ok(None),
            Some(SeparatorToken::Id(id)) => return Ok(Some(*id)),
            Some(SeparatorToken::Named(_)) if special.is_none() => return Ok(None),
            Some(SeparatorToken::Named(name)) => name.as_str(),
        };
        let id = special.and_then(|s| match name {
            "bos" => s.bos,
            "eos" => s.eos,
            "sep" => s.sep,
            _ => None,
        });
        id.map(Some).ok_or_else(|| Error::Option {
            option: "sequence_separator_token",
            found: format!("`{name}`"),
            expected: "bos, eos or sep (one that the tokenizer has), a token id, or none".into(),
        })
    }

    /// The tokens of `next_batch`, as set and as ids.
    pub(crate) fn filter(&self, model: &LanguageModel) -> Result<(TokenFilter, ResolvedFilter)> {
        let filter = self.filter.clone().unwrap_or_else(TokenFilter::everything);
        let resolved = filter.resolve(model.tokenizer())?;
        Ok((filter, resolved))
    }

    /// The kept positions of a row.
    pub(crate) fn positions(&self, context_size: usize) -> Result<Vec<u32>> {
        positions(self.seqpos_slice.unwrap_or_default(), context_size)
    }
}

/// Python's `range(len)[start:stop:step]`, with a positive step as tensors demand.
fn positions(slice: SeqposSlice, len: usize) -> Result<Vec<u32>> {
    let fail = |expected: String| Error::Option {
        option: "seqpos_slice",
        found: format!("{:?}:{:?}:{:?}", slice.start, slice.stop, slice.step),
        expected,
    };
    let step = match slice.step {
        None => 1,
        Some(step) => {
            usize::try_from(step).ok().filter(|s| *s > 0).ok_or_else(|| fail("a step of at least 1".into()))?
        }
    };
    let end = len as i64;
    let index = |i: i64| if i < 0 { (i.saturating_add(end)).max(0) } else { i.min(end) };
    let (start, stop) = (index(slice.start.unwrap_or(0)), index(slice.stop.unwrap_or(end)));
    let kept: Vec<u32> = (start..stop).step_by(step).map(|pos| pos as u32).collect();
    if kept.is_empty() { Err(fail(format!("at least one of the {len} positions"))) } else { Ok(kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_python() {
        let kept = |start, stop, step| positions(SeqposSlice { start, stop, step }, 10);
        assert_eq!(kept(None, None, None).unwrap(), (0..10).collect::<Vec<_>>());
        assert_eq!(kept(Some(1), None, None).unwrap(), (1..10).collect::<Vec<_>>());
        assert_eq!(kept(Some(-3), None, None).unwrap(), [7, 8, 9]);
        assert_eq!(kept(Some(1), Some(-1), Some(3)).unwrap(), [1, 4, 7]);
        assert_eq!(kept(Some(-100), Some(100), Some(4)).unwrap(), [0, 4, 8]);
        assert!(kept(Some(5), Some(5), None).unwrap_err().to_string().contains("seqpos_slice"));
        assert!(kept(None, None, Some(0)).is_err() && kept(None, None, Some(-1)).is_err());
        assert!(kept(Some(10), None, None).is_err());
    }
}
