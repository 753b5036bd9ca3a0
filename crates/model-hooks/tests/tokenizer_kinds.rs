//! Tokenizers other than GPT-2's: SentencePiece with byte fallback, and the splitters of Llama 3, Qwen 2 and SmolLM2.

use model_hooks::{AddBos, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

static SENTENCEPIECE: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_folder(at("data/sentencepiece")).unwrap());

#[test]
fn sentencepiece_equals_transformers() {
    let tokenizer = &*SENTENCEPIECE;
    let text = "Hello 日本 world";
    let encoding = tokenizer.encode(text).unwrap();
    assert_eq!(encoding.ids, [274, 259, 277, 233, 159, 175, 276]); // seven, though the file says to truncate at four
    assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), text);
    let pieces = tokenizer.to_str_tokens(&encoding.ids).unwrap();
    assert_eq!(pieces, ["Hello", "", "日", "\u{FFFD}", "\u{FFFD}", "\u{FFFD}", "world"]);
    let readable = tokenizer.readable(&encoding.ids).unwrap();
    assert_eq!(readable, [" Hello", " ", "日", "<0xE6>", "<0x9C>", "本", " world"]);
    assert_eq!(tokenizer.readable_text(&encoding.ids[1..6]).unwrap(), " 日本");
    let written: Vec<&str> = encoding.spans.iter().map(|span| &text[span.clone()]).collect();
    assert_eq!(written, ["Hello", " ", "日", "本", "本", "本", " world"]);
    assert_eq!(tokenizer.encode("🙂").unwrap().ids, [259, 243, 162, 156, 133]);
}

#[test]
fn the_template_adds_bos_only_when_asked() {
    let ids = |bos| SENTENCEPIECE.to_tokens("Hello world", bos, None).unwrap().ids;
    assert_eq!(ids(AddBos::Never), [274, 276]);
    assert_eq!(ids(AddBos::TokenizerDefault), [1, 274, 276]);
    assert_eq!(ids(AddBos::Always), [1, 274, 276]);
    // Its tokens depend on the beginning of the text, so that it cannot be cut.
    assert!(!SENTENCEPIECE.splits_at_whitespace());
}

/// GPT-2's vocabulary behind another splitter and after NFC (as Qwen's), and a post-processor that trims spans (as Llama 3's file has it).
fn gpt2_with(pre_tokenizer: Value) -> Tokenizer {
    let file = std::fs::read(at("golden/gpt2_tokenizer/tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&file).unwrap();
    json["pre_tokenizer"] = pre_tokenizer;
    json["normalizer"] = json!({"type": "NFC"});
    json["post_processor"]["trim_offsets"] = true.into();
    let inner = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    Tokenizer::from_parts(inner, SpecialTokens::default()).unwrap()
}

fn split(pattern: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]})
}

static SPLITTERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    vec![
        gpt2_with(byte_level.clone()),
        gpt2_with(split(llama3)),
        gpt2_with(split(&llama3.replace("{1,3}", ""))),
        gpt2_with(json!({"type": "Sequence", "pretokenizers": [digits, byte_level]})),
    ]
});

#[test]
fn unknown_splitters_are_not_cut() {
    assert!(SPLITTERS.iter().all(Tokenizer::splits_at_whitespace));
    assert!(!gpt2_with(split(r"\S+\s+|\s+")).splits_at_whitespace());
    assert!(!gpt2_with(Value::Null).splits_at_whitespace());
    let prefix = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    assert!(!gpt2_with(prefix).splits_at_whitespace());
}

#[test]
fn spans_are_neither_trimmed_nor_shifted() {
    for tokenizer in SPLITTERS.iter() {
        assert_eq!(tokenizer.encode("Hello world").unwrap().spans, [0..5, 5..11]);
        // `e` and a combining accent are composed to one character, which keeps the span of the `e`; what follows is not shifted.
        assert_eq!(tokenizer.encode("e\u{301} é").unwrap().spans, [0..1, 3..6]);
    }
}

proptest! {
    /// The promise of `is_cut`, for marks that are no letters, line ends after punctuation, digits and wide spaces too.
    #[test]
    fn cuts_leave_tokenization_as_it_is(text in r"([a-zA-Z0-9'.,!éी\u{301}日🙂]{0,4}[ \n\t\r\u{a0}\u{3000}]{0,3}){1,8}") {
        for tokenizer in SPLITTERS.iter() {
            let whole = tokenizer.encode(&text).unwrap().ids;
            for (at, after) in text.char_indices().skip(1) {
                let before = text[..at].chars().next_back().unwrap();
                if tokenizer.is_cut(before, after) {
                    let (a, b) = text.split_at(at);
                    let joined = [tokenizer.encode(a).unwrap().ids, tokenizer.encode(b).unwrap().ids].concat();
                    prop_assert_eq!(&joined, &whole, "{:?} | {:?}", a, b);
                }
            }
        }
    }
}
