//! The loop over tokens: [`generate`].

use super::sampler::Sampler;
use super::{Generate, Sampling};
use crate::ops::with_slice;
use crate::{AddBos, Error, PaddingSide, Result, Tap, TokenBatch, Tokenizer};
use candle_core::Tensor;
use std::ops::ControlFlow;

/// Options of [`generate`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Maximum number of new tokens per row.
    pub max_new_tokens: usize,
    /// Choice of each token.
    pub sampling: Sampling,
    /// A row ends with any of these. [`generate_text`](crate::LanguageModel::generate_text) adds
    /// [`LanguageModel::eos_ids`](crate::LanguageModel::eos_ids).
    pub stop_tokens: Vec<u32>,
    /// A text ends before any of these; for [`generate_text`](crate::LanguageModel::generate_text) alone.
    pub stop_strings: Vec<String>,
    /// Whether a text begins with BOS; for [`generate_text`](crate::LanguageModel::generate_text) alone.
    pub bos: AddBos,
    /// Padding on the left of shorter prompts and at the end of rows that have ended: any token of the model.
    pub pad_id: u32,
}

impl Default for GenerateOptions {
    /// 50 tokens, greedy; BOS as the tokenizer's files say.
    fn default() -> Self {
        Self {
            max_new_tokens: 50,
            sampling: Sampling::Greedy,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            bos: AddBos::TokenizerDefault,
            pad_id: 0,
        }
    }
}

/// A token as soon as it is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GeneratedToken {
    /// Its row.
    pub row: usize,
    /// Number of tokens generated for the row before.
    pub index: usize,
    /// The token.
    pub id: u32,
}

/// Why a row ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// This stop token came; it is the last of the row's ids.
    Token(u32),
    /// This text came.
    Text(String),
    /// `max_new_tokens` came.
    MaxNewTokens,
    /// The context is full: the last token has no position to run at.
    ContextFull,
    /// The callback said so, after a token of this row or of another.
    Caller,
}

/// Tokens generated for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GeneratedSequence {
    /// The new tokens, a stop token included.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub stopped: StopReason,
}

impl GeneratedSequence {
    /// The text that the new tokens add to the prompt's, without a stop token.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id that neither the tokenizer nor the model has.
    pub fn text(&self, prompt: &[u32], tokenizer: &Tokenizer) -> Result<String> {
        let ids = match self.stopped {
            StopReason::Token(_) => &self.ids[..self.ids.len().saturating_sub(1)],
            _ => &self.ids,
        };
        let mut stream = super::text_stream::TextStream::new(tokenizer, prompt);
        let mut text = String::new();
        for &id in ids {
            text += &stream.push(id)?;
        }
        Ok(text + &stream.rest()?)
    }
}

/// Result of [`generate`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationOutput {
    /// One for each prompt, in their order.
    pub rows: Vec<GeneratedSequence>,
}

/// Carries prompts on, token by token, all rows together; `tap` is attached to every run. The first run is on the prompts, padded on the
/// left to the longest; each further one on the tokens just chosen, in one column, with [`TapContext::offset`](crate::TapContext::offset) counting the
/// columns before. Rows that have ended stay in the batch as padding ([`TokenBatch::token_range`] of the row is empty). A tap that edits the
/// logits changes what is chosen; -inf forbids a token.
///
/// Each token is chosen from the logits of a full forward pass on everything before it. Where rotary angles depend on the length of the
/// text and cached keys have the wrong ones ([`Generate::keeps_angles`]), a run is on all columns so far, with an offset of 0: under
/// LongRoPE once, when the batch passes the original context (as transformers does for Phi-3); under dynamic scaling for each token beyond
/// the original context, so that `n` tokens there cost `n` runs on the whole text (transformers leaves the cached keys turned for the
/// shorter text, and its tokens there differ from those of its own full forward passes).
///
/// `on_token` is called with every token as soon as it is chosen, and can end the run.
///
/// # Errors
/// [`Error::BadOption`], [`Error::EmptyBatch`], [`Error::EmptyRow`]; [`Error::NoNextToken`] for logits that are not finite; those of
/// [`Generate::forward_cached`], a prompt longer than the context among them.
pub fn generate<R: AsRef<[u32]>>(
    model: &dyn Generate,
    prompts: &[R],
    options: &GenerateOptions,
    tap: &mut dyn Tap,
    on_token: &mut dyn FnMut(GeneratedToken) -> ControlFlow<()>,
) -> Result<GenerationOutput> {
    if !options.stop_strings.is_empty() {
        let expected = "empty: token ids are compared with token ids alone (LanguageModel::generate_text knows texts)";
        let found = format!("{:?}", options.stop_strings);
        return Err(Error::BadOption { what: "stop_strings", expected: expected.into(), found });
    }
    let mut tokens = TokenBatch::padded(prompts, options.pad_id, PaddingSide::Left)?;
    let mut rows = Rows::new(&tokens, options, model.shape().n_ctx)?;
    let mut cache = model.new_cache();
    cache.reserve(tokens.pos().saturating_add(options.max_new_tokens));
    while rows.any_open() {
        if !model.keeps_angles(&cache, tokens.pos()) {
            cache.truncate(0);
            tokens = rows.whole();
        }
        let logits = model.next_logits(&tokens, &mut cache, tap)?;
        let chosen = rows.choose(&logits)?;
        if rows.take(&chosen, on_token).is_break() {
            break;
        }
        tokens = rows.step();
    }
    Ok(rows.end())
}

struct Rows<'o> {
    options: &'o GenerateOptions,
    n_ctx: usize,
    prompts: TokenBatch,
    rows: Vec<Row>,
}

struct Row {
    chooser: Sampler,
    prompt_len: usize,
    ids: Vec<u32>,
    stopped: Option<StopReason>,
}

impl<'o> Rows<'o> {
    fn new(prompts: &TokenBatch, options: &'o GenerateOptions, n_ctx: usize) -> Result<Self> {
        let row = |row| {
            let (prompt_len, chooser) = (prompts.token_range(row).len(), Sampler::new(options.sampling, row)?);
            let stopped = (options.max_new_tokens == 0).then_some(StopReason::MaxNewTokens);
            Ok(Row { chooser, prompt_len, ids: Vec::new(), stopped })
        };
        let rows = (0..prompts.batch()).map(row).collect::<Result<_>>()?;
        Ok(Self { options, n_ctx, prompts: prompts.clone(), rows })
    }

    fn any_open(&self) -> bool {
        self.rows.iter().any(|row| row.stopped.is_none())
    }

    /// The next token of each row that is open, from logits `[batch, 1, d_vocab]`.
    fn choose(&mut self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        let (_, _, d_vocab) = logits.dims3()?;
        with_slice(logits, |logits| {
            let rows = self.rows.iter_mut().zip(logits.chunks_exact(d_vocab.max(1))).enumerate();
            rows.map(|(i, (row, logits))| {
                if row.stopped.is_some() {
                    return Ok(None);
                }
                let index = row.ids.len();
                row.chooser.choose(logits).map(Some).ok_or(Error::NoNextToken { row: i, index })
            })
            .collect()
        })
    }

    /// Appends the chosen tokens and sees which rows end with them.
    fn take(
        &mut self,
        chosen: &[Option<u32>],
        on_token: &mut dyn FnMut(GeneratedToken) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (i, (row, id)) in self.rows.iter_mut().zip(chosen).enumerate() {
            let Some(id) = *id else { continue };
            let index = row.ids.len();
            row.ids.push(id);
            row.stopped = row.ends_with(id, self.options, self.n_ctx);
            on_token(GeneratedToken { row: i, index, id })?;
        }
        ControlFlow::Continue(())
    }

    /// The tokens just chosen as the next column.
    fn step(&self) -> TokenBatch {
        let ids = self.rows.iter().map(|row| row.ids.last().copied().unwrap_or(self.options.pad_id));
        let open = |row: &Row| row.stopped.is_none();
        TokenBatch::column(ids.collect(), self.rows.iter().map(open))
    }

    /// The prompts and everything that was chosen, but for the last tokens of rows that have ended, which never run.
    fn whole(&self) -> TokenBatch {
        let run = |row: &Row| row.ids.len() - usize::from(row.stopped.is_some() && !row.ids.is_empty());
        let new: Vec<&[u32]> = self.rows.iter().map(|row| &row.ids[..run(row)]).collect();
        self.prompts.continued(&new, self.options.pad_id)
    }

    fn end(self) -> GenerationOutput {
        let row = |row: Row| GeneratedSequence { ids: row.ids, stopped: row.stopped.unwrap_or(StopReason::Caller) };
        GenerationOutput { rows: self.rows.into_iter().map(row).collect() }
    }
}

impl Row {
    fn ends_with(&self, id: u32, options: &GenerateOptions, n_ctx: usize) -> Option<StopReason> {
        if options.stop_tokens.contains(&id) {
            Some(StopReason::Token(id))
        } else if self.ids.len() >= options.max_new_tokens {
            Some(StopReason::MaxNewTokens)
        } else {
            (self.prompt_len + self.ids.len() > n_ctx).then_some(StopReason::ContextFull)
        }
    }
}
