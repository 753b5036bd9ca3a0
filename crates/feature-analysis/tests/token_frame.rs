//! The token frame against the notebook's, by hand, and on characters that tokens split.

mod common;

use activation_store::{DocId, Origin, TokenRow};
use arrow::array::AsArray;
use arrow::datatypes::{UInt32Type, UInt64Type};
use common::{row, texts, tokenizer};
use feature_analysis::{ContextEnd, FrameOptions, Place, token_frame, token_frame_at};
use model_hooks::Tokenizer;
use serde_json::Value;

fn notebook() -> FrameOptions {
    FrameOptions { suffix: ContextEnd::Notebook, ..FrameOptions::default() }
}

fn demo_tokenizer() -> Tokenizer {
    Tokenizer::from_folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo/lm")).unwrap()
}

#[test]
fn equals_the_notebooks_frame() {
    let golden: Vec<Value> = serde_json::from_str(include_str!("golden/token_frame.json")).unwrap();
    let of = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let mut words: Vec<String> = golden.iter().map(|line| of(line, "str_tokens")).collect();
    let mut vocab = words.clone();
    vocab.sort();
    vocab.dedup();
    // The BOS must be token 0 of the test's tokenizer.
    let bos = vocab.iter().position(|w| w == "<|endoftext|>").unwrap();
    vocab.swap(0, bos);
    let tokenizer = tokenizer(&vocab.iter().map(String::as_str).collect::<Vec<_>>());
    let ids: Vec<u32> = words.drain(..).map(|w| vocab.iter().position(|v| *v == w).unwrap() as u32).collect();
    let rows = [row(0, &ids[..128]), row(1, &ids[128..])];
    let frame = token_frame(&rows, 0, &tokenizer, &notebook()).unwrap();
    for column in ["str_tokens", "unique_token", "context", "label"] {
        let want: Vec<String> = golden.iter().map(|line| of(line, column)).collect();
        assert_eq!(texts(&frame, column), want, "{column}");
    }
    for column in ["prompt", "pos"] {
        let want: Vec<u32> = golden.iter().map(|line| line[column].as_u64().unwrap() as u32).collect();
        assert_eq!(frame.column_by_name(column).unwrap().as_primitive::<UInt32Type>().values()[..], want);
    }
}

#[test]
fn both_suffix_rules_by_hand() {
    let tokenizer = tokenizer(&["<s>", "a", "b", "c", "d", "e", "f", "g"]);
    let rows = [row(7, &[0, 1, 2, 3, 4, 5, 6, 7])];
    let full = token_frame(&rows, 3, &tokenizer, &FrameOptions::default()).unwrap();
    let contexts = texts(&full, "context");
    assert_eq!(contexts[0], "|<s>|abc");
    assert_eq!(contexts[4], "<s>abc|d|efg", "the row's last token is shown");
    assert_eq!(contexts[6], "abcde|f|g", "five before");
    assert_eq!(contexts[7], "bcdef|g|");
    let seed = texts(&token_frame(&rows, 3, &tokenizer, &notebook()).unwrap(), "context");
    assert_eq!((&seed[4][..], &seed[6][..], &seed[7][..]), ("<s>abc|d|ef", "abcde|f|", "bcdef|g|"));
    let special = full.column_by_name("special").unwrap().as_boolean();
    assert!(special.value(0) && !special.value(1));
    let number = |column: &str, i: usize| full.column_by_name(column).unwrap().as_primitive::<UInt64Type>().value(i);
    assert_eq!((number("row", 5), number("batch", 5), number("document", 5), number("span_start", 5)), (7, 3, 7, 5));
    let spans = full.column_by_name("span_end").unwrap();
    assert!(spans.is_null(0) && !spans.is_null(1), "an inserted token has no place in a document");
}

#[test]
fn any_context_lengths_stay_in_the_row() {
    let tokenizer = tokenizer(&["<s>", "a"]);
    for n in 1..5 {
        let rows = [row(0, &vec![1; n])];
        for (prefix, suffix) in [(0, 0), (0, 9), (9, 0), (1, 1), (usize::MAX, usize::MAX)] {
            for rule in [ContextEnd::Full, ContextEnd::Notebook] {
                let options = FrameOptions { len_prefix: prefix, len_suffix: suffix, suffix: rule };
                let frame = token_frame(&rows, 0, &tokenizer, &options).unwrap();
                for (pos, context) in texts(&frame, "context").iter().enumerate() {
                    let (before, after) = context.split_once("|a|").unwrap();
                    assert_eq!(before.len(), pos.min(prefix));
                    let last = if rule == ContextEnd::Full { n } else { n - 1 };
                    assert_eq!(after.len(), last.saturating_sub(pos + 1).min(suffix));
                }
            }
        }
    }
}

/// Law 4: an address leads to the token's bytes in the document; and characters that tokens split print whole.
#[test]
fn addresses_resolve_and_split_characters_are_readable() {
    let text = "On Monday, na\u{ef}ve caf\u{e9}s: \u{65e5}\u{672c}\u{8a9e} \u{1f642}.";
    let tokenizer = demo_tokenizer();
    let encoding = tokenizer.encode(text).unwrap();
    let doc = DocId { file: 2, ordinal: 9 };
    let span = |s: &std::ops::Range<usize>| Some(Origin { doc, span: s.start as u64..s.end as u64 });
    let tokens = TokenRow { row: 0, tokens: encoding.ids.clone(), origin: encoding.spans.iter().map(span).collect() };
    let frame = token_frame(&[tokens], 0, &tokenizer, &FrameOptions::default()).unwrap();
    let number =
        |column: &str, i: usize| frame.column_by_name(column).unwrap().as_primitive::<UInt64Type>().value(i) as usize;
    let (alone, readable) = (texts(&frame, "str_tokens"), texts(&frame, "readable"));
    assert!(alone.iter().any(|t| t.contains('\u{fffd}')), "the text should split characters");
    for i in 0..frame.num_rows() {
        let slice = &text[number("span_start", i)..number("span_end", i)];
        assert!(alone[i].contains('\u{fffd}') || alone[i] == slice, "{slice:?} at {i} prints as {:?}", alone[i]);
        assert!(!readable[i].contains('\u{fffd}'));
    }
    for whole in ["\u{672c}", "\u{1f642}", " Monday"] {
        assert!(readable.iter().any(|t| t == whole), "{whole} is printed whole where it is completed: {readable:?}");
    }
    let (context, plain) = (texts(&frame, "readable_context"), texts(&frame, "context"));
    let smile = readable.iter().position(|t| t == "\u{1f642}").unwrap();
    assert!(context[smile].ends_with("|\u{1f642}|."), "{}", context[smile]);
    assert!(plain[smile].contains('\u{fffd}'));
}

#[test]
fn chosen_places_only_in_their_order() {
    let tokenizer = tokenizer(&["<s>", "a", "b", "c"]);
    let rows = [row(0, &[0, 1, 2]), row(1, &[0, 3, 3])];
    let at = |row: usize, pos| Place { row: &rows[row], pos, batch: 4, prompt: row as u32 };
    let frame = token_frame_at(&[at(1, 2), at(0, 1)], &tokenizer, &FrameOptions::default()).unwrap();
    assert_eq!(texts(&frame, "context"), ["<s>c|c|", "<s>|a|b"]);
    assert_eq!(texts(&frame, "label"), ["1/2", "0/1"]);
    assert_eq!(token_frame_at(&[], &tokenizer, &FrameOptions::default()).unwrap().num_rows(), 0);
    let unknown = [row(0, &[9])];
    assert!(token_frame(&unknown, 0, &tokenizer, &FrameOptions::default()).is_err());
}
