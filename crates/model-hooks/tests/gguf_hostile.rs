//! One test per attack on the GGUF reader. Each must end in an error that says what is wrong, before memory is asked for.

mod gguf_support;

use gguf_support::convert::Recipe;
use gguf_support::{Entry, Gguf, damaged, golden, text, value, write};
use model_hooks::gguf::{Array, GgufFile, TensorType, Value};
use model_hooks::{LoadOptions, load};

/// A small sound file: two entries, two tensors.
fn sound() -> Gguf {
    Gguf::default()
        .entry("general.architecture", Value::String("llama".into()))
        .entry("list", Value::Array(Array::String(vec!["a".into(), "bc".into()])))
        .tensor("first", &[2, 8], &[1.5; 16])
        .tensor("second", &[3], &[2.0; 3])
}

fn error(file: &Gguf) -> String {
    let (_dir, path) = file.write();
    GgufFile::open(path).unwrap_err().to_string()
}

#[track_caller]
fn refused(file: &Gguf, with: &str) {
    let found = error(file);
    assert!(found.contains(with), "{found}");
}

#[test]
fn the_sound_file_opens() {
    let (_dir, path) = sound().write();
    let file = GgufFile::open(path).unwrap();
    assert_eq!(file.load_f32("first").unwrap().dims(), [2, 8]);
    assert_eq!(file.load_f32("second").unwrap().to_vec1::<f32>().unwrap(), [2.0; 3]);
    assert_eq!(file.strings("list").unwrap().unwrap(), ["a", "bc"]);
    assert_eq!(file.tensors().count(), 2);
}

#[test]
fn every_truncation_is_refused() {
    let whole = sound().bytes();
    for len in 0..whole.len() {
        let (_dir, path) = write(&whole[..len]);
        let message = GgufFile::open(path).expect_err("a truncated file opened").to_string();
        assert!(message.contains("not a valid GGUF file"), "cut at {len}: {message}");
    }
}

#[test]
fn a_file_cut_after_opening_is_an_io_error() {
    let (_dir, path) = sound().write();
    let file = GgufFile::open(&path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(64).unwrap();
    assert!(matches!(file.load_f32("second"), Err(model_hooks::Error::Io { .. })));
}

#[test]
fn not_gguf_at_all() {
    refused(&Gguf { magic: b"GGML".to_vec(), ..sound() }, "a GGUF file starts with \"GGUF\"");
    let (_dir, path) = write(b"");
    assert!(GgufFile::open(path).unwrap_err().to_string().contains("needs 4 bytes, 0 are left"));
}

#[test]
fn versions_that_are_not_read_are_named() {
    refused(&Gguf { version: 1, ..sound() }, "unsupported version: 1; supported: 2, 3");
    refused(&Gguf { version: 4, ..sound() }, "unsupported version: 4");
    refused(&Gguf { version: 3u32.swap_bytes(), ..sound() }, "unsupported version: big-endian");
    let (_dir, path) = Gguf { version: 2, ..sound() }.write();
    assert_eq!(GgufFile::open(path).unwrap().version(), 2);
}

#[cfg(target_os = "linux")]
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    for n in [u64::MAX, 1 << 60, 1 << 32, 9] {
        refused(&Gguf { n_tensors: Some(n), ..sound() }, "at most");
        refused(&Gguf { n_entries: Some(n), ..sound() }, "at most");
    }
    #[cfg(target_os = "linux")]
    let before = peak_megabytes();
    // Arrays of every element type, and strings.
    for kind in 0..13u32 {
        let claim = [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(1u64 << 60).to_le_bytes()].concat();
        refused(&sound().raw_entry(&text("k"), &claim), "the file claims 1152921504606846976 elements in `k`");
    }
    for len in [u64::MAX, 1 << 60, 1 << 20] {
        let long = [&8u32.to_le_bytes()[..], &len.to_le_bytes()].concat();
        let message = error(&sound().raw_entry(&text("k"), &long));
        assert!(message.contains("`k`") || message.contains("k is") || message.contains("k needs"), "{message}");
        refused(&sound().raw_entry(&len.to_le_bytes(), b""), "a metadata key is");
    }
    // The claims above run from a megabyte to 2^64 bytes; the other tests of this file, beside this one, are small too.
    #[cfg(target_os = "linux")]
    assert!(peak_megabytes() - before < 64, "{before} -> {} MB", peak_megabytes());
}

#[test]
fn a_header_beyond_the_limit_is_refused_however_long_the_file_is() {
    // A sparse file of 1 TiB: the claimed list of strings would fit in it.
    let claim = [&9u32.to_le_bytes()[..], &8u32.to_le_bytes(), &(1u64 << 34).to_le_bytes()].concat();
    let (_dir, path) = write(&Gguf::default().raw_entry(&text("k"), &claim).header());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let message = GgufFile::open(&path).unwrap_err().to_string();
    assert!(message.contains("17179869184 elements in `k`, at most"), "{message}");
    let long = [&8u32.to_le_bytes()[..], &(1u64 << 33).to_le_bytes()].concat();
    std::fs::write(&path, Gguf::default().raw_entry(&text("k"), &long).header()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let message = GgufFile::open(&path).unwrap_err().to_string();
    assert!(message.contains("8589934592 bytes long, at most 67108864"), "{message}");
}

#[test]
fn arrays_nested_without_end_are_refused() {
    let nested = |depth: usize| {
        let mut inner = Array::I32(vec![7]);
        for _ in 1..depth {
            inner = Array::Array(vec![inner]);
        }
        sound().entry("k", Value::Array(inner))
    };
    let (_dir, path) = nested(4).write();
    assert!(GgufFile::open(path).is_ok());
    refused(&nested(5), "`k` nests arrays deeper than 4");
    // Deeper ones are a matter of the stack of this test, which builds and drops them level by level.
    refused(&nested(1_000), "`k` nests arrays deeper than 4");
}

#[test]
fn values_that_are_not_what_they_claim() {
    refused(&sound().raw_entry(&text("k"), &13u32.to_le_bytes()), "`k` has the unknown value type 13");
    let array = [&9u32.to_le_bytes()[..], &99u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
    refused(&sound().raw_entry(&text("k"), &array), "`k` is an array of the unknown type 99");
    refused(&sound().raw_entry(&text("k"), &[7, 0, 0, 0, 2]), "`k` is a bool of value 2");
    let bad_text = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0xC3, 0x28]].concat();
    refused(&sound().raw_entry(&text("k"), &bad_text), "k is not UTF-8");
    let bad_key = [&2u64.to_le_bytes()[..], &[0xFF, 0xFE]].concat();
    refused(&sound().raw_entry(&bad_key, &value(&Value::Bool(true))), "a metadata key is not UTF-8");
}

#[test]
fn names_that_appear_twice() {
    let twice = sound().raw_entry(&text("list"), &value(&Value::Bool(true)));
    refused(&twice, "metadata key `list` appears twice");
    refused(&sound().tensor("first", &[1], &[0.0]), "tensor `first` appears twice");
}

#[test]
fn getters_name_key_expectation_and_what_is_there() {
    let odd = sound()
        .entry("float", Value::F32(f32::NAN))
        .entry("negative", Value::Signed(-1))
        .entry("large", Value::Signed(1 << 40))
        .entry("word", Value::String("x".repeat(500)));
    let (_dir, path) = odd.write();
    let file = GgufFile::open(&path).unwrap();
    let messages = [
        (file.u32("word").unwrap_err(), "key `word` is the string \"xxxx"),
        (file.u32("negative").unwrap_err(), "key `negative` is the signed integer -1, expected an integer from 0"),
        (file.u32("large").unwrap_err(), "key `large` is the signed integer 1099511627776"),
        (file.f64("float").unwrap_err(), "key `float` is the f32 NaN, expected a finite float"),
        (file.string("list").unwrap_err(), "key `list` is an array of 2 string, expected a string"),
        (file.bool("list").unwrap_err(), "expected a bool"),
        (file.i32s("list").unwrap_err(), "expected an array of i32"),
        (file.f32s("list").unwrap_err(), "expected an array of f32"),
        (file.strings("word").unwrap_err(), "expected an array of string"),
        (file.require("absent", GgufFile::u32).unwrap_err(), "key `absent` is missing"),
    ];
    for (error, with) in messages {
        let message = error.to_string();
        assert!(message.contains(with) && message.contains("model.gguf") && message.len() < 300, "{message}");
    }
    assert!(file.u32("absent").unwrap().is_none());
}

fn with_tensor(spoil: impl Fn(&mut Entry)) -> Gguf {
    let mut file = sound();
    spoil(&mut file.tensors[1]);
    file
}

#[test]
fn tensor_dimensions_that_cannot_be() {
    refused(&with_tensor(|t| t.dims = vec![1; 5]), "tensor `second` claims 5 dimensions");
    refused(&with_tensor(|t| t.dims = vec![3, 0]), "whole, non-empty blocks");
    refused(&with_tensor(|t| t.dims = vec![1 << 63]), "larger than any file");
    refused(&with_tensor(|t| t.dims = vec![1 << 32, 1 << 32]), "larger than any file");
    refused(&with_tensor(|t| t.dims = vec![1 << 20, 1 << 20, 1 << 20, 1 << 20]), "larger than any file");
    // 2^61 blocks of Q8_0: elements fit in 64 bits, bytes do not.
    refused(&with_tensor(|t| (t.dims, t.kind) = (vec![32, 1 << 58], 8)), "tensor `second`");
    refused(&with_tensor(|t| t.dims = vec![4, 1 << 30]), "takes 17179869184 bytes at offset 64");
    refused(&with_tensor(|t| (t.dims, t.kind) = (vec![33], 8)), "Q8_0 rows are whole, non-empty blocks of 32");
    refused(&with_tensor(|t| (t.dims, t.kind) = (vec![32, 8], 14)), "Q6_K rows are whole, non-empty blocks of 256");
}

#[test]
fn tensor_types_that_are_not_read_are_named() {
    refused(
        &with_tensor(|t| t.kind = 10),
        "unsupported tensor type: Q2_K (type 10) in tensor `second`; supported: F32, F16",
    );
    refused(&with_tensor(|t| t.kind = 4), "unknown type 4 in tensor `second`");
    refused(&with_tensor(|t| t.kind = u32::MAX), "unknown type 4294967295");
}

#[test]
fn tensor_names_that_cannot_be() {
    refused(&with_tensor(|t| t.name = "n".repeat(2000)), "a tensor name is 2000 bytes long, at most 1024");
}

#[test]
fn tensors_outside_the_file_or_on_top_of_each_other() {
    refused(&with_tensor(|t| t.offset = 96), "takes 12 bytes at offset 96");
    refused(&with_tensor(|t| t.offset = u64::MAX - 31), "tensor `second` takes 12 bytes");
    refused(&with_tensor(|t| t.offset = 32), "tensors `first` and `second` overlap");
    refused(&with_tensor(|t| t.offset = 0), "overlap");
    refused(&with_tensor(|t| t.offset = 65), "offset 65, not a multiple of the alignment 32");
}

#[test]
fn alignments_that_cannot_be() {
    for bad in [0, 3, 33, u64::from(u32::MAX)] {
        refused(&sound().entry("general.alignment", Value::Unsigned(bad)), "not a power of two");
    }
    refused(
        &sound().entry("general.alignment", Value::String("32".into())),
        "key `general.alignment` is the string \"32\"",
    );
    refused(&sound().entry("general.alignment", Value::Unsigned(1 << 31)), "of the data at 2147483648");
    let aligned = Gguf { alignment: 64, ..Gguf::default() }
        .entry("general.alignment", Value::Unsigned(64))
        .tensor("a", &[1], &[1.0])
        .tensor("b", &[1], &[2.0]);
    let (_dir, path) = aligned.write();
    assert_eq!(GgufFile::open(path).unwrap().load_f32("b").unwrap().to_vec1::<f32>().unwrap(), [2.0]);
}

#[test]
fn weights_that_are_not_numbers() {
    let (_dir, path) = Gguf::default().tensor("w", &[3], &[0.0, f32::INFINITY, f32::NAN]).write();
    let message = GgufFile::open(path).unwrap().load_f32("w").unwrap_err().to_string();
    assert!(message.contains("tensor `w` holds inf at element 1"), "{message}");
}

#[test]
fn random_damage_never_panics() {
    // Flips bytes of the header of a real little file: anything but a panic, a hang or a huge allocation is fine.
    let whole = std::fs::read(golden("gguf/sentencepiece.gguf")).unwrap();
    let opens = |bytes: &Vec<u8>| {
        let (_dir, path) = write(bytes);
        GgufFile::open(path).is_ok()
    };
    let opened = damaged(&whole, 0..2000, 500).filter(opens).count();
    assert!(opened > 25, "damage inside strings leaves a readable file: {opened}");
}

/// Every architecture's own keys, on a sound model.
fn models() -> impl Iterator<Item = (&'static str, Gguf, Vec<String>)> {
    ARCHITECTURES.into_iter().map(|(arch, name)| {
        let gguf = Recipe::of(arch).write(name);
        let prefix = format!("{arch}.");
        let names = gguf.entries.iter().map(|(key, _)| String::from_utf8(key[8..].to_vec()).unwrap());
        let keys = names.filter(|key| key.starts_with(&prefix)).collect();
        (arch, gguf, keys)
    })
}

const ARCHITECTURES: [(&str, &str); 9] = [
    ("gemma", "gemma1"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3"),
    ("gpt2", "gpt2"),
    ("gptneox", "neox_parallel"),
    ("llama", "llama"),
    ("phi3", "phi3_partial"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
];

fn load_error(gguf: &Gguf) -> Option<String> {
    let (_dir, path) = gguf.write();
    load(&path, &LoadOptions::default()).err().map(|e| e.to_string())
}

#[test]
fn keys_of_the_wrong_type_are_refused_by_name() {
    for (_, gguf, keys) in models() {
        for key in keys {
            let message = load_error(&gguf.clone().entry(&key, Value::String("7".into()))).expect("it loaded");
            assert!(message.contains(&format!("key `{key}` is the string \"7\"")), "{message}");
            let list = Value::Array(Array::I32(vec![1, 2]));
            let message = load_error(&gguf.clone().entry(&key, list)).expect("it loaded");
            assert!(message.contains(&format!("key `{key}` is an array of 2 i32")), "{message}");
        }
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_by_name() {
    let odd = [0u32, u32::MAX, (1 << 28) - 1].map(|n| Value::Unsigned(n.into()));
    let floats = [0.0, -1.0, f32::NAN, f32::INFINITY].map(Value::F32);
    for (arch, gguf, keys) in models() {
        for key in keys {
            let float = key.contains("epsilon") || key.contains("softcapping") || key.contains("freq_base");
            // Numbers that are fine, if odd: a context of any length, a Phi-3 without a window, a window that is never full.
            let fine = |value: &Value| match (key.split_once('.').unwrap().1, value) {
                ("context_length", Value::Unsigned(n)) => arch != "gpt2" && *n == (1 << 28) - 1,
                ("attention.sliding_window", Value::Unsigned(n)) => *n == (1 << 28) - 1 || (arch == "phi3" && *n == 0),
                ("attention.sliding_window_pattern" | "rope.scaling.original_context_length", Value::Unsigned(n)) => {
                    *n == (1 << 28) - 1
                }
                _ => false,
            };
            for value in if float { &floats[..] } else { &odd[..] } {
                let changed = gguf.clone().entry(&key, value.clone());
                match load_error(&changed) {
                    None => assert!(fine(value), "{key} = {value} loaded"),
                    // A size may also be found to disagree with the tensors or with another key.
                    Some(message) => {
                        let named = [&key, "has shape", "268435455"].iter().any(|part| message.contains(part));
                        assert!(named && !fine(value), "{key} = {value}: {message}");
                    }
                }
            }
        }
    }
}

#[test]
fn keys_that_mean_another_model_are_refused_everywhere() {
    for (arch, gguf, _) in models() {
        for (key, value) in [
            ("attention.causal", Value::Bool(false)),
            ("expert_count", Value::Unsigned(8)),
            ("logit_scale", Value::F32(2.0)),
            ("attention.scale", Value::F32(0.5)),
            ("some.new.key", Value::Bool(true)),
        ] {
            let key = format!("{arch}.{key}");
            let message = load_error(&gguf.clone().entry(&key, value)).expect("it loaded");
            assert!(message.contains(&format!("key `{key}` is")), "{message}");
        }
        let more = gguf.clone().tensor("blk.0.attn_sinks.weight", &[4], &[0.0; 4]);
        assert!(load_error(&more).unwrap().contains("unexpected weight tensors: blk.0.attn_sinks.weight"));
        for at in [0, gguf.tensors.len() / 2, gguf.tensors.len() - 1] {
            let mut fewer = gguf.clone();
            let gone = fewer.tensors.remove(at).name;
            // Without it the unembedding is the embedding: another model, but a whole one.
            assert!(gone == "output.weight" || load_error(&fewer).unwrap().contains(&gone), "{arch} without {gone}");
        }
    }
}

#[test]
fn random_damage_to_models_never_panics() {
    for (_, gguf, _) in models() {
        let (whole, header) = (gguf.bytes(), gguf.header().len());
        for bytes in damaged(&whole, 24..header, 40) {
            let (_dir, path) = write(&bytes);
            let _: Option<_> = load(&path, &LoadOptions::default()).ok();
        }
    }
}

#[test]
fn types_know_their_sizes() {
    let sizes: Vec<_> = TensorType::ALL.iter().map(|t| (t.block_len(), t.block_bytes())).collect();
    let python =
        [(1, 4), (1, 2), (1, 2), (32, 18), (32, 20), (32, 22), (32, 24), (32, 34), (256, 144), (256, 176), (256, 210)];
    assert_eq!(sizes, python);
}
