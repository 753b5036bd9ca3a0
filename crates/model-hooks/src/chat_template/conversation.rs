//! [`Conversation`]: the input of a chat template.

use super::fail;
use crate::Result;
use minijinja::Value;
use minijinja::value::ValueKind;

/// The names under which files keep what a model thought before it answered, as transformers takes them together.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The messages of a conversation: each has a role and content, and may have more that a template reads.
///
/// Messages in ShareGPT's form (`from`, `value`; roles `human` and `gpt`) become those that templates expect (`role`, `content`; `user` and
/// `assistant`).
#[derive(Clone, Debug)]
pub struct Conversation(Value);

impl Conversation {
    /// From a JSON list of objects.
    ///
    /// # Errors
    /// [`crate::Error::ChatTemplate`] for anything else, and for a message without a role.
    pub fn from_json(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json).map_err(|e| fail(format!("no conversation: {e}")))?;
        if value.kind() != ValueKind::Seq {
            return Err(fail(format!("a conversation is {}, expected a list of messages", value.kind())));
        }
        let messages = value.try_iter().map_err(|e| fail(e.to_string()))?;
        let messages = messages.enumerate().map(|(i, message)| self::message(i, &message));
        Ok(Self(messages.collect::<Result<Vec<_>>>()?.into()))
    }

    /// One message of a user.
    #[must_use]
    pub fn user(text: &str) -> Self {
        let message = Value::from_pairs([("role", "user"), ("content", text)].map(|(k, v)| (k, Value::from(v))));
        Self(vec![message].into())
    }

    /// Whether there is no message in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == Some(0)
    }

    pub(super) fn messages(&self) -> &Value {
        &self.0
    }
}

fn message(index: usize, message: &Value) -> Result<Value> {
    if message.kind() != ValueKind::Map {
        return Err(fail(format!("message {index} is {}, expected an object", message.kind())));
    }
    let keys = message.try_iter().map_err(|e| fail(e.to_string()))?;
    let mut pairs: Vec<(String, Value)> =
        keys.filter_map(|key| Some((key.as_str()?.to_string(), message.get_item(&key).ok()?))).collect();
    let has = |pairs: &[(String, Value)], name: &str| pairs.iter().any(|(key, _)| key == name);
    if !has(&pairs, "role") {
        let Some((key, from)) = pairs.iter_mut().find(|(key, _)| key == "from") else {
            let found: Vec<&str> = pairs.iter().take(12).map(|(key, _)| key.as_str()).collect();
            return Err(fail(format!("message {index} has no `role` (nor ShareGPT's `from`), it has {found:?}")));
        };
        *key = "role".into();
        match from.as_str() {
            Some("human") => *from = "user".into(),
            Some("gpt" | "chatgpt" | "bing" | "bard") => *from = "assistant".into(),
            _ => {}
        }
    }
    if !has(&pairs, "content")
        && let Some((key, _)) = pairs.iter_mut().find(|(key, _)| key == "value")
    {
        *key = "content".into();
    }
    let get =
        |name: &str| pairs.iter().find(|(key, value)| key == name && !value.is_none()).map(|(_, value)| value.clone());
    if let Some(reasoning) = REASONING.iter().find_map(|name| get(name)) {
        if !has(&pairs, "thinking") {
            pairs.insert(0, ("thinking".into(), reasoning.clone()));
        }
        match pairs.iter_mut().find(|(key, _)| key == "reasoning_content") {
            Some((_, value)) => *value = reasoning,
            None => pairs.push(("reasoning_content".into(), reasoning)),
        }
    }
    Ok(Value::from_pairs(pairs))
}
