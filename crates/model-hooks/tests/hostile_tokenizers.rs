//! Tokenizers that make the `tokenizers` crate panic, or worse: refused before it sees them, else a panic that becomes an error.

use model_hooks::Tokenizer;

/// A folder with a tokenizer of the given model and further parts.
fn folder(model: &str, parts: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let json = format!(r#"{{"version":"1.0","model":{model}{parts}}}"#);
    std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
    dir
}

fn refused(model: &str, parts: &str) -> String {
    let dir = folder(model, parts);
    let reason = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
    assert!(reason.contains("tokenizer.json") && !reason.contains("panicked"), "{reason}");
    reason
}

fn words(vocab: &str) -> String {
    format!(r#"{{"type":"WordLevel","unk_token":"a","vocab":{vocab}}}"#)
}

#[test]
fn compiled_rules_are_checked() {
    // A trie that claims 4 GiB, for which the crate reserves eight.
    let reason =
        refused(&words(r#"{"a":0}"#), r#","normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="}"#);
    assert!(reason.contains("precompiled_charsmap has a trie of 4294967295 bytes"), "{reason}");
    // Its root leads out of the trie: a panic at the first character of a text.
    let mut charsmap = [0u8; 4 + 1024];
    charsmap[1] = 4;
    charsmap[4..8].copy_from_slice(&(4000u32 << 10).to_le_bytes());
    let normalizer = tokenizers::normalizers::Precompiled::from(&charsmap).unwrap();
    let normalizer = serde_json::to_string(&normalizer).unwrap();
    let parts = format!(r#","normalizer":{{"type":"Sequence","normalizers":[{normalizer}]}}"#);
    let reason = refused(&words(r#"{"a":0}"#), &parts);
    assert!(reason.contains("leads out of its trie"), "{reason}");
}

#[test]
fn merges_are_checked() {
    let model = r#"{"type":"BPE","continuing_subword_prefix":"x","vocab":{"a":0,"éb":1},"merges":["a éb"]}"#;
    let reason = refused(model, "");
    assert!(reason.contains("continuing_subword_prefix"), "{reason}");
}

/// The crate adds 1 to the largest id when it is given further tokens.
#[test]
fn the_largest_id() {
    let added = r#","added_tokens":[{"id":4294967295,"content":"b","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]"#;
    let reason = refused(&words(r#"{"a":0,"b":4294967295}"#), added);
    assert!(reason.contains("4294967295"), "{reason}");
}

#[test]
fn what_cannot_be_checked_is_an_error_all_the_same() {
    // The crate subtracts 1 from the length of a token that another step has left empty.
    let decoder = r#","decoder":{"type":"Sequence","decoders":[
        {"type":"Replace","pattern":{"String":"b"},"content":""},{"type":"Strip","content":" ","start":0,"stop":1}]}"#;
    let dir = folder(&words(r#"{"a":0,"b":1}"#), decoder);
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(tokenizer.decode(&[0]).unwrap(), "a");
    let reason = tokenizer.decode(&[1]).unwrap_err().to_string();
    assert!(reason.contains("the `tokenizers` crate panicked at") && reason.contains("overflow"), "{reason}");
    assert_eq!(tokenizer.to_str_tokens(&[0, 1]).unwrap(), ["a", ""]);
}
