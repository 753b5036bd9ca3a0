//! Tokenizers rebuilt from GGUF metadata give the ids of the `tokenizer.json` form (`golden/gguf`, `tools/goldens/golden_gguf.py`).

mod gguf_support;

use gguf_support::{Gguf, damaged, golden, text, write};
use model_hooks::gguf::{Array, GgufFile, Value};
use model_hooks::{AddBos, LanguageModel, LoadOptions, Tokenizer, load};
use serde_json::Value as Json;

const KEYS: &str = "tokenizer.ggml.";

/// The smallest model that can carry a tokenizer: one layer, width 2.
fn with_a_model(gguf: Gguf, tokens: usize) -> Gguf {
    let n = |n| Value::Unsigned(n);
    let block = |gguf: Gguf, part: &str, shape: &[usize]| {
        let values = vec![0.5; shape.iter().product()];
        gguf.tensor(part, shape, &values)
    };
    let gguf = gguf
        .entry("general.architecture", Value::String("llama".into()))
        .entry("llama.block_count", n(1))
        .entry("llama.context_length", n(64))
        .entry("llama.embedding_length", n(2))
        .entry("llama.feed_forward_length", n(2))
        .entry("llama.attention.head_count", n(1))
        .entry("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let gguf = square.iter().fold(gguf, |gguf, part| block(gguf, &format!("blk.0.{part}.weight"), &[2, 2]));
    let norms = ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"];
    let gguf = norms.iter().fold(gguf, |gguf, part| block(gguf, &format!("{part}.weight"), &[2]));
    block(gguf, "token_embd.weight", &[tokens, 2])
}

/// The smallest Phi-3.
fn open_phi3(gguf: Gguf, tokens: usize) -> model_hooks::Result<LanguageModel> {
    let mut gguf = with_a_model(gguf, tokens).entry("general.architecture", Value::String("phi3".into()));
    for (key, _) in &mut gguf.entries {
        if key[8..].starts_with(b"llama.") {
            *key = text(&String::from_utf8(key[8..].to_vec()).unwrap().replacen("llama.", "phi3.", 1));
        }
    }
    let unfused = ["attn_q.", "attn_k.", "attn_v.", "ffn_gate.", "ffn_up."];
    gguf.tensors.retain(|tensor| !unfused.iter().any(|part| tensor.name.contains(part)));
    let gguf = gguf.tensor("blk.0.attn_qkv.weight", &[6, 2], &[0.5; 12]);
    let (_dir, path) = gguf.tensor("blk.0.ffn_up.weight", &[4, 2], &[0.5; 8]).write();
    load(&path, &LoadOptions::default())
}

fn open(gguf: Gguf, tokens: usize) -> model_hooks::Result<LanguageModel> {
    let (_dir, path) = with_a_model(gguf, tokens).write();
    load(&path, &LoadOptions::default())
}

fn vocabulary(file: &str) -> Gguf {
    let mut gguf = Gguf::metadata_of(&golden("gguf").join(file));
    // The model is ours; only the tokenizer's keys are kept.
    let prefix: Vec<u8> = KEYS.bytes().collect();
    gguf.entries.retain(|(key, _)| key[8..].starts_with(&prefix));
    gguf
}

fn answers(name: &str) -> Vec<(String, Vec<u32>)> {
    let text = std::fs::read_to_string(golden("gguf/tokenizer_ids.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    let row = |row: &Json| {
        let ids = row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        (row["text"].as_str().unwrap().to_owned(), ids)
    };
    json[name].as_array().unwrap().iter().map(row).collect()
}

#[track_caller]
fn assert_ids(tokenizer: &Tokenizer, name: &str) {
    let answers = answers(name);
    assert!(answers.len() > 50);
    for (text, ids) in answers {
        assert_eq!(tokenizer.encode(&text).unwrap().ids, ids, "{name}: {text:?}");
    }
}

#[test]
fn every_pre_tokenizer_gives_the_ids_of_its_tokenizer_json() {
    for (pre, like) in [
        ("gpt-2", "gpt-2"),
        ("smollm", "smollm"),
        ("starcoder", "starcoder"),
        ("llama-bpe", "llama-bpe"),
        ("llama3", "llama-bpe"),
        ("llama-v3", "llama-bpe"),
        ("qwen2", "qwen2"),
    ] {
        let gguf = vocabulary("crossing.gguf").entry("tokenizer.ggml.pre", Value::String(pre.into()));
        assert_ids(open(gguf, 1500).unwrap().try_tokenizer().unwrap(), like);
    }
}

#[test]
fn the_rules_differ_on_these_texts() {
    // Else the test above could not tell one rule from another.
    let rules = ["gpt-2", "smollm", "llama-bpe", "qwen2"].map(answers);
    for (i, a) in rules.iter().enumerate() {
        assert!(rules[i + 1..].iter().all(|b| a != b));
    }
}

#[test]
fn sentencepiece_gives_the_ids_of_its_tokenizer_json_and_of_sentencepiece() {
    let model = open(vocabulary("sentencepiece.gguf"), 640).unwrap();
    let tokenizer = model.try_tokenizer().unwrap();
    assert_ids(tokenizer, "sentencepiece");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.special().unk), (Some(1), Some(2), Some(0)));
    assert_eq!(tokenizer.special().adds_bos, Some(true), "what a file of this kind means when it does not say");
    let ids = tokenizer.encode(" two  spaces, é ☃").unwrap().ids;
    assert_eq!(tokenizer.decode(&ids).unwrap(), " two  spaces, é ☃");
}

#[test]
fn a_model_file_has_the_tokenizer_of_the_folder() {
    let model = load(&golden("gguf/llama.gguf"), &LoadOptions::default()).unwrap();
    let tokenizer = model.try_tokenizer().unwrap();
    assert_ids(tokenizer, "llama.gguf");
    let json = tokenizers::Tokenizer::from_file(golden("gguf/tokenizer.json")).unwrap();
    for id in 0..384 {
        assert_eq!(tokenizer.token_to_id(&json.id_to_token(id).unwrap()), Some(id));
    }
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.special().pad), (Some(1), Some(2), Some(0)));
    assert_eq!(tokenizer.special().adds_bos, Some(true));
    // Control tokens are special, user-defined ones are found in text but are not.
    assert_eq!(tokenizer.special_ids().iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(tokenizer.encode("<tool>").unwrap().ids, [383]);
    assert_eq!(model.name(), "llama");
}

#[test]
fn who_adds_a_bos_when_the_file_does_not_say() {
    let adds = |pre: &str| {
        let silent = vocabulary("crossing.gguf").without("tokenizer.ggml.add_bos_token");
        let model = open(silent.entry("tokenizer.ggml.pre", Value::String(pre.into())), 1500).unwrap();
        model.try_tokenizer().unwrap().special().adds_bos
    };
    assert_eq!(adds("smollm"), Some(false));
    assert_eq!(adds("llama-bpe"), Some(true));
}

#[test]
fn a_file_without_a_tokenizer_is_a_model_without_one() {
    for none in ["none", "no_vocab"] {
        let gguf = Gguf::default().entry("tokenizer.ggml.model", Value::String(none.into()));
        assert!(open(gguf, 3).unwrap().tokenizer().is_none());
    }
    assert!(open(Gguf::default(), 3).unwrap().tokenizer().is_none());
}

#[test]
fn a_file_that_adds_an_eos_is_reported_not_ignored() {
    let with = |gguf: Gguf, add: bool| gguf.entry("tokenizer.ggml.add_eos_token", Value::Bool(add));
    let model = open(with(vocabulary("crossing.gguf"), true), 1500).unwrap();
    let error = model.try_tokenizer().unwrap().to_tokens("a", AddBos::TokenizerDefault, None).unwrap_err().to_string();
    assert!(error.contains("something other than one BOS") && error.contains(", 2]"), "{error}");
    let model = open(with(vocabulary("crossing.gguf"), false), 1500).unwrap();
    let tokens = model.try_tokenizer().unwrap().to_tokens("a", AddBos::TokenizerDefault, None).unwrap();
    assert_eq!((tokens.ids[0], tokens.ids.len()), (1, 2));
    let no_eos = with(vocabulary("crossing.gguf"), true).without("tokenizer.ggml.eos_token_id");
    refused(no_eos, 1500, "expected false: there is no EOS token");
}

#[test]
fn runs_of_white_space_that_are_tokens_of_their_own() {
    // As the converter writes Gemma's: user-defined, with spaces, not "▁".
    let mut names: Vec<String> = ["<unk>", "<s>", "</s>", "  ", "   ", "\n\n"].map(String::from).to_vec();
    names.extend(["▁", "a", "b", "▁b", "\n"].map(String::from));
    let kinds = vec![2, 3, 3, 4, 4, 4, 1, 1, 1, 1, 1];
    let scores = vec![0., 0., 0., -1000., -1000., -1000., -2., -3., -4., -1., -5.];
    let gguf = Gguf::default()
        .entry("tokenizer.ggml.model", Value::String("llama".into()))
        .entry("tokenizer.ggml.tokens", Value::Array(Array::String(names)))
        .entry("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)))
        .entry("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
        .entry("tokenizer.ggml.bos_token_id", Value::Unsigned(1))
        .entry("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let model = open(gguf, 11).unwrap();
    let tokenizer = model.try_tokenizer().unwrap();
    let text = "a b  b   b\n\n\na ";
    let ids = tokenizer.encode(text).unwrap().ids;
    // The longest run first; a single space belongs to the word behind it; nothing is put in front.
    assert_eq!(ids, [7, 9, 3, 8, 4, 8, 5, 10, 7, 6]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
}

#[test]
fn phi3s_special_tokens_swallow_what_white_space_follows() {
    let phi3 = open_phi3(vocabulary("sentencepiece.gguf"), 640).unwrap();
    let llama = open(vocabulary("sentencepiece.gguf"), 640).unwrap();
    let ids = |model: &LanguageModel, text: &str| model.try_tokenizer().unwrap().encode(text).unwrap().ids;
    for (text, stripped) in [("<tool>  x", "<tool>x"), ("</s>\n x", "</s>x"), ("<s> x", "<s> x")] {
        assert_eq!(ids(&phi3, text), ids(&llama, stripped), "{text:?}");
    }
}

#[track_caller]
fn refused(gguf: Gguf, tokens: usize, with: &str) {
    let found = open(gguf, tokens).expect_err("it loaded").to_string();
    assert!(found.contains(with), "{found}");
}

fn texts(list: &[&str]) -> Value {
    Value::Array(Array::String(list.iter().map(|s| (*s).to_owned()).collect()))
}

#[test]
fn an_unknown_pre_tokenizer_is_named_with_the_known_ones() {
    let pre = |pre: &str| vocabulary("crossing.gguf").entry("tokenizer.ggml.pre", Value::String(pre.into()));
    let known = "supported: gpt-2, olmo, smollm, starcoder, llama-bpe, llama3, llama-v3, qwen2, deepseek-r1-qwen";
    for unknown in ["deepseek-v3", "default", ""] {
        refused(pre(unknown), 1500, &format!("unsupported pre-tokenizer (tokenizer.ggml.pre): {unknown}; {known}"));
    }
    refused(pre("x").without("tokenizer.ggml.pre"), 1500, "key `tokenizer.ggml.pre` is missing");
    let odd = vocabulary("sentencepiece.gguf").entry("tokenizer.ggml.pre", Value::String("llama-bpe".into()));
    refused(odd, 640, "pre-tokenizer (tokenizer.ggml.pre) of a SentencePiece model: llama-bpe; supported: default");
}

#[test]
fn an_unknown_tokenizer_model_is_named() {
    let bert = vocabulary("crossing.gguf").entry("tokenizer.ggml.model", Value::String("bert".into()));
    refused(bert, 1500, "tokenizer model (tokenizer.ggml.model): bert; supported: gpt2, llama");
}

#[test]
fn vocabularies_that_contradict_themselves() {
    let small = |tokens: &[&str], merges: &[&str]| {
        Gguf::default()
            .entry("tokenizer.ggml.model", Value::String("gpt2".into()))
            .entry("tokenizer.ggml.pre", Value::String("gpt-2".into()))
            .entry("tokenizer.ggml.tokens", texts(tokens))
            .entry("tokenizer.ggml.merges", texts(merges))
    };
    assert!(open(small(&["a", "b", "ab"], &["a b"]), 3).is_ok());
    refused(small(&["a", "b", "a"], &[]), 3, "\"a\" at id 2, empty or not for the first time");
    refused(small(&["a", "", "b"], &[]), 3, "\"\" at id 1");
    for bad in ["a c", "c a", "b a", "ab", "", " ", "a  b"] {
        refused(
            small(&["a", "b", "ab"], &["a b", bad]),
            3,
            &format!("key `tokenizer.ggml.merges` is {bad:?} at rank 1"),
        );
    }
    refused(small(&["a", "b", "ab"], &["a b"]), 2, "expected at most 2 tokens");
    refused(small(&["a"], &[]).without("tokenizer.ggml.merges"), 1, "key `tokenizer.ggml.merges` is missing");
    refused(small(&["a"], &[]).without("tokenizer.ggml.tokens"), 1, "key `tokenizer.ggml.tokens` is missing");
    let kinds = |kinds| small(&["a", "b"], &[]).entry("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    assert!(open(kinds(vec![1, 3]), 2).is_ok());
    refused(kinds(vec![1]), 2, "key `tokenizer.ggml.token_type` is 1, expected 2 entries");
    refused(kinds(vec![1, 7]), 2, "is 7 at id 1, expected types from 1 to 6");
    let no_bos = small(&["a"], &[]).entry("tokenizer.ggml.add_bos_token", Value::Bool(true));
    refused(no_bos, 1, "no BOS");
}

#[test]
fn sentencepiece_files_that_contradict_themselves() {
    let spoiled = |key: &str, value| vocabulary("sentencepiece.gguf").entry(key, value);
    let scores = |scores| spoiled("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    refused(scores(vec![0.0; 3]), 640, "key `tokenizer.ggml.scores` is 3, expected 640 entries");
    refused(scores(vec![f32::NAN; 640]), 640, "is NaN at id 0");
    let stripped = spoiled("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true));
    refused(stripped, 640, "key `tokenizer.ggml.remove_extra_whitespaces` is true, expected false");
    refused(spoiled("tokenizer.ggml.unknown_token_id", Value::Unsigned(640)), 640, "expected an id of the vocabulary");
    // A piece whose splits would take forever to look at.
    let mut tokens: Vec<String> = (0..640).map(|i| format!("t{i}")).collect();
    tokens[639] = "a".repeat(600);
    refused(spoiled("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))), 640, "one of 600 bytes");
}

#[test]
fn random_damage_never_panics() {
    // Anywhere in the header of a model with a tokenizer: it loads, or it is refused.
    for (file, tokens) in [("crossing.gguf", 1500), ("sentencepiece.gguf", 640)] {
        let gguf = with_a_model(vocabulary(file), tokens);
        let (whole, header) = (gguf.bytes(), gguf.header().len());
        let mut sound = 0;
        for bytes in damaged(&whole, 0..header, 300) {
            let (_dir, path) = write(&bytes);
            sound += usize::from(GgufFile::open(&path).is_ok());
            if let Ok(model) = load(&path, &LoadOptions::default()) {
                let _: Option<_> = model.tokenizer().map(|tokenizer| tokenizer.encode("some text, é"));
            }
        }
        assert!(sound > 10, "most damage must get past the reader to be worth trying: {sound} for {file}");
    }
}
