//! Text in, text out.

use super::text_stream::{Shown, StopTexts, TextStream};
use super::{Generate, GenerateOptions, GeneratedToken, StopReason, generate};
use crate::{Error, LanguageModel, Result, Tap};
use std::ops::ControlFlow;

/// Result of [`LanguageModel::generate_text`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GeneratedText {
    /// The generated text, without a stop token or stop text.
    pub text: String,
    /// The prompt's tokens, BOS included.
    pub prompt_ids: Vec<u32>,
    /// The new tokens, those of a stop token or stop text included.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub stopped: StopReason,
}

impl LanguageModel {
    /// The model as one that generates.
    ///
    /// # Errors
    /// [`Error::NotGenerating`] for a user's own model without [`HookedModel::generator`](crate::HookedModel::generator).
    pub fn generator(&self) -> Result<&dyn Generate> {
        self.hooked().generator().ok_or_else(|| Error::NotGenerating { model: self.name().into() })
    }

    /// Carries a text on with [`generate`](crate::generate()). `on_text` is given the new text piece by piece, as soon as its characters are
    /// complete and cannot be the beginning of a stop text, and can end the run.
    ///
    /// ```no_run
    /// use model_hooks::{GenerateOptions, LoadOptions, NoTap, Processing, load};
    /// use std::ops::ControlFlow;
    ///
    /// # fn main() -> model_hooks::Result<()> {
    /// let model = load("path/to/model".as_ref(), &LoadOptions::new(Processing::None))?;
    /// let mut print = |piece: &str| {
    ///     print!("{piece}");
    ///     ControlFlow::Continue(())
    /// };
    /// model.generate_text("The capital of France is", &GenerateOptions::default(), &mut NoTap, &mut print)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] for a prompt without tokens; as [`generate`](crate::generate()), [`generator`](Self::generator) and the
    /// tokenizer.
    pub fn generate_text(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        tap: &mut dyn Tap,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GeneratedText> {
        let tokenizer = self.try_tokenizer()?;
        let prompt_ids = tokenizer.to_tokens(prompt, options.bos, None)?.ids;
        if prompt_ids.is_empty() {
            return Err(Error::EmptyPrompt { what: "prompt" });
        }
        if options.stop_strings.iter().any(String::is_empty) {
            let (expected, found) = ("no empty text".into(), format!("{:?}", options.stop_strings));
            return Err(Error::BadOption { what: "stop_strings", expected, found });
        }
        let mut by_id = GenerateOptions { stop_strings: Vec::new(), ..options.clone() };
        by_id.stop_tokens.extend(self.eos_ids());
        let mut text = Text {
            stream: TextStream::new(tokenizer, &prompt_ids),
            stops: StopTexts::new(&options.stop_strings),
            text: String::new(),
            found: None,
            failed: None,
            on_text,
        };
        let mut on_token = |new: GeneratedToken| {
            if by_id.stop_tokens.contains(&new.id) { ControlFlow::Continue(()) } else { text.token(new.id) }
        };
        let generation = generate(self.generator()?, &[&prompt_ids], &by_id, tap, &mut on_token)?;
        let (found, text) = text.end()?;
        let row = generation.rows.into_iter().next().ok_or(Error::EmptyBatch { rows: 0 })?;
        let stopped = found.map_or(row.stopped, |i| StopReason::Text(options.stop_strings[i].clone()));
        Ok(GeneratedText { text, prompt_ids, ids: row.ids, stopped })
    }
}

/// Text on its way from tokens to the callback.
struct Text<'a> {
    stream: TextStream<'a>,
    stops: StopTexts<'a>,
    text: String,
    /// The stop text that was generated.
    found: Option<usize>,
    failed: Option<Error>,
    on_text: &'a mut dyn FnMut(&str) -> ControlFlow<()>,
}

impl Text<'_> {
    fn token(&mut self, id: u32) -> ControlFlow<()> {
        match self.stream.push(id) {
            Ok(piece) => self.piece(&piece),
            Err(e) => {
                self.failed = Some(e);
                ControlFlow::Break(())
            }
        }
    }

    fn piece(&mut self, piece: &str) -> ControlFlow<()> {
        match self.stops.push(piece) {
            Shown::More(text) => self.show(&text),
            Shown::Last(text, stop) => {
                self.found = Some(stop);
                let _ = self.show(&text);
                ControlFlow::Break(())
            }
        }
    }

    fn show(&mut self, text: &str) -> ControlFlow<()> {
        self.text += text;
        if text.is_empty() { ControlFlow::Continue(()) } else { (self.on_text)(text) }
    }

    /// Shows what is left, if no stop text came.
    fn end(mut self) -> Result<(Option<usize>, String)> {
        if let Some(e) = self.failed {
            return Err(e);
        }
        if self.found.is_none() {
            let rest = self.stream.rest()?;
            let _ = self.piece(&rest);
        }
        if self.found.is_none() {
            let held = std::mem::replace(&mut self.stops, StopTexts::new(&[])).rest();
            let _ = self.show(&held);
        }
        Ok((self.found, self.text))
    }
}
