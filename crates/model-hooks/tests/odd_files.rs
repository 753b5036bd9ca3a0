//! The files that people really have: several ends of text, files that contradict each other, tied weights under either name, vocabularies
//! that are padded or too long.

mod common;
mod gguf_support;
#[path = "common/say.rs"]
mod say;

use candle_core::{DType, Tensor};
use common::{Golden, Pieces, assert_same_bits, families};
use gguf_support::convert::Recipe;
use gguf_support::golden;
use model_hooks::gguf::{Array, Value};
use model_hooks::{GenerateOptions, LanguageModel, LoadOptions, LoadWarning, NoTap, Processing, StopReason, load};
use say::say;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

/// The small Llama with a tokenizer of its 384 ids, and files beside it.
fn llama(files: &[(&str, Json)]) -> tempfile::TempDir {
    let dir = Pieces::of("llama").write();
    std::fs::copy(golden("gguf/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    for (name, json) in files {
        write(dir.path(), name, &json.to_string());
    }
    dir
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

fn open(dir: &tempfile::TempDir) -> LanguageModel {
    load(dir.path(), &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn config(changes: Json) -> (&'static str, Json) {
    let mut config = Pieces::of("llama").config;
    changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    ("config.json", config)
}

fn eos(model: &LanguageModel) -> Vec<u32> {
    model.eos_ids().iter().copied().collect()
}

fn warnings(model: &LanguageModel) -> Vec<String> {
    model.warnings().iter().map(ToString::to_string).collect()
}

fn told(model: &LanguageModel, ids: &[u32]) -> (String, Vec<u32>, StopReason) {
    let mut options = GenerateOptions::default();
    options.max_new_tokens = ids.len();
    let mut shown = String::new();
    let mut show = |text: &str| {
        shown += text;
        ControlFlow::Continue(())
    };
    let found = model.generate_text("The", &options, &mut say(ids.to_vec()), &mut show).unwrap();
    assert_eq!(shown, found.text);
    (found.text, found.ids, found.stopped)
}

#[test]
fn generation_ends_at_every_id_that_a_folder_names() {
    let dir = llama(&[
        ("tokenizer_config.json", json!({"bos_token": "<|bos|>", "eos_token": "<|endoftext|>"})),
        config(json!({"eos_token_id": 2, "bos_token_id": 1})),
        ("generation_config.json", json!({"eos_token_id": [2, 46, 300]})),
    ]);
    let model = open(&dir);
    assert_eq!(eos(&model), [2, 46, 300]);
    assert_eq!(model.tokenizer().unwrap().eos(), Some(2));
    // Words that end texts stay words.
    assert_eq!(model.tokenizer().unwrap().special_ids(), &BTreeSet::from([0, 1, 2]));
    assert_eq!(warnings(&model), [""; 0]);
    for end in [2, 46, 300] {
        let (_, ids, stopped) = told(&model, &[70, 71, end, 72]);
        assert_eq!((ids, stopped), (vec![70, 71, end], StopReason::Token(end)));
    }
    assert_eq!(told(&model, &[70, 71, 72]).2, StopReason::MaxNewTokens);

    // A list in config.json, and the part of a configuration that is about text.
    let listed = llama(&[config(json!({"eos_token_id": [5, 6]}))]);
    assert_eq!(eos(&open(&listed)), [5, 6]);
    let inside = llama(&[config(json!({"eos_token_id": null, "text_config": {"eos_token_id": [7, 8]}}))]);
    assert_eq!(eos(&open(&inside)), [7, 8]);

    // Without a tokenizer, too.
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(eos(&open(&dir)), [2, 46, 300]);
}

#[test]
fn an_end_that_pads_the_vocabulary_still_ends() {
    let dir =
        llama(&[config(json!({"eos_token_id": 2})), ("generation_config.json", json!({"eos_token_id": [2, 9000]}))]);
    let model = open(&dir);
    assert_eq!(eos(&model), [2, 9000]);
    let said = warnings(&model);
    assert_eq!(
        said,
        ["generation_config.json: eos_token_id 9000 is not in the vocabulary of 384 tokens and is not used"]
    );
}

#[test]
fn a_damaged_generation_config_is_reported_and_left_out() {
    for (text, says) in [
        ("{", "generation_config.json is not used: EOF"),
        ("[1]", "generation_config.json is not used: invalid type"),
        ("\u{0}\u{1}", "generation_config.json is not used"),
        (r#"{"eos_token_id": "end"}"#, r#"eos_token_id is not used: it is "end", expected a token id"#),
        (r#"{"eos_token_id": -1}"#, "eos_token_id is not used: it is -1"),
        (r#"{"eos_token_id": [2, 1.5, {"a": 1}]}"#, "eos_token_id is not used: it is 1.5"),
        (r#"{"eos_token_id": 4294967296}"#, "eos_token_id is not used: it is 4294967296"),
    ] {
        let dir = llama(&[config(json!({"eos_token_id": 2}))]);
        write(dir.path(), "generation_config.json", text);
        let model = open(&dir);
        assert_eq!(eos(&model), [2], "{text}");
        assert!(warnings(&model).iter().any(|said| said.contains(says)), "{text}: {:?}", warnings(&model));
    }
}

#[test]
fn generation_ends_at_every_id_that_a_gguf_names() {
    let ids = |keys: &[(&str, u32)]| {
        let (_dir, path) = keys
            .iter()
            .fold(Recipe::of("llama").write("llama"), |gguf, (key, id)| {
                gguf.entry(&format!("tokenizer.ggml.{key}_token_id"), Value::Unsigned(u64::from(*id)))
            })
            .entry("tokenizer.ggml.model", Value::String("gpt2".into()))
            .entry("tokenizer.ggml.pre", Value::String("gpt-2".into()))
            .entry("tokenizer.ggml.tokens", Value::Array(Array::String(named_ends())))
            .entry("tokenizer.ggml.merges", Value::Array(Array::String(vec![])))
            .entry("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds())))
            .write();
        let model = load(&path, &LoadOptions::default()).unwrap();
        (eos(&model), model.tokenizer().unwrap().eos(), warnings(&model))
    };
    // 10 and 11 by their names, 12 is an ordinary token that is spelled like one.
    assert_eq!(ids(&[]).0, [10, 11]);
    let (all, eos, said) = ids(&[("eos", 20), ("eot", 21), ("eom", 22)]);
    assert_eq!((all, eos, said.len()), (vec![10, 11, 20, 21, 22], Some(20), 0));
    let (all, eos, said) = ids(&[("eos", 900), ("bos", 901)]);
    assert_eq!((all, eos), (vec![10, 11, 900], None));
    assert!(said.len() == 2 && said[0].contains("bos_token_id 901 is not in the vocabulary of 384"), "{said:?}");
}

fn named_ends() -> Vec<String> {
    let mut tokens: Vec<String> = (0..384).map(|id| format!("t{id}")).collect();
    for (id, name) in [(10, "<|im_end|>"), (11, "<end_of_turn>"), (12, "<|eot_id|>")] {
        tokens[id] = name.into();
    }
    tokens
}

fn kinds() -> Vec<i32> {
    let mut kinds = vec![1; 384];
    (kinds[10], kinds[11]) = (3, 4);
    kinds
}

#[test]
fn the_tokenizers_bos_wins() {
    let dir = llama(&[
        ("tokenizer_config.json", json!({"bos_token": "<|bos|>", "eos_token": "<|endoftext|>"})),
        config(json!({"bos_token_id": 5, "eos_token_id": 6})),
        ("generation_config.json", json!({"bos_token_id": 1, "eos_token_id": [2, 6]})),
    ]);
    let model = open(&dir);
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    let differ = |role: &str, used, other| LoadWarning::TokensDiffer {
        role: role.into(),
        used,
        used_from: "tokenizer_config.json".into(),
        others: vec![other],
        others_from: "config.json".into(),
    };
    // generation_config.json names the EOS in use among others.
    assert_eq!(model.warnings(), [differ("bos_token", 1, 5), differ("eos_token", 2, 6)]);
    let words = "bos_token: tokenizer_config.json names token 1, which is used, and config.json names [5]";
    assert_eq!(warnings(&model)[0], words);
    // config.json is the fallback, then generation_config.json.
    let only = llama(&[
        config(json!({"bos_token_id": 5, "eos_token_id": null})),
        ("generation_config.json", json!({"bos_token_id": 7, "eos_token_id": 8})),
    ]);
    let model = open(&only);
    assert_eq!((model.tokenizer().unwrap().bos(), model.warnings().len()), (Some(5), 1));
}

#[test]
fn tokens_that_nothing_uses_may_be_missing() {
    let dir = llama(&[
        (
            "tokenizer_config.json",
            json!({"bos_token": "<|bos|>", "pad_token": "[PAD]", "sep_token": {"content": "[SEP]"},
                "unk_token": "<none>", "additional_special_tokens": ["<|endoftext|>", "<lost>"]}),
        ),
        ("special_tokens_map.json", json!({"mask_token": "[MASK]"})),
        config(json!({"bos_token_id": 12345, "eos_token_id": 2})),
    ]);
    let model = open(&dir);
    let special = model.tokenizer().unwrap().special();
    assert_eq!(
        (special.bos, special.eos, special.pad, special.sep, special.unk, special.mask),
        (Some(1), Some(2), None, None, None, None)
    );
    let said = warnings(&model);
    let expected = [
        "pad_token `[PAD]`",
        "unk_token `<none>`",
        "sep_token `[SEP]`",
        "additional_special_tokens `<lost>`",
        "mask_token `[MASK]`",
        "bos_token_id 12345",
    ];
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(&format!("{expected} is not in the vocabulary of 384 tokens")), "{said}");
    }
    // One that is to be put before texts may not.
    let adds = llama(&[("tokenizer_config.json", json!({"bos_token": "<lost>", "add_bos_token": true}))]);
    let error = load(adds.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("no BOS"), "{error}");
}

#[test]
fn tokens_that_the_configuration_adds() {
    let token = |content: &str| json!({"content": content, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false, "special": true});
    let dir = llama(&[(
        "tokenizer_config.json",
        json!({"pad_token": "[PAD]", "added_tokens_decoder": {"384": token("[PAD]"), "385": token("<think>"),
            "1": token("<|bos|>"), "2": token("<s2>"), "400": token("<far>"), "70": token("<|endoftext|>")}}),
    )]);
    let model = open(&dir);
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!((tokenizer.special().pad, tokenizer.vocab_size()), (Some(384), 386));
    assert_eq!(tokenizer.encode("<think>[PAD]<think>").unwrap().ids, [385, 384, 385]);
    let said = warnings(&model);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[0].contains("token 2 is \"<s2>\", but the tokenizer has \"<|endoftext|>\" there"), "{said:?}");
    assert!(said[1].contains("token 70 is \"<|endoftext|>\", but the tokenizer has"), "{said:?}");
    assert!(said[2].contains("token 400 is \"<far>\""), "{said:?}");
    assert!(said[3].contains("the tokenizer has 386 ids, the model embeds 384"), "{said:?}");

    // How a token is found is as the configuration says.
    let mut strips = token("<|bos|>");
    strips["rstrip"] = true.into();
    let strips = llama(&[("tokenizer_config.json", json!({"added_tokens_decoder": {"1": strips}}))]);
    let strips = open(&strips);
    let ids = |text: &str| strips.tokenizer().unwrap().encode(text).unwrap().ids;
    assert_eq!(ids("<|bos|>  a"), ids("<|bos|>a"));

    let listed = llama(&[("added_tokens.json", json!({"<b>": 385, "<a>": 384}))]);
    assert_eq!(open(&listed).tokenizer().unwrap().encode("<a><b>").unwrap().ids, [384, 385]);
    for (file, json) in [
        ("added_tokens.json", json!({"<a>": "x"})),
        ("tokenizer_config.json", json!({"added_tokens_decoder": [1]})),
        ("tokenizer_config.json", json!({"added_tokens_decoder": {"x": {"content": "a"}}})),
        ("tokenizer_config.json", json!({"added_tokens_decoder": {"384": {"text": "a"}}})),
    ] {
        let error = load(llama(&[(file, json)]).path(), &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("expected"), "{error}");
    }
}

/// The embedding and unembedding of each family.
fn ends(name: &str) -> (&'static str, &'static str) {
    match name {
        "gpt2" | "gpt_neo" | "gptj" => ("transformer.wte.weight", "lm_head.weight"),
        "neox_parallel" => ("gpt_neox.embed_in.weight", "embed_out.weight"),
        _ => ("model.embed_tokens.weight", "lm_head.weight"),
    }
}

fn logits(model: &LanguageModel, name: &str) -> Tensor {
    model.hooked().forward(&Golden::open(name).tokens(), &mut NoTap).unwrap()
}

#[test]
fn tied_weights_under_either_name() {
    for (family, name) in families() {
        let (embed, head) = ends(name);
        let table =
            Pieces::of(name).tensors.iter().find(|(n, _)| n == embed).unwrap_or_else(|| panic!("{name}")).1.clone();
        let rest = || {
            Pieces::of(name).with("tie_word_embeddings", true).map(|n, x| (n != embed && n != head).then_some((n, x)))
        };
        let one = rest().plus(embed, table.clone()).load(Processing::None).unwrap();
        let expected = logits(&one, name);
        let other = rest().plus(head, table.clone()).load(Processing::None).unwrap_or_else(|e| panic!("{family}: {e}"));
        assert_same_bits(family, &logits(&other, name), &expected);
        let both = rest().plus(embed, table.clone()).plus(head, table.clone()).load(Processing::None).unwrap();
        assert_same_bits(family, &logits(&both, name), &expected);
        assert!([&one, &other, &both].iter().all(|model| model.warnings().is_empty()));
        // Both, and different: not tied, as transformers has it since 5.0, and said.
        let double = (table.to_dtype(DType::F32).unwrap() * 2.0).unwrap();
        let differ = rest().plus(embed, table.clone()).plus(head, double.clone());
        let not_tied = differ.load(Processing::None).unwrap();
        let untied = rest().plus(embed, table).plus(head, double).with("tie_word_embeddings", false);
        assert_same_bits(family, &logits(&not_tied, name), &logits(&untied.load(Processing::None).unwrap(), name));
        let said = warnings(&not_tied);
        assert!(
            said.len() == 1 && said[0].contains("tie_word_embeddings is true") && said[0].contains(head),
            "{said:?}"
        );
        // Neither.
        let error = rest().load(Processing::None).unwrap_err().to_string();
        assert!(error.contains("is missing"), "{family}: {error}");
    }
}

#[test]
fn tied_weights_of_a_gguf_under_either_name() {
    for (arch, name) in
        [("llama", "llama"), ("gpt2", "gpt2"), ("gemma", "gemma1"), ("qwen2", "qwen2"), ("gptneox", "neox_parallel")]
    {
        let mut one = Recipe::of(arch).write(name);
        one.tensors.retain(|tensor| tensor.name != "output.weight");
        let mut other = one.clone();
        other
            .tensors
            .iter_mut()
            .filter(|tensor| tensor.name == "token_embd.weight")
            .for_each(|tensor| tensor.name = "output.weight".into());
        let [one, other] = [one, other].map(|gguf| {
            let (_dir, path) = gguf.write();
            logits(&load(&path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{arch}: {e}")), name)
        });
        assert_same_bits(arch, &other, &one);
    }
}

/// The small Llama with `more` rows behind its embeddings.
fn padded(more: usize) -> tempfile::TempDir {
    let longer = |x: &Tensor| {
        let width = x.dims()[1];
        Tensor::cat(&[x, &Tensor::zeros((more, width), x.dtype(), x.device()).unwrap()], 0).unwrap()
    };
    let pieces = Pieces::of("llama").with("vocab_size", 384 + more);
    let ends = ["model.embed_tokens.weight", "lm_head.weight"];
    let pieces = pieces.map(|n, x| Some(if ends.contains(&n.as_str()) { (n, longer(&x)) } else { (n, x) }));
    let dir = pieces.write();
    std::fs::copy(golden("gguf/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    dir
}

#[test]
fn ids_that_pad_the_vocabulary_are_printed() {
    let model = open(&padded(8));
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!((tokenizer.vocab_size(), model.shape().d_vocab, model.warnings().len()), (384, 392, 0));
    let word = tokenizer.encode(" day").unwrap().ids;
    let ids = [&word[..], &[385, 391], &word].concat();
    assert_eq!(tokenizer.decode(&ids).unwrap(), " day[385][391] day");
    assert_eq!(tokenizer.readable(&[385, word[0]]).unwrap()[0], "[385]");
    assert_eq!(tokenizer.readable_text(&ids).unwrap(), " day[385][391] day");
    assert_eq!(tokenizer.to_str_tokens(&[384]).unwrap(), ["[384]"]);
    assert_eq!(tokenizer.piece(385), None);
    for refused in [392, u32::MAX] {
        assert!(tokenizer.decode(&[refused]).unwrap_err().to_string().contains("vocabulary of 392"));
    }
    // Generation goes on, and what comes piece by piece is the whole. A character that is cut by such an id stays incomplete.
    let crab = tokenizer.encode("🦀").unwrap().ids;
    assert!(crab.len() > 1);
    let said = [&word[..], &[385], &crab, &[390], &crab[..1], &[384], &word].concat();
    let (text, ids, stopped) = told(&model, &said);
    assert_eq!((ids, stopped), (said.clone(), StopReason::MaxNewTokens));
    assert_eq!(text, tokenizer.decode(&said).unwrap());
    assert!(text.starts_with(" day[385]🦀[390]") && text.ends_with("[384] day"), "{text}");
    let report = model_hooks::test_prompt(&model, "The", &["day"], &Default::default(), &mut say(vec![391])).unwrap();
    assert_eq!(report.positions[0].top[0].text, "[391]");
}

#[test]
fn a_tokenizer_that_is_longer_than_the_embeddings_is_reported() {
    let cut = |x: &Tensor| x.narrow(0, 0, 380).unwrap();
    let pieces = Pieces::of("llama").with("vocab_size", 380);
    let ends = ["model.embed_tokens.weight", "lm_head.weight"];
    let dir = pieces.map(|n, x| Some(if ends.contains(&n.as_str()) { (n, cut(&x)) } else { (n, x) })).write();
    std::fs::copy(golden("gguf/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let model = open(&dir);
    assert_eq!(
        warnings(&model),
        ["the tokenizer has 384 ids, the model embeds 380: texts with tokens from 380 on cannot be run"]
    );
    let tokens = model_hooks::TokenBatch::new(&[vec![1, 383]]).unwrap();
    let error = model.hooked().forward(&tokens, &mut NoTap).unwrap_err().to_string();
    assert!(error.contains("token id 383 at row 0, position 1"), "{error}");
    assert_eq!(model.tokenizer().unwrap().special_ids(), &BTreeSet::from([0, 1, 2]));
}

/// What Python writes for "no limit", no class, null roles, and templates that are none of the tokenizer's business.
#[test]
fn tokenizer_configurations_as_they_come() {
    let dir = llama(&[config(json!({"bos_token_id": 1, "eos_token_id": 2}))]);
    for text in [
        r#"{"model_max_length": 1000000000000000019884624838656, "bos_token": null, "tokenizer_class": null}"#,
        r#"{"chat_template": "{{ messages }}", "clean_up_tokenization_spaces": true}"#,
        r#"{"chat_template": [{"name": "default", "template": "x"}], "added_tokens_decoder": {}}"#,
        r#"{"extra_special_tokens": {"image_token": "<tool>"}, "auto_map": {"AutoTokenizer": ["a.B", null]}}"#,
        "{}",
    ] {
        write(dir.path(), "tokenizer_config.json", text);
        let model = open(&dir);
        assert_eq!((model.tokenizer().unwrap().bos(), warnings(&model).len()), (Some(1), 0), "{text}");
    }
}

/// Ids that no token has, and a token that is listed twice.
#[test]
fn vocabularies_with_holes_and_repetitions() {
    let dir = llama(&[]);
    let mut tokenizer: Json =
        serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    added.push(added[1].clone());
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let hole = vocab.iter().find(|(_, id)| id.as_u64() == Some(200)).map(|(token, _)| token.clone()).unwrap();
    vocab.remove(&hole);
    tokenizer["model"]["merges"] = json!([]);
    write(dir.path(), "tokenizer.json", &tokenizer.to_string());
    let model = open(&dir);
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("<|bos|>").unwrap().ids, [1]);
    assert_eq!((tokenizer.decode(&[200]).unwrap(), tokenizer.piece(200)), ("[200]".into(), None));
    let (text, ids, _) = told(&model, &[200, 1]);
    assert_eq!((text.as_str(), ids), ("[200]<|bos|>", vec![200, 1]));
}
