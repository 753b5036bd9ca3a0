//! One test per way in which a file of documents can be wrong: the error says the file, the place, and what was expected.

use super::support::{Folder, gzip, options, refused, texts, zst};
use activation_store::Documents;

/// Lines shorter than a piece are parsed whole, longer ones as they stream by: both must say the same.
const BOTH_PATHS: [usize; 2] = [16, 1 << 20];

fn line_is_refused(lines: &str, words: &[&str]) {
    bytes_are_refused(lines.as_bytes(), words);
}

fn bytes_are_refused(lines: &[u8], words: &[&str]) {
    let dir = Folder::new();
    let path = dir.file("x.jsonl", lines);
    for max_piece_bytes in BOTH_PATHS {
        let error = refused(&[&path], options().max_piece_bytes(max_piece_bytes));
        for word in words.iter().chain(&["x.jsonl"]) {
            assert!(error.contains(word), "pieces of {max_piece_bytes}: `{error}` does not say `{word}`");
        }
    }
}

const GOOD: &str = "{\"text\": \"a good line that is long enough\"}\n\n";

#[test]
fn no_such_file() {
    let dir = Folder::new();
    assert!(refused(&[dir.path().join("absent.txt")], options()).contains("absent.txt"));
}

#[test]
fn nothing_matches() {
    let dir = Folder::new();
    dir.file("a.txt", "a");
    let error = refused(&[dir.path().join("*.txt"), dir.path().join("*.jsonl")], options());
    assert!(error.contains("*.jsonl` matches no file"), "{error}");
    assert!(refused::<&str>(&[], options()).contains("no pattern"), "{}", refused::<&str>(&[], options()));
    assert!(refused(&[dir.path().join("a***b")], options()).contains("not a valid pattern"));
}

#[test]
fn an_unknown_kind() {
    let dir = Folder::new();
    for name in ["a.csv", "noending", "a.parquet.gz", "a.gz"] {
        let error = refused(&[dir.file(name, "x")], options());
        assert!(error.contains(name) && error.contains("unknown kind of file, expected .txt"), "{error}");
    }
}

#[test]
fn files_without_documents() {
    let dir = Folder::new();
    for (name, bytes) in [
        ("a.txt", vec![]),
        ("a.jsonl", vec![]),
        ("a.parquet", vec![]),
        ("b.jsonl", b" \n\n".to_vec()),
        ("b.jsonl.gz", gzip(b"")),
        ("c.jsonl.zst", zst(b"\n")),
    ] {
        let error = refused(&[dir.file(name, bytes)], options());
        assert!(error.contains(name) && error.contains("holds no document"), "{error}");
    }
    let blank =
        refused(&[dir.file("blank.txt", " \n \n")], options().text_split(activation_store::TextSplit::BlankLines));
    assert!(blank.contains("holds no document"), "{blank}");
    assert_eq!(Documents::from_texts(vec![]).err().unwrap().to_string(), "no documents were given");
    assert_eq!(Documents::from_tokens(vec![]).err().unwrap().to_string(), "no documents were given");
}

#[test]
fn text_that_is_not_utf8() {
    let dir = Folder::new();
    // In the middle, across the reader's buffers, and a character cut off at the end.
    for (at, tail) in [(3, &b"\xff and more"[..]), (65_535, b"\xc3("), (65_535, b"\xe2\x82"), (70_000, b"\xc3")] {
        let path = dir.file("x.txt", [&vec![b'a'; at][..], tail].concat());
        let error = refused(&[&path], options());
        assert!(error.contains(&format!("x.txt, byte {at}: not valid UTF-8")), "{error}");
    }
}

#[test]
fn json_that_is_not_utf8() {
    let line = [GOOD.as_bytes(), b"{\"text\": \"some words \xff\"}\n"].concat();
    bytes_are_refused(&line, &["line 3", "not valid UTF-8", "column 22"]);
    bytes_are_refused(b"{\"text\": \"first line \xc3(\"}\n", &["line 1", "not valid UTF-8"]);
    bytes_are_refused(b"{\"text\": \"ends within a character \xe2\x82", &["line 1", "not valid UTF-8"]);
}

#[test]
fn broken_json() {
    for broken in [
        r#"{"text": "no end of the string"#,
        r#"{"text": "no end of the object""#,
        r#"{"text": "words", "tail": tru}"#,
        r#"{"text": "words and words"} {"text": "two in a line"}"#,
        r#"{"text": "words and words",}"#,
        r#"{"text": "half a pair \ud800 ."}"#,
        r#"{"text": "an odd escape \x"}"#,
        r#"{text: "no quotes around the name"}"#,
        "{\"text\": \"a raw control character \u{1}\"}",
    ] {
        line_is_refused(&format!("{GOOD}{broken}\n{GOOD}"), &["line 3", "not valid JSON"]);
        line_is_refused(broken, &["line 1", "not valid JSON"]);
    }
    line_is_refused("[\"a list of strings and no objects\"]", &["element 1", "an object with one document"]);
    line_is_refused(&format!("{GOOD}\"only a string, no object\""), &["line 3", "an object with one document"]);
    let deep = format!("{{\"deep\": {}}}", "[".repeat(100_000));
    line_is_refused(&format!("{GOOD}{deep}"), &["line 3", "not valid JSON"]);
}

#[test]
fn no_such_field() {
    line_is_refused(
        r#"{"body": "words and words", "id": 3}"#,
        &["line 1", "no field `tokens`, `input_ids`, `text`, `problem`", "holds `body`, `id`"],
    );
    line_is_refused(
        &format!("{GOOD}{{\"Text\": \"words and words\"}}"),
        &["line 3", "no field `text`", "holds `Text`"],
    );
    line_is_refused(
        &format!("{GOOD}{{                            }}"),
        &["line 3", "no field `text`", "holds no fields"],
    );
    let dir = Folder::new();
    let error = refused(&[dir.file("x.jsonl", GOOD)], options().field("body"));
    assert!(error.contains("line 1: has no field `body`; it holds `text`"), "{error}");
}

#[test]
fn a_field_of_the_wrong_type() {
    for (value, found) in
        [("17", "a number"), ("true", "a boolean"), ("[1]", "a list"), ("{}", "an object"), ("-1.5", "a number")]
    {
        let line = format!("{{\"text\": {value}, \"filler\": \"filler filler\"}}");
        line_is_refused(&line, &["line 1", "field `text` holds", found, "expected text"]);
        line_is_refused(&format!("{GOOD}{line}"), &["line 3", "field `text` holds", found, "expected text"]);
    }
    let tokens = "{\"tokens\": [1, 2, 3, 4, 5, 6]}\n{\"tokens\": \"words and words\"}";
    line_is_refused(tokens, &["line 2", "field `tokens` holds text, expected a list of token ids"]);
}

#[test]
fn elements_that_are_no_tokens() {
    for (element, found) in [
        ("-1", "-1"),
        ("4294967296", "4294967296"),
        ("1.0", "1.0"),
        ("\"7\"", "text"),
        ("null", "null"),
        ("[2]", "a list"),
        ("{\"a\": [1]}", "an object"),
    ] {
        let line = format!("{{\"tokens\": [1, 2, 3, 4, 5, {element}, 6]}}");
        line_is_refused(&line, &["line 1", "element 5 of `tokens` is", found, "expected a token id"]);
    }
}

#[test]
fn a_field_that_occurs_twice() {
    line_is_refused(r#"{"text": "one", "text": "two"}"#, &["line 1", "`text` occurs twice"]);
}

#[test]
fn truncated_and_damaged_compression() {
    let dir = Folder::new();
    let lines: String = (0..5000).map(|i| format!("{{\"text\": \"line {i} of {}\"}}\n", i * 7919 % 1013)).collect();
    for (name, bytes, kind) in
        [("x.jsonl.gz", gzip(lines.as_bytes()), "gzip"), ("x.jsonl.zst", zst(lines.as_bytes()), "zstd")]
    {
        for cut in [bytes.len() - 1, bytes.len() / 2, 3] {
            let path = dir.file(name, &bytes[..cut]);
            let error = refused(&[&path], options());
            assert!(
                error.contains(name) && error.contains(&format!("truncated or damaged {kind} data")),
                "{cut}: {error}"
            );
        }
        let mut damaged = bytes.clone();
        for b in &mut damaged[bytes.len() / 2..bytes.len() / 2 + 8] {
            *b ^= 0x55;
        }
        let error = refused(&[&dir.file(name, damaged)], options());
        assert!(error.contains(name), "{error}");
        let error = refused(&[&dir.file(name, b"not compressed at all")], options());
        assert!(error.contains(&format!("truncated or damaged {kind} data after 0 bytes")), "{error}");
    }
    // Lines before the damage are delivered.
    let path = dir.file("y.jsonl.gz", &gzip(lines.as_bytes())[..10_000]);
    let before = Documents::open(&[&path], options()).unwrap().take_while(Result::is_ok).count();
    assert!(before > 100, "{before} documents before the damage");
}

#[test]
fn text_and_tokens_do_not_mix() {
    let dir = Folder::new();
    let (a, b) = (dir.file("a.txt", "a"), dir.file("b.jsonl", "{\"tokens\": [1]}"));
    let error = refused(&[a, b], options());
    assert!(error.contains("a.txt holds text and") && error.contains("b.jsonl holds tokens"), "{error}");
}

#[test]
fn a_run_without_whitespace_is_cut_between_characters() {
    let dir = Folder::new();
    let text = "日本語".repeat(1000);
    let path = dir.file("x.txt", &text);
    assert_eq!(texts(&[&path], options().max_piece_bytes(16)).unwrap()[0].2, text);
    let error = Documents::open(&[&path], options().max_piece_bytes(15)).err().unwrap().to_string();
    assert_eq!(error, "max_piece_bytes is 15, expected at least 16");
}

/// Every result carries the error's place along.
#[test]
fn errors_are_small() {
    let size = size_of::<activation_store::Error>();
    assert!(size < 128, "{size}");
}
