//! GPT-2's tokenizer against Hugging Face's and TransformerLens' answers, and every explicit outcome.

use model_hooks::{AddBos, Error, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2_tokenizer")
}

static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_folder(folder()).unwrap());

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
    pieces: Vec<String>,
}

fn cases(folder: &Path) -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap()
}

#[test]
fn the_41_strings_equal_the_peers_and_round_trip() {
    let cases = cases(&folder());
    assert_eq!(cases.len(), 41);
    for case in cases {
        let encoding = GPT2.encode(&case.text).unwrap();
        assert_eq!(encoding.ids, case.ids, "{:?}", case.text);
        assert_eq!(GPT2.decode(&encoding.ids).unwrap(), case.decoded);
        assert_eq!(case.decoded, case.text);
        assert_eq!(GPT2.to_str_tokens(&encoding.ids).unwrap(), case.pieces, "{:?}", case.text);
        assert_eq!(GPT2.readable_text(&encoding.ids).unwrap(), case.text);
        assert_eq!(encoding.spans.len(), case.ids.len());
        let mut reached = 0;
        for (span, (piece, readable)) in
            encoding.spans.iter().zip(case.pieces.iter().zip(GPT2.readable(&encoding.ids).unwrap()))
        {
            let written = &case.text[span.clone()]; // panics off a character boundary
            if !piece.contains('\u{FFFD}') {
                assert_eq!(written, piece);
                assert_eq!(readable, *piece);
            }
            assert!(!readable.is_empty() && !readable.contains('\u{FFFD}'), "{readable:?}");
            assert!(span.start <= reached, "a gap before {span:?} in {:?}", case.text);
            reached = reached.max(span.end);
        }
        assert_eq!(reached, case.text.len());
    }
}

#[test]
fn split_characters_print_readably() {
    let ids = GPT2.encode("日本語").unwrap().ids;
    assert_eq!(GPT2.readable(&ids).unwrap(), ["<0xE6><0x97>", "日", "<0xE6><0x9C>", "本", "<0xE8><0xAA>", "語"]);
    assert_eq!(GPT2.readable_text(&ids[1..3]).unwrap(), "<0xA5><0xE6><0x9C>");
    // A character that is never completed, before an ordinary token.
    let hello = GPT2.to_single_token("Hello").unwrap();
    assert_eq!(GPT2.readable(&[ids[0], hello]).unwrap(), ["<0xE6><0x97>", "Hello"]);
}

#[test]
fn bos_is_explicit_and_never_doubled() {
    let gpt2 = &*GPT2;
    assert_eq!((gpt2.bos(), gpt2.eos(), gpt2.vocab_size()), (Some(50256), Some(50256), 50257));
    assert_eq!(gpt2.special_ids().iter().copied().collect::<Vec<_>>(), [50256]);
    let with = gpt2.to_tokens("Hello world", AddBos::Always, None).unwrap();
    assert_eq!((with.ids, with.added_bos, with.had_bos), (vec![50256, 15496, 995], true, false));
    assert_eq!(with.spans, [None, Some(0..5), Some(5..11)]);
    let had = gpt2.to_tokens("<|endoftext|>Hello", AddBos::Always, None).unwrap();
    assert_eq!((had.ids, had.added_bos, had.had_bos), (vec![50256, 15496], false, true));
    let never = gpt2.to_tokens("<|endoftext|>Hello", AddBos::Never, None).unwrap();
    assert_eq!((never.ids, never.added_bos, never.had_bos), (vec![50256, 15496], false, false));
    // GPT-2's own tokenizer adds nothing.
    assert!(!gpt2.to_tokens("Hello", AddBos::TokenizerDefault, None).unwrap().added_bos);
}

#[test]
fn truncation_is_reported() {
    let cut = GPT2.to_tokens("one two three four", AddBos::Always, Some(3)).unwrap();
    assert_eq!((cut.ids.len(), cut.spans.len(), cut.truncated), (3, 3, 2));
    assert_eq!(GPT2.to_tokens("one", AddBos::Always, Some(3)).unwrap().truncated, 0);
}

#[test]
fn empty_text_has_no_tokens() {
    assert!(GPT2.encode("").unwrap().ids.is_empty());
    assert_eq!(GPT2.to_tokens("", AddBos::Always, None).unwrap().ids, [50256]);
    assert!(GPT2.to_tokens("", AddBos::Never, Some(0)).unwrap().ids.is_empty());
    assert_eq!(GPT2.decode(&[]).unwrap(), "");
}

#[test]
fn single_tokens() {
    assert_eq!(GPT2.to_single_token(" Paris").unwrap(), 6342);
    let message = GPT2.to_single_token("Hello world").unwrap_err().to_string();
    assert_eq!(message, r#"`Hello world` is 2 tokens, expected exactly 1: ["Hello", " world"]"#);
    assert!(matches!(GPT2.to_single_token(""), Err(Error::NotSingleToken { pieces, .. }) if pieces.is_empty()));
}

#[test]
fn unknown_ids_are_errors() {
    let unknown = |e: Error| matches!(e, Error::UnknownToken { id: 50257, vocab_size: 50257 });
    assert!(unknown(GPT2.decode(&[1, 50257]).unwrap_err()));
    assert!(unknown(GPT2.to_str_tokens(&[50257]).unwrap_err()));
    assert!(unknown(GPT2.readable(&[50257]).unwrap_err()));
    assert_eq!((GPT2.piece(50257), GPT2.piece(995)), (None, Some(" world")));
}

/// Other models' tokenizers, in folders to which `tools/goldens/golden_tokenizer.py` has added `cases.json`.
#[test]
#[ignore = "needs tokenizers in SAESCOPE_TOKENIZERS"]
fn other_tokenizers_equal_hugging_face() {
    let folders = std::env::var("SAESCOPE_TOKENIZERS").expect("SAESCOPE_TOKENIZERS: folders, separated by `:`");
    for folder in folders.split(':').map(Path::new) {
        let tokenizer = Tokenizer::from_folder(folder).unwrap();
        for case in cases(folder) {
            let encoding = tokenizer.encode(&case.text).unwrap();
            assert_eq!(encoding.ids, case.ids, "{folder:?} {:?}", case.text);
            assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), case.decoded);
            assert_eq!(tokenizer.to_str_tokens(&encoding.ids).unwrap(), case.pieces, "{folder:?} {:?}", case.text);
            let readable = tokenizer.readable(&encoding.ids).unwrap();
            assert!(readable.iter().all(|r| !r.is_empty() && !r.contains('\u{FFFD}')), "{readable:?}");
            let whole = tokenizer.readable_text(&encoding.ids).unwrap();
            assert_eq!(whole.trim_start_matches(' '), case.decoded.trim_start_matches(' '));
        }
        println!("{folder:?}: {:?}, cut at white space: {}", tokenizer, tokenizer.splits_at_whitespace());
    }
}

/// A folder with a tokenizer of three tokens, `{name: text}` files beside it.
fn small_folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let added = |id, content| {
        format!(
            r#"{{"id":{id},"content":"{content}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    };
    let json = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{},{}],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":null,
        "model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
        "fuse_unk":false,"byte_fallback":false,"vocab":{{"a":0,"<s>":1,"</s>":2}},"merges":[]}}}}"#,
        added(1, "<s>"),
        added(2, "</s>")
    );
    std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn load_error(files: &[(&str, &str)]) -> String {
    Tokenizer::from_folder(small_folder(files).path()).unwrap_err().to_string()
}

#[test]
fn special_tokens_of_a_folder() {
    let load = |files| Tokenizer::from_folder(small_folder(files).path()).unwrap();
    let text = load(&[("tokenizer_config.json", r#"{"bos_token":"<s>","add_bos_token":true}"#)]);
    assert_eq!((text.bos(), text.eos()), (Some(1), None));
    assert_eq!(text.to_tokens("a", AddBos::TokenizerDefault, None).unwrap().ids, [1, 0]);
    let object =
        load(&[("special_tokens_map.json", r#"{"bos_token":{"content":"<s>"},"eos_token":{"content":"</s>"}}"#)]);
    assert_eq!((object.bos(), object.eos()), (Some(1), Some(2)));
    let config =
        load(&[("config.json", r#"{"bos_token_id":1}"#), ("generation_config.json", r#"{"eos_token_id":[2,1]}"#)]);
    assert_eq!((config.bos(), config.eos()), (Some(1), Some(2)));
    assert!(config.special().others.is_empty());
    let none = load(&[]);
    assert!(none.bos().is_none() && matches!(none.to_tokens("a", AddBos::Always, None), Err(Error::NoBos)));
    assert_eq!(none.special_ids().len(), 2); // marked special in tokenizer.json
}

#[test]
fn inconsistent_folders_are_errors() {
    let missing = Tokenizer::from_folder(tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(matches!(missing, Error::NoTokenizer { .. }) && missing.to_string().contains("tokenizer.json"));
    let kind = load_error(&[("tokenizer_config.json", r#"{"bos_token":3}"#)]);
    assert!(kind.contains("bos_token is 3"), "{kind}");
    let nothing_to_add = load_error(&[("tokenizer_config.json", r#"{"add_bos_token":true}"#)]);
    assert!(nothing_to_add.contains("no BOS"), "{nothing_to_add}");
    let broken = load_error(&[("tokenizer_config.json", "{")]);
    assert!(broken.contains("tokenizer_config.json"), "{broken}");
}

#[test]
fn from_parts_checks_its_ids() {
    let inner = tokenizers::Tokenizer::from_file(folder().join("tokenizer.json")).unwrap();
    let mut special = SpecialTokens::default();
    special.bos = Some(60000);
    let message = Tokenizer::from_parts(inner, special).unwrap_err().to_string();
    assert!(message.contains("60000") && message.contains("50257"), "{message}");
}

#[test]
fn tokenizers_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}

proptest! {
    /// The promise of `is_cut`, on text that mixes everything the patterns know.
    #[test]
    fn cuts_leave_tokenization_as_it_is(text in r"([a-zA-Z0-9'.,!é日🙂]{0,4}[ \n\t\r\u{a0}]{0,3}){1,8}") {
        prop_assert!(GPT2.splits_at_whitespace());
        let whole = GPT2.encode(&text).unwrap().ids;
        for (at, after) in text.char_indices().skip(1) {
            let before = text[..at].chars().next_back().unwrap();
            if GPT2.is_cut(before, after) {
                let (a, b) = text.split_at(at);
                let mut joined = GPT2.encode(a).unwrap().ids;
                joined.extend(GPT2.encode(b).unwrap().ids);
                prop_assert_eq!(&joined, &whole);
            }
        }
    }

    #[test]
    fn any_text_round_trips(text in r"\PC{0,40}") {
        let encoding = GPT2.encode(&text).unwrap();
        prop_assert_eq!(GPT2.decode(&encoding.ids).unwrap(), text.clone());
        prop_assert_eq!(GPT2.readable_text(&encoding.ids).unwrap(), text);
    }
}
