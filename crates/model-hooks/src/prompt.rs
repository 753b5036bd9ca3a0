//! [`test_prompt`]: how well a model predicts an expected answer.

use crate::{AddBos, Error, LanguageModel, Result, Tap, TokenBatch, Tokenizer};
use std::fmt;

/// Options of [`test_prompt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptOptions {
    /// Whether BOS goes before the prompt.
    pub bos: AddBos,
    /// Puts a space before an answer that does not begin with one: words inside a sentence begin with theirs.
    pub prepend_space_to_answer: bool,
    /// Number of likeliest tokens listed for each position.
    pub top_k: usize,
}

impl Default for PromptOptions {
    fn default() -> Self {
        Self { bos: AddBos::Always, prepend_space_to_answer: true, top_k: 10 }
    }
}

/// A token as a prediction.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Prediction {
    /// The token.
    pub token: u32,
    /// It printed.
    pub text: String,
    /// Rank: number of likelier tokens, 0 for the first; of equal logits the lower id comes first.
    pub rank: usize,
    /// Its logit.
    pub logit: f32,
    /// Its probability, in f64 from the logits.
    pub probability: f64,
}

/// Prediction at one position.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PositionReport {
    /// The expected token; with several answers the first token of each, in the order given.
    pub expected: Vec<Prediction>,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<Prediction>,
}

/// Result of [`test_prompt`]. `Display` prints it as a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PromptReport {
    /// The prompt's tokens, printed, BOS included.
    pub prompt: Vec<String>,
    /// Each answer's tokens, printed.
    pub answers: Vec<Vec<String>>,
    /// One for each token of a single answer; one alone for several answers, which are compared by their first token, and for none.
    pub positions: Vec<PositionReport>,
}

/// Runs a prompt with its expected answer and reports, token by token, the answer's rank, logit and probability and the likeliest
/// tokens. Several answers are compared as the next token, by their first token, as TransformerLens does.
///
/// # Errors
/// [`Error::EmptyPrompt`] when there is no answer, an answer has no tokens, or nothing precedes it; the tokenizer's;
/// the model's, a prompt with answer longer than `n_ctx` among them.
pub fn test_prompt(
    model: &LanguageModel,
    prompt: &str,
    answers: &[&str],
    options: &PromptOptions,
    tap: &mut dyn Tap,
) -> Result<PromptReport> {
    let tokenizer = model.try_tokenizer()?;
    let prompt = tokenizer.to_tokens(prompt, options.bos, None)?.ids;
    let answers = answers.iter().map(|a| answer_tokens(tokenizer, a, options)).collect::<Result<Vec<_>>>()?;
    if answers.is_empty() {
        return Err(Error::EmptyPrompt { what: "list of answers" });
    }
    let answers: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
    test_prompt_tokens(model, &prompt, &answers, options.top_k, tap)
}

/// As [`test_prompt`], of a prompt and answers that are token ids: for ids that a model predicted, which cannot all be written as text and
/// tokenized again (a part of a character, an id beyond the tokenizer's). Without answers the report lists the likeliest next tokens alone.
///
/// # Errors
/// [`Error::EmptyPrompt`] for a prompt or an answer without tokens; [`Error::TokenOutOfVocabulary`]; the model's, a prompt with answer longer
/// than `n_ctx` among them.
pub fn test_prompt_tokens(
    model: &LanguageModel,
    prompt: &[u32],
    answers: &[&[u32]],
    top_k: usize,
    tap: &mut dyn Tap,
) -> Result<PromptReport> {
    let Some(last) = prompt.len().checked_sub(1) else { return Err(Error::EmptyPrompt { what: "prompt" }) };
    let d_vocab = model.shape().d_vocab;
    for (row, answer) in answers.iter().enumerate() {
        if answer.is_empty() {
            return Err(Error::EmptyPrompt { what: "answer" });
        }
        // Ids that only the answer has are not checked by the run.
        if let Some((pos, &id)) = answer.iter().enumerate().find(|(_, id)| **id as usize >= d_vocab) {
            return Err(Error::TokenOutOfVocabulary { id, row, pos, d_vocab });
        }
    }
    let whole: &[u32] = if let [only] = answers { only } else { &[] };
    // The last answer token predicts nothing that is asked for, but a tap may want to see it as TransformerLens runs it.
    let run: Vec<u32> = prompt.iter().chain(whole).copied().collect();
    let logits = model.hooked().forward(&TokenBatch::new(&[run])?, tap)?.squeeze(0)?;
    let tokenizer = model.tokenizer();
    let report = |at: usize, expected: &[u32]| -> Result<PositionReport> {
        let logits: Vec<f32> = logits.get(at)?.to_vec1()?;
        Ok(PositionReport::of(tokenizer, &logits, expected, top_k))
    };
    let positions = if whole.is_empty() {
        let first: Vec<u32> = answers.iter().filter_map(|answer| answer.first().copied()).collect();
        vec![report(last, &first)?]
    } else {
        whole.iter().enumerate().map(|(i, &token)| report(last + i, &[token])).collect::<Result<_>>()?
    };
    let answers = answers.iter().map(|answer| printed(tokenizer, answer)).collect();
    Ok(PromptReport { prompt: printed(tokenizer, prompt), answers, positions })
}

/// The tokens in words; as `[id]` where the tokenizer lacks one of them (a model's vocabulary may be padded beyond it) or there is none.
fn printed(tokenizer: Option<&Tokenizer>, ids: &[u32]) -> Vec<String> {
    if let Some(texts) = tokenizer.and_then(|tokenizer| tokenizer.readable(ids).ok()) {
        return texts;
    }
    let alone = |id: u32| tokenizer.and_then(|tokenizer| tokenizer.readable(&[id]).ok()).map(|texts| texts.concat());
    ids.iter().map(|&id| alone(id).unwrap_or_else(|| format!("[{id}]"))).collect()
}

fn answer_tokens(tokenizer: &Tokenizer, answer: &str, options: &PromptOptions) -> Result<Vec<u32>> {
    let spaced = if options.prepend_space_to_answer && !answer.starts_with(' ') && !answer.is_empty() {
        format!(" {answer}")
    } else {
        answer.into()
    };
    let ids = tokenizer.encode(&spaced)?.ids;
    if ids.is_empty() { Err(Error::EmptyPrompt { what: "answer" }) } else { Ok(ids) }
}

impl PositionReport {
    fn of(tokenizer: Option<&Tokenizer>, logits: &[f32], expected: &[u32], top_k: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| f64::from(logit - largest).exp();
        let total: f64 = logits.iter().copied().map(weight).sum();
        let before = |a: u32, b: u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
        let predicted = |token: u32, rank| Prediction {
            token,
            text: printed(tokenizer, &[token]).concat(),
            rank,
            logit: logits[token as usize],
            probability: weight(logits[token as usize]) / total,
        };
        let all = 0..logits.len() as u32;
        let rank = |token| all.clone().filter(|&other| before(other, token).is_lt()).count();
        let mut order: Vec<u32> = all.clone().collect();
        let top_k = top_k.min(order.len());
        if top_k < order.len() {
            order.select_nth_unstable_by(top_k, |&a, &b| before(a, b));
            order.truncate(top_k);
        }
        order.sort_unstable_by(|&a, &b| before(a, b));
        Self {
            expected: expected.iter().map(|&token| predicted(token, rank(token))).collect(),
            top: order.into_iter().enumerate().map(|(rank, token)| predicted(token, rank)).collect(),
        }
    }
}

impl PromptReport {
    /// For each position the expected tokens with their ranks.
    #[must_use]
    pub fn ranks(&self) -> Vec<Vec<(&str, usize)>> {
        self.positions.iter().map(|p| p.expected.iter().map(|e| (e.text.as_str(), e.rank)).collect()).collect()
    }
}

impl fmt::Display for PromptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Prompt, tokenized: {:?}", self.prompt)?;
        match self.answers.as_slice() {
            [answer] => writeln!(f, "Answer, tokenized: {answer:?}")?,
            answers => writeln!(f, "Answers, tokenized: {answers:?}")?,
        }
        for (i, position) in self.positions.iter().enumerate() {
            match self.positions.len() {
                1 => writeln!(f, "Next token:")?,
                n => writeln!(f, "Answer token {} of {n}:", i + 1)?,
            }
            for expected in &position.expected {
                writeln!(f, "  rank {:<6} {expected}", expected.rank)?;
            }
            for top in &position.top {
                writeln!(f, "  top {:<7} {top}", top.rank)?;
            }
        }
        let ranks = self.ranks().concat();
        write!(f, "Ranks of the answer tokens: {ranks:?}")
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.probability;
        write!(f, "logit {:6.2}  prob {percent:6.2}%  |{}|", self.logit, self.text)
    }
}
