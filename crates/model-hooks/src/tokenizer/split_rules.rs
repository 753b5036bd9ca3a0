//! Positions at which a long text may be cut so that tokenizing the pieces gives the tokens of the whole.

use serde_json::Value;

/// Patterns whose matches never run from something else into white space (but for a line end after punctuation), and look
/// ahead only from white space: Llama 3's and Qwen 2's. GPT-2's is built into the `ByteLevel` splitter and has the same property.
const KNOWN_PATTERNS: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Whether a tokenizer is one whose tokens never depend on both sides of a cut before white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SplitRule {
    at_whitespace: bool,
}

impl SplitRule {
    pub(super) fn of(inner: &tokenizers::Tokenizer) -> Self {
        // A normalizer may look at neighbors (a space put before the text): no cut. Composition (NFC) never joins white space to
        // what is before it.
        let normalizer = inner.get_normalizer().and_then(|n| serde_json::to_value(n).ok());
        let plain = normalizer.is_none_or(|n| n.get("type").is_some_and(|kind| kind == "NFC"));
        let splitter = inner.get_pre_tokenizer().and_then(|p| serde_json::to_value(p).ok()).unwrap_or_default();
        let added = inner.get_added_tokens_decoder();
        // An added token that contains white space, or takes what follows it along, can lie across a cut.
        let added_stay_apart =
            added.values().all(|t| !t.rstrip && !t.content.trim_start().contains(char::is_whitespace));
        Self { at_whitespace: plain && added_stay_apart && splits_before_whitespace(&splitter) }
    }

    pub(super) fn at_whitespace(self) -> bool {
        self.at_whitespace
    }
}

/// Whether the place between two characters is a cut under every known pattern.
pub(super) fn is_split_point(before: char, after: char) -> bool {
    let line_end = matches!(after, '\r' | '\n');
    !before.is_whitespace() && after.is_whitespace() && (!line_end || before.is_ascii_alphanumeric())
}

/// A splitter that always separates at a cut, followed only by ones that split further.
fn splits_before_whitespace(splitter: &Value) -> bool {
    let kind = splitter["type"].as_str().unwrap_or_default();
    match kind {
        "ByteLevel" => splitter["use_regex"] == true && splitter["add_prefix_space"] == false,
        "Split" => {
            let pattern = splitter.pointer("/pattern/Regex").and_then(Value::as_str).unwrap_or_default();
            splitter["behavior"] == "Isolated" && splitter["invert"] == false && KNOWN_PATTERNS.contains(&pattern)
        }
        "Sequence" => {
            let steps = splitter["pretokenizers"].as_array().map(Vec::as_slice).unwrap_or_default();
            steps.iter().any(splits_before_whitespace) && steps.iter().all(only_splits)
        }
        _ => false,
    }
}

/// A splitter that adds nothing and whose splits depend on single characters or on a known pattern.
fn only_splits(splitter: &Value) -> bool {
    match splitter["type"].as_str().unwrap_or_default() {
        "Digits" => true,
        "ByteLevel" => splitter["add_prefix_space"] == false,
        _ => splits_before_whitespace(splitter),
    }
}

/// Whether a component, or one inside it, is of this type.
pub(super) fn names_type(component: &Value, name: &str) -> bool {
    match component {
        Value::Object(map) => {
            map.get("type").is_some_and(|t| t == name) || map.values().any(|inner| names_type(inner, name))
        }
        Value::Array(list) => list.iter().any(|inner| names_type(inner, name)),
        _ => false,
    }
}
