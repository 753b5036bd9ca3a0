//! Conversations to text, by the template that comes with a tokenizer: [`ChatTemplate`].
//!
//! A template is a program in the Jinja language that a model's publisher wrote, so it is run within bounds: of steps and of memory
//! (fuel), of recursion, of output. It can read the conversation and nothing else: no file, no clock, no environment.

mod additions;
mod conversation;
mod functions;
mod source;

pub use conversation::Conversation;

use crate::{Error, Result, Tokenizer};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value};
use std::sync::Arc;

/// Steps of a template for one conversation; each takes at most 64 bytes of memory. A conversation of 10,000 messages takes about
/// a million.
const FUEL: u64 = 8 << 20;
const MAX_DEPTH: usize = 200;
/// Larger texts are refused.
const MAX_TEXT_BYTES: usize = 64 << 20;
/// Larger templates are refused. The longest published ones have 30 kB.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
const NAME: &str = "chat template";

/// A chat template with the special tokens of its tokenizer: what transformers' `apply_chat_template` runs, without tools and without a
/// generation prompt.
///
/// The text that comes out spells its special tokens (`<|im_start|>`), BOS among them where the template writes one;
/// [`Tokenizer::encode`] gives the ids that `apply_chat_template(tokenize=True)` gives.
///
/// ```
/// # use model_hooks::{ChatTemplate, Conversation};
/// let template = "{% for message in messages %}<{{ message.role }}> {{ message.content | trim }}\n{% endfor %}";
/// let chat = ChatTemplate::new(template, &[])?;
/// let conversation = Conversation::from_json(r#"[{"role": "user", "content": " Hi "}, {"from": "gpt", "value": "Hello."}]"#)?;
/// assert_eq!(chat.render(&conversation)?, "<user> Hi\n<assistant> Hello.\n");
/// # Ok::<(), model_hooks::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    template: Arc<str>,
    /// Names of special tokens and their text.
    special: Vec<(String, String)>,
    date: Option<[u16; 3]>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("template", &self.template)
            .field("special", &self.special)
            .field("date", &self.date)
            .finish_non_exhaustive()
    }
}

/// Two templates are the same when they give the same text for every conversation: same program, special tokens and date.
impl PartialEq for ChatTemplate {
    fn eq(&self, other: &Self) -> bool {
        (&self.template, &self.special, self.date) == (&other.template, &other.special, other.date)
    }
}

impl Eq for ChatTemplate {}

fn fail(reason: impl Into<String>) -> Error {
    Error::ChatTemplate { path: None, reason: reason.into() }
}

impl ChatTemplate {
    /// A template from its text, with special tokens by the names that templates use (`bos_token`, `eos_token`, ...).
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] for a text that is no template.
    pub fn new(template: &str, special: &[(&str, &str)]) -> Result<Self> {
        let special = special.iter().map(|(name, token)| ((*name).to_string(), (*token).to_string())).collect();
        Self::build(template.into(), special, None)
    }

    /// A template from its text, with the special tokens of a tokenizer.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] for a text that is no template.
    pub fn with_tokenizer(template: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let roles = tokenizer.special();
        let mut special = Vec::new();
        for (name, id) in [
            ("bos_token", roles.bos),
            ("eos_token", roles.eos),
            ("pad_token", roles.pad),
            ("unk_token", roles.unk),
            ("sep_token", roles.sep),
            ("cls_token", roles.cls),
            ("mask_token", roles.mask),
        ] {
            if let Some(id) = id {
                special.push((name.to_string(), tokenizer.decode(&[id])?));
            }
        }
        Self::build(template.into(), special, None)
    }

    /// Sets the date that `strftime_now` gives, as `YYYY-MM-DD`. Without one a template finds no such function, so that the text of a
    /// conversation is the same on every day: templates that check for it (Llama 3's) then write a date of their own, others fail.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] for what is no date.
    pub fn date(self, date: &str) -> Result<Self> {
        let date = functions::parse_date(date)
            .ok_or_else(|| fail(format!("`{date}` is no date, expected one such as 2026-01-31")))?;
        Self::build(self.template, self.special, Some(date))
    }

    fn build(template: Arc<str>, special: Vec<(String, String)>, date: Option<[u16; 3]>) -> Result<Self> {
        if template.len() > MAX_TEMPLATE_BYTES {
            return Err(fail(format!("{} bytes, at most {MAX_TEMPLATE_BYTES} are read", template.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|e| fail(e.to_string()))?;
        environment.set_syntax(syntax.clone());
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_DEPTH);
        functions::add(&mut environment, date);
        additions::add(&mut environment);
        let source = additions::bounded(source::without_generation_tags(&template), &syntax)?;
        environment.add_template_owned(NAME, source).map_err(|e| fail(words(&e)))?;
        Ok(Self { environment: Arc::new(environment), template, special, date })
    }

    /// The template's text.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.template
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] where the template refuses the conversation (`raise_exception`), fails on it, or passes a bound.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let none = || Value::from(());
        let mut variables = vec![
            ("messages".to_string(), conversation.messages().clone()),
            ("tools".to_string(), none()),
            ("documents".to_string(), none()),
            ("add_generation_prompt".to_string(), Value::from(false)),
        ];
        variables.extend(self.special.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))));
        let mut out = Bounded(Vec::new());
        let run = || {
            let template = self.environment.get_template(NAME)?;
            template.render_captured_to(Value::from_pairs(variables), &mut out).map(drop)
        };
        run().map_err(|e| fail(words(&e)))?;
        String::from_utf8(out.0).map_err(|_| fail("the text is not UTF-8"))
    }
}

/// The engine's error in words, without the name that templates have here.
fn words(error: &minijinja::Error) -> String {
    let mut out = match error.detail() {
        Some(detail) => detail.to_string(),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line() {
        out.push_str(&format!(" (line {line} of the template)"));
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        out.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    out
}

/// Text up to a size.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT_BYTES {
            return Err(std::io::Error::other(format!("the text is longer than {MAX_TEXT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
