//! What is read, and as which documents.

use super::support::{Folder, gzip, options, texts, tokens, whole, zst};
use activation_store::{Content, Documents, TextSplit};
use proptest::prelude::*;

const LINES: &str = "{\"text\": \"one\", \"id\": 1}\n\n  \n{\"id\": {\"a\": [1, 2]}, \"text\": \"two \\u00e9\\n\\\"\\ud83d\\ude00\"}\r\n{\"text\": \"\"}";

fn lines() -> Vec<(u32, u64, String)> {
    vec![(0, 0, "one".into()), (0, 3, "two é\n\"😀".into()), (0, 4, String::new())]
}

#[test]
fn json_lines_plain_and_compressed() {
    let dir = Folder::new();
    for (name, bytes) in [
        ("a.jsonl", LINES.as_bytes().to_vec()),
        ("a.json", [b"\xef\xbb\xbf", LINES.as_bytes()].concat()),
        ("a.ndjson", format!("{LINES}\n").into_bytes()),
        ("a.jsonl.gz", gzip(LINES.as_bytes())),
        ("a.JSONL.ZST", zst(LINES.as_bytes())),
        // Two members, one after another, as `cat a.gz b.gz` makes them.
        ("b.jsonl.gz", [gzip(&LINES.as_bytes()[..30]), gzip(&LINES.as_bytes()[30..])].concat()),
        ("b.jsonl.zst", [zst(&LINES.as_bytes()[..30]), zst(&LINES.as_bytes()[30..])].concat()),
    ] {
        let path = dir.file(name, bytes);
        for max_piece_bytes in [16, 40, 1 << 20] {
            assert_eq!(texts(&[&path], options().max_piece_bytes(max_piece_bytes)).unwrap(), lines(), "{name}");
        }
    }
}

#[test]
fn the_field_is_found_in_saelens_order_or_named() {
    let dir = Folder::new();
    let all =
        dir.file("all.jsonl", r#"{"problem": "p", "text": "t", "input_ids": [1, 2], "tokens": [3], "mine": "m"}"#);
    assert_eq!(tokens(&[&all], options()).unwrap(), [(0, vec![3])]);
    assert_eq!(tokens(&[&all], options().field("input_ids")).unwrap(), [(0, vec![1, 2])]);
    assert_eq!(texts(&[&all], options().field("mine")).unwrap(), [(0, 0, "m".into())]);
    let fewer = dir.file("fewer.jsonl", r#"{"problem": "p", "text": "t", "input_ids": [1, 2]}"#);
    assert_eq!(tokens(&[&fewer], options()).unwrap(), [(0, vec![1, 2])]);
    let two = dir.file("two.jsonl", r#"{"problem": "p", "text": "t"}"#);
    assert_eq!(texts(&[&two], options()).unwrap(), [(0, 0, "t".into())]);
    let one = dir.file("one.jsonl", r#"{"problem": "p"}"#);
    // Each file has a field of its own.
    assert_eq!(texts(&[&one, &two], options()).unwrap(), [(0, 0, "p".into()), (1, 0, "t".into())]);
    // A name written with an escape is the same name.
    let escaped = dir.file("escaped.jsonl", r#"{"te\u0078t": "t"}"#);
    for max_piece_bytes in [16, 1 << 20] {
        assert_eq!(texts(&[&escaped], options().max_piece_bytes(max_piece_bytes)).unwrap(), [(0, 0, "t".into())]);
    }
}

#[test]
fn lists_of_tokens_long_and_short() {
    let dir = Folder::new();
    let long: Vec<u32> = (0..1000).chain([u32::MAX]).collect();
    let lines = format!("{{\"tokens\": {long:?}}}\n{{\"tokens\": []}}\n{{\"tokens\": [7]}}\n");
    let path = dir.file("t.jsonl", lines);
    for max_piece_bytes in [16, 100, 1 << 20] {
        let found = tokens(&[&path], options().max_piece_bytes(max_piece_bytes)).unwrap();
        assert_eq!(found, [(0, long.clone()), (1, vec![]), (2, vec![7])]);
    }
}

#[test]
fn a_text_file_is_one_document_or_its_paragraphs() {
    let dir = Folder::new();
    let text = "\n  \nOne é,\r\nstill one.\r\n \t \r\n\n  Two,\n   still two.  \n\nthree";
    for (name, bytes) in
        [("a.txt", text.into()), ("a.txt.gz", gzip(text.as_bytes())), ("a.txt.zst", zst(text.as_bytes()))]
    {
        let path = dir.file(name, bytes);
        for max_piece_bytes in [16, 17, 1 << 20] {
            let options = options().max_piece_bytes(max_piece_bytes);
            assert_eq!(texts(&[&path], options.clone()).unwrap(), [(0, 0, text.into())]);
            assert_eq!(
                texts(&[&path], options.text_split(TextSplit::BlankLines)).unwrap(),
                [
                    (0, 0, "One é,\r\nstill one.".into()),
                    (0, 1, "  Two,\n   still two.  ".into()),
                    (0, 2, "three".into())
                ]
            );
        }
    }
}

#[test]
fn files_come_sorted_and_once() {
    let dir = Folder::new();
    for name in ["b/2.txt", "a/10.txt", "a/9.txt", "c.jsonl"] {
        dir.file(name, if name == "c.jsonl" { r#"{"text": "c.jsonl"}"# } else { name });
    }
    let at = |name: &str| dir.path().join(name);
    // A file with two names keeps the one that sorts first.
    let patterns = [at("c.jsonl"), at("b/2.txt"), at("**/*.txt"), at("c/../b/2.txt"), at("a/9.txt")];
    std::fs::create_dir(at("c")).unwrap();
    let documents = Documents::open(&patterns, options()).unwrap();
    assert_eq!(documents.files(), [at("a/10.txt"), at("a/9.txt"), at("b/2.txt"), at("c.jsonl")]);
    let found: Vec<_> = texts(&patterns, options()).unwrap().into_iter().map(|(file, _, text)| (file, text)).collect();
    let expected = ["a/10.txt", "a/9.txt", "b/2.txt", "c.jsonl"];
    assert_eq!(found, (0..).zip(expected.map(String::from)).collect::<Vec<_>>());
    // A wildcard in a name that exists is no wildcard.
    let odd = dir.file("odd[1].txt", "odd");
    assert_eq!(texts(&[&odd], options()).unwrap(), [(0, 0, "odd".into())]);
}

#[test]
fn documents_in_memory_and_again_from_the_start() {
    let texts = vec!["a b c".repeat(20), String::new(), "d".into()];
    let options = options().max_piece_bytes(16);
    let mut documents = Documents::from_texts_with(texts.clone(), options).unwrap();
    documents.next().unwrap().unwrap();
    for _ in 0..2 {
        let found = whole(documents.restarted(), 16).unwrap();
        assert_eq!(found.into_iter().map(|(_, c)| c).collect::<Vec<_>>(), texts.clone().map_text());
    }
    let ids = vec![(0..500_000).collect::<Vec<u32>>(), vec![], vec![1]];
    let found = whole(Documents::from_tokens(ids.clone()).unwrap(), 1 << 20).unwrap();
    assert_eq!(
        found.into_iter().map(|(_, c)| c).collect::<Vec<_>>(),
        ids.into_iter().map(Content::Tokens).collect::<Vec<_>>()
    );
}

trait MapText {
    fn map_text(self) -> Vec<Content>;
}

impl MapText for Vec<String> {
    fn map_text(self) -> Vec<Content> {
        self.into_iter().map(Content::Text).collect()
    }
}

#[test]
fn a_reader_that_is_dropped_early_stops() {
    let dir = Folder::new();
    let path = dir.file("big.txt", "word ".repeat(1 << 20));
    let mut documents = Documents::open(&[&path], options().max_piece_bytes(1 << 12)).unwrap();
    assert!(!documents.next().unwrap().unwrap().last);
    drop(documents);
    // The file can be read again, from the start.
    assert_eq!(texts(&[&path], options()).unwrap()[0].2.len(), 5 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A line says the same whether it is parsed whole or as it streams by, and however small the pieces are.
    #[test]
    fn long_lines_are_short_lines(
        documents in prop::collection::vec("(?s)[\\PC \n\t\"\\\\é😀]{0,60}", 1..6),
        max_piece_bytes in 16usize..80,
    ) {
        let dir = Folder::new();
        let other = r#""other": [1.5e-3, {"text": "no"}, null, true, "\u0000"]"#;
        let lines: Vec<String> = documents
            .iter()
            .map(|text| format!("{{{other}, \"text\": {}, \"last\": -1e9}}", serde_json::to_string(text).unwrap()))
            .collect();
        let path = dir.file("x.jsonl", lines.join("\n"));
        let found = texts(&[&path], options().max_piece_bytes(max_piece_bytes)).unwrap();
        let found: Vec<String> = found.into_iter().map(|(_, _, text)| text).collect();
        prop_assert_eq!(found, documents);
    }

    /// Paragraphs do not depend on how the file arrives.
    #[test]
    fn paragraphs_are_what_lies_between_blank_lines(lines in prop::collection::vec("[ ab\t]{0,6}", 0..30), max in 16usize..40) {
        let dir = Folder::new();
        let text = format!("x\n{}", lines.join("\n"));
        let path = dir.file("x.txt", &text);
        let mut expected = vec![Vec::new()];
        for line in text.split('\n') {
            match (line.trim().is_empty(), expected.last_mut()) {
                (false, Some(paragraph)) => paragraph.push(line),
                _ => expected.push(Vec::new()),
            }
        }
        let expected: Vec<String> = expected.into_iter().filter(|p| !p.is_empty()).map(|p| p.join("\n")).collect();
        let found = texts(&[&path], options().max_piece_bytes(max).text_split(TextSplit::BlankLines)).unwrap();
        prop_assert_eq!(found.into_iter().map(|(_, _, text)| text).collect::<Vec<_>>(), expected);
    }
}
