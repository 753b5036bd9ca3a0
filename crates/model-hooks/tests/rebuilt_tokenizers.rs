//! Tokenizers of folders without a `tokenizer.json`: `vocab.json` with `merges.txt` against the `tokenizer.json` they stand for, and
//! `tokenizer.model` against sentencepiece (`golden/sentencepiece`, `tools/goldens/golden_sentencepiece.py`).

use model_hooks::{AddBos, Error, LoadWarning, Tokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn cases(name: &str) -> Vec<(String, Vec<u32>, String)> {
    let cases: Value = serde_json::from_slice(&fs::read(golden(name).join("cases.json")).unwrap()).unwrap();
    let case = |case: &Value| {
        let ids = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        (case["text"].as_str().unwrap().to_owned(), ids, case["decoded"].as_str().unwrap().to_owned())
    };
    let cases: Vec<_> = cases.as_array().unwrap().iter().map(case).collect();
    assert!(cases.len() > 40);
    cases
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

fn add(dir: &TempDir, name: &str, json: Value) {
    fs::write(dir.path().join(name), json.to_string()).unwrap();
}

fn open(dir: &TempDir) -> Tokenizer {
    Tokenizer::from_folder(dir.path()).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn refused(dir: &TempDir, words: &[&str]) {
    let error = Tokenizer::from_folder(dir.path()).expect_err("it opened");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}

/// `vocab.json` and `merges.txt` of GPT-2, as its folders held them.
fn gpt2_parts() -> (Value, String) {
    let json: Value =
        serde_json::from_slice(&fs::read(golden("gpt2_tokenizer").join("tokenizer.json")).unwrap()).unwrap();
    let pair = |merge: &Value| match merge {
        Value::String(pair) => pair.clone(),
        parts => format!("{} {}", parts[0].as_str().unwrap(), parts[1].as_str().unwrap()),
    };
    let merges: Vec<String> = json["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
    (json["model"]["vocab"].clone(), format!("#version: 0.2\n{}\n", merges.join("\n")))
}

fn gpt2() -> TempDir {
    let (vocab, merges) = gpt2_parts();
    let dir = folder(&[("vocab.json", vocab.to_string().as_bytes()), ("merges.txt", merges.as_bytes())]);
    add(&dir, "config.json", json!({"model_type": "gpt2", "bos_token_id": 50256, "eos_token_id": 50256}));
    dir
}

#[test]
fn vocab_and_merges_are_the_tokenizer_json() {
    let dir = gpt2();
    let whole = Tokenizer::from_folder(golden("gpt2_tokenizer")).unwrap();
    let tokenizer = open(&dir);
    for (text, ids, decoded) in cases("gpt2_tokenizer") {
        let encoding = tokenizer.encode(&text).unwrap();
        assert_eq!(encoding, whole.encode(&text).unwrap(), "{text:?}");
        assert_eq!(encoding.ids, ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), decoded);
    }
    let end = Some(50256);
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.unk, special.pad), (end, end, end, None));
    assert_eq!((tokenizer.vocab_size(), tokenizer.special_ids()), (50257, whole.special_ids()));
    assert!(tokenizer.splits_at_whitespace() && tokenizer.warnings().is_empty());
    assert!(!tokenizer.to_tokens("a", AddBos::TokenizerDefault, None).unwrap().added_bos);

    // The class says it, too, and tokens of the files come first.
    add(&dir, "config.json", json!({}));
    add(&dir, "added_tokens.json", json!({"[PAD]": 50257}));
    let config = json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true, "pad_token": "[PAD]", "add_bos_token": true});
    add(&dir, "tokenizer_config.json", config);
    let tokenizer = open(&dir);
    assert_eq!(tokenizer.encode("Hello world").unwrap().ids, whole.encode(" Hello world").unwrap().ids);
    assert_eq!(tokenizer.encode("[PAD]").unwrap().ids, [50257]);
    assert_eq!(tokenizer.special().pad, Some(50257));
    assert_eq!(tokenizer.to_tokens("a", AddBos::TokenizerDefault, None).unwrap().ids[0], 50256);
}

#[test]
fn qwens_vocab_and_merges_are_split_by_its_own_rule() {
    let (mut vocab, merges) = gpt2_parts();
    vocab["<|im_end|>"] = 50257.into();
    let dir = folder(&[("vocab.json", vocab.to_string().as_bytes()), ("merges.txt", merges.as_bytes())]);
    add(&dir, "tokenizer_config.json", json!({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}));
    let tokenizer = open(&dir);
    // Each digit for itself, and composed characters.
    assert_eq!(tokenizer.to_str_tokens(&tokenizer.encode("1234").unwrap().ids).unwrap(), ["1", "2", "3", "4"]);
    assert_eq!(tokenizer.encode("e\u{301}").unwrap().ids, tokenizer.encode("é").unwrap().ids);
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.pad), (None, Some(50257), Some(50256)));
    assert_eq!(tokenizer.encode("a<|im_end|>").unwrap().ids, [64, 50257]);
}

#[test]
fn vocab_and_merges_of_other_kinds_are_refused() {
    let dir = gpt2();
    add(&dir, "config.json", json!({}));
    refused(&dir, &["config.json", "nothing says what kind of tokenizer", "gpt2"]);
    add(&dir, "config.json", json!({"model_type": "roberta"}));
    refused(&dir, &["model_type is roberta"]);
    for class in ["RobertaTokenizer", "CLIPTokenizer", "BartTokenizerFast"] {
        add(&dir, "tokenizer_config.json", json!({"tokenizer_class": class}));
        refused(&dir, &["tokenizer_config.json", class, "GPT2Tokenizer"]);
    }
    add(&dir, "tokenizer_config.json", json!({"tokenizer_class": 3}));
    refused(&dir, &["tokenizer_class is 3, expected a text"]);
    // One of the two files alone is no tokenizer.
    fs::remove_file(dir.path().join("merges.txt")).unwrap();
    assert!(matches!(Tokenizer::from_folder(dir.path()), Err(Error::NoTokenizer { .. })));
}

#[test]
fn hostile_vocab_and_merges() {
    let with = |vocab: &str, merges: &[u8]| {
        let dir = folder(&[("vocab.json", vocab.as_bytes()), ("merges.txt", merges)]);
        add(&dir, "config.json", json!({"model_type": "gpt2"}));
        dir
    };
    let (vocab, _) = gpt2_parts();
    let sound = vocab.to_string();
    for (vocab, says) in [
        ("", "vocab.json"),
        ("[]", "vocab.json"),
        ("{}", "a byte-level vocabulary has one for each"),
        (r#"{"a": -1}"#, "vocab.json"),
        (r#"{"a": 1.5}"#, "vocab.json"),
        (r#"{"a": 4294967296}"#, "vocab.json"),
        (r#"{"a": 1, "b": 1}"#, "has another token, too"),
    ] {
        refused(&with(vocab, b""), &[says]);
    }
    for (merges, says) in [
        (&b"#version: 0.2\n\xC4\xA0 t\nt"[..], "line 3 is \"t\""),
        (b"a b c", "line 1 is \"a b c\""),
        (b"a \xE2\x98\x83", "whose concatenation is a token"),
        (b"#version\n#version: 0.2", "line 2 is"),
        (&[0xFF, 0xFE], "merges.txt"),
    ] {
        refused(&with(&sound, merges), &[says]);
    }
    // A far id would make tables large.
    let mut far = vocab;
    far["far"] = 4_000_000_000u32.into();
    refused(&with(&far.to_string(), b""), &["ids up to 4000000000"]);
    // Line ends of Windows, and a merge of the character that comments begin with elsewhere.
    assert_eq!(open(&with(&sound, b"# #\r\nt h\r\n")).encode("##th").unwrap().ids.len(), 2);
}

fn sentencepiece(name: &str) -> TempDir {
    folder(&[("tokenizer.model", &fs::read(golden("sentencepiece").join(name).join("tokenizer.model")).unwrap())])
}

#[test]
fn models_of_sentencepiece_give_its_ids() {
    for name in ["llama", "gemma", "unigram", "bytes"] {
        let tokenizer = open(&sentencepiece(name));
        let unk = tokenizer.special().unk.unwrap();
        for (text, ids, decoded) in cases(&format!("sentencepiece/{name}")) {
            assert_eq!(tokenizer.encode(&text).unwrap().ids, ids, "{name}: {text:?}");
            // sentencepiece prints an unknown piece as ` ⁇ `.
            if !ids.contains(&unk) {
                assert_eq!(tokenizer.decode(&ids).unwrap(), decoded, "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn roles_of_a_sentencepiece_model() {
    let dir = sentencepiece("llama");
    let roles = |tokenizer: &Tokenizer| {
        let special = tokenizer.special();
        [special.unk, special.bos, special.eos, special.pad]
    };
    let plain = open(&dir);
    assert_eq!(roles(&plain), [Some(0), Some(1), Some(2), None]);
    assert!(!plain.to_tokens("a", AddBos::TokenizerDefault, None).unwrap().added_bos, "nothing says that it adds one");
    assert_eq!(plain.encode("</s>").unwrap().ids, [2]);
    assert_eq!(roles(&open(&sentencepiece("gemma"))), [Some(3), Some(2), Some(1), Some(0)]);
    assert_eq!(roles(&open(&sentencepiece("unigram"))), [Some(2), Some(0), Some(1), None]);

    // By the model, or by the class; the files' own words come first.
    add(&dir, "config.json", json!({"model_type": "llama", "bos_token_id": 1, "eos_token_id": [2, 5]}));
    let tokenizer = open(&dir);
    assert!(tokenizer.to_tokens("a", AddBos::TokenizerDefault, None).unwrap().added_bos);
    assert_eq!(tokenizer.eos_ids().iter().copied().collect::<Vec<_>>(), [2, 5]);
    let added = json!({"640": {"content": "[PAD]", "special": true}});
    let config = json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "legacy": false, "add_prefix_space": false,
        "pad_token": "[PAD]", "added_tokens_decoder": added});
    add(&dir, "tokenizer_config.json", config);
    let tokenizer = open(&dir);
    assert_eq!(roles(&tokenizer), [Some(0), Some(1), Some(2), Some(640)]);
    assert!(!tokenizer.to_tokens("a", AddBos::TokenizerDefault, None).unwrap().added_bos);
    assert!(matches!(tokenizer.warnings(), [LoadWarning::Ignored { key: Some(key), .. }] if key == "legacy"));
    assert_eq!(plain.encode("a").unwrap().ids.len(), tokenizer.encode(" a").unwrap().ids.len());
    assert_eq!(tokenizer.decode(&tokenizer.encode("the dog[PAD]").unwrap().ids).unwrap(), "the dog[PAD]");
}

#[test]
fn classes_that_number_pieces_otherwise_are_refused() {
    let dir = sentencepiece("unigram");
    add(&dir, "tokenizer_config.json", json!({"tokenizer_class": "XLMRobertaTokenizer"}));
    refused(&dir, &["tokenizer.model", "XLMRobertaTokenizer", "LlamaTokenizer"]);
    add(&dir, "tokenizer_config.json", json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    add(&dir, "config.json", json!({"model_type": "t5"}));
    refused(&dir, &["model_type is t5", "mistral"]);
}

#[test]
fn a_tokenizer_json_comes_first() {
    let dir = gpt2();
    fs::copy(golden("sentencepiece/llama/tokenizer.model"), dir.path().join("tokenizer.model")).unwrap();
    fs::copy(golden("gpt2_tokenizer/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(open(&dir).vocab_size(), 50257);
}

/// Cut short anywhere, or with any byte changed: it opens, or there is an error; and what opens encodes.
#[test]
fn damaged_models_never_panic() {
    for name in ["llama", "unigram"] {
        let whole = fs::read(golden("sentencepiece").join(name).join("tokenizer.model")).unwrap();
        let mut opened = 0;
        let mut try_one = |bytes: &[u8]| {
            if let Ok(tokenizer) = Tokenizer::from_folder(folder(&[("tokenizer.model", bytes)]).path()) {
                opened += 1;
                let _ =
                    tokenizer.encode("ﬁ The 12 cats, é ☃\t\u{ff21}  ").map(|encoding| tokenizer.decode(&encoding.ids));
            }
        };
        (0..whole.len()).step_by(whole.len() / 50).for_each(|len| try_one(&whole[..len]));
        let mut state = 7u64;
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..2 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            try_one(&bytes);
        }
        assert!(opened > 20, "{name}: {opened}");
    }
    for bytes in [&b""[..], b"\0", b"{}", b"PK\x03\x04", &[0xFF; 64]] {
        refused(&folder(&[("tokenizer.model", bytes)]), &["tokenizer.model"]);
    }
}

/// A message of the format: fields of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut out = vec![number << 3 | 2];
    while length > 127 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    [out, bytes.to_vec()].concat()
}

fn piece(text: &str, kind: u8) -> Vec<u8> {
    field(1, &[field(1, text.as_bytes()), vec![3 << 3, kind]].concat())
}

#[test]
fn hostile_models_are_refused() {
    let model = |pieces: Vec<Vec<u8>>, bpe: u8| {
        folder(&[("tokenizer.model", &[pieces.concat(), field(2, &[3 << 3, bpe])].concat())])
    };
    refused(&model(vec![piece("a", 1)], 2), &["no unknown piece"]);
    refused(&model(vec![piece("a", 2), piece("b", 2)], 2), &["no unknown piece, or several"]);
    refused(&model(vec![piece("u", 2), piece(&"a".repeat(600), 1)], 2), &["600 bytes"]);
    refused(&model(vec![piece("u", 2), piece(&"a".repeat(600), 1)], 1), &["600 bytes"]);
    // Every run of a letter: as many pairs as the square of the pieces.
    let runs = (1..=500).map(|n| piece(&"a".repeat(n), 1));
    refused(&model([piece("u", 2)].into_iter().chain(runs).collect(), 2), &["pairs of pieces"]);
    // Rules of normalization that lead astray.
    let rules = |charsmap: &[u8]| {
        let bytes = [piece("u", 2), piece("a", 1), field(3, &field(2, charsmap))].concat();
        folder(&[("tokenizer.model", &bytes)])
    };
    let trie = [&1024u32.to_le_bytes()[..], &[0xFF; 1024]].concat();
    for charsmap in [&[1u8, 2][..], &[0, 4, 0, 0, 1], &trie] {
        refused(&rules(charsmap), &["precompiled_charsmap"]);
    }
}

/// A file is read up to its bound and no further, whatever it says or does meanwhile.
#[test]
#[cfg(unix)]
fn what_is_no_file_or_too_long_is_refused() {
    use std::os::unix::fs::symlink;
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        let dir = gpt2();
        let _ = fs::remove_file(dir.path().join(name));
        symlink("/dev/zero", dir.path().join(name)).unwrap();
        refused(&dir, &[name, "expected a file of at most"]);
    }
    let dir = gpt2();
    fs::File::create(dir.path().join("tokenizer_config.json")).unwrap().set_len((16 << 20) + 1).unwrap();
    refused(&dir, &["tokenizer_config.json", "16777217 bytes, at most 16777216"]);
    // What only says how to generate is left out.
    let dir = gpt2();
    fs::File::create(dir.path().join("generation_config.json")).unwrap().set_len((16 << 20) + 1).unwrap();
    let tokenizer = open(&dir);
    assert!(
        matches!(tokenizer.warnings(), [LoadWarning::Ignored { file, key: None, .. }] if file == "generation_config.json")
    );
    for (name, most) in [("vocab.json", 1u64 << 26), ("merges.txt", 1 << 26), ("tokenizer.json", 1 << 28)] {
        let dir = gpt2();
        fs::File::create(dir.path().join(name)).unwrap().set_len(most + 1).unwrap();
        refused(&dir, &[name, &format!("at most {most} are read")]);
    }
}
