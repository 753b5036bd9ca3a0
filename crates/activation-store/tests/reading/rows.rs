//! From text to rows: tokenized in parallel, every token with the bytes it came from.

use super::support::{Characters, Folder, Pieces, demo_tokenizer, hash, options};
use activation_store::{
    Content, DocId, Documents, Error, LongDocuments, PackingOptions, Piece, Result, TokenRow, TokenRows, Tokenize,
    TokenizedText,
};
use proptest::prelude::*;
use std::sync::Arc;

fn rows_of(texts: &[String], max_piece_bytes: usize, cuts: bool) -> (Vec<TokenRow>, activation_store::PackingReport) {
    let documents = Documents::from_texts_with(texts.to_vec(), options().max_piece_bytes(max_piece_bytes)).unwrap();
    let packing = PackingOptions { begin_batch: Some(1), separator: Some(2), ..PackingOptions::new(7) };
    let mut rows = TokenRows::new(documents, Some(Arc::new(Characters { cuts })), packing).unwrap();
    let all = rows.by_ref().map(Result::unwrap).collect();
    (all, *rows.report())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rows and origins do not depend on the size of the pieces, and every origin is the text of its token.
    #[test]
    fn pieces_do_not_show(
        texts in prop::collection::vec("([ab,é日😀]{1,6}[ \n]{1,2}){0,30}", 1..5),
        max_piece_bytes in 36usize..200,
    ) {
        let (whole, expected) = rows_of(&texts, 1 << 20, true);
        let (rows, mut report) = rows_of(&texts, max_piece_bytes, true);
        // A safe place is never farther than a run of six characters and two spaces away, but before line breaks after commas.
        if report.forced_cuts == 0 {
            prop_assert_eq!(&rows, &whole);
        }
        report.forced_cuts = 0;
        let (joined, _) = rows_of(&texts, max_piece_bytes, false);
        prop_assert_eq!(&joined, &whole, "a tokenizer that must see documents whole");
        if rows == whole {
            prop_assert_eq!(report, expected);
        }
        for row in whole {
            for (token, origin) in row.tokens.iter().zip(row.origin) {
                if let Some(origin) = origin {
                    let text = &texts[origin.doc.ordinal as usize];
                    prop_assert_eq!(*token, hash(&text[origin.span.start as usize..origin.span.end as usize]));
                } else {
                    prop_assert!(*token < 3);
                }
            }
        }
    }
}

/// The real tokenizer on real text, and on text made of what its splitting rule looks at.
#[test]
fn pieces_do_not_show_to_a_real_tokenizer() {
    let demo = std::fs::read_to_string("../../assets/demo/text.jsonl").unwrap();
    let odd = "I'll don't  can'T\r\n\n  x\t\ty.\n\nz!! ?\n 12 345é 日本語 テキスト。\n<|endoftext|> a<|endoftext|>b\u{a0}c 😀😀 \u{301}e  ";
    let texts: Vec<String> = demo.lines().take(40).map(str::to_owned).chain([odd.repeat(50)]).collect();
    let rows = |max_piece_bytes: usize| {
        let documents = Documents::from_texts_with(texts.clone(), options().max_piece_bytes(max_piece_bytes)).unwrap();
        let packing = PackingOptions { begin_batch: Some(0), separator: Some(0), ..PackingOptions::new(64) };
        let mut rows = TokenRows::new(documents, Some(Arc::new(demo_tokenizer())), packing).unwrap();
        let all: Vec<TokenRow> = rows.by_ref().map(Result::unwrap).collect();
        (all, *rows.report())
    };
    let (whole, report) = rows(1 << 20);
    let tokens: u64 = texts.iter().map(|text| demo_tokenizer().encode(text).unwrap().ids.len() as u64).sum();
    assert_eq!((report.tokens, report.kept_tokens(64) + report.dropped_tokens), (tokens, tokens));
    for max_piece_bytes in [80, 81, 97, 1000, 4096] {
        let (cut, report) = rows(max_piece_bytes);
        assert_eq!(report.forced_cuts, 0, "pieces of {max_piece_bytes}");
        assert!(cut == whole, "pieces of {max_piece_bytes}");
    }
}

#[test]
fn threads_do_not_show() {
    let texts: Vec<String> =
        (0..200).map(|i| format!("document {i} {}", "some words, ".repeat(i * i % 4000))).collect();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| rows_of(&texts, 1 << 12, true))
    };
    let one = with(1);
    assert!(one.0.len() > 100_000);
    assert!(one == with(3), "three threads give other rows than one");
}

#[test]
fn a_document_that_must_be_seen_whole_and_is_too_long() {
    let text = "word ".repeat(1000);
    let rows = |limit| {
        let documents =
            Documents::from_texts_with(vec!["short".into(), text.clone()], options().max_piece_bytes(64)).unwrap();
        let tokenizer: Arc<dyn Tokenize> = Arc::new(Characters { cuts: false });
        let long_documents = LongDocuments::Refuse;
        let packing = PackingOptions { max_document_bytes: limit, long_documents, ..PackingOptions::new(5) };
        TokenRows::new(documents, Some(tokenizer), packing).unwrap().collect::<Vec<_>>()
    };
    assert!(rows(5000).iter().all(Result::is_ok));
    let refused = rows(4999);
    assert_eq!(refused.len(), 2, "the row before, and the error");
    let error = refused[1].as_ref().unwrap_err();
    assert!(matches!(error, Error::DocumentTooLong { doc: DocId { ordinal: 1, .. }, limit: 4999 }), "{error}");
}

#[test]
fn forced_cuts_are_counted() {
    let (rows, report) = rows_of(&["日".repeat(1000), "a b c d ".repeat(100)], 64, true);
    assert_eq!(report.forced_cuts, 3000_u64.div_ceil(63) - 1);
    // Characters are whole all the same.
    assert!(rows[0].tokens[1..].iter().all(|token| *token == hash("日")));
}

#[test]
fn empty_documents_are_counted_and_leave_no_separator() {
    let (rows, report) = rows_of(&["".into(), "abc".into(), "".into(), "defghi".into()], 1 << 20, true);
    assert_eq!(rows.len(), 1);
    let expected = [1, hash("a"), hash("b"), hash("c"), 2, hash("d"), hash("e")];
    assert_eq!(rows[0].tokens, expected);
    assert_eq!((report.documents, report.empty_documents, report.tokens, report.dropped_tokens), (4, 2, 9, 4));
}

#[test]
fn text_without_a_tokenizer() {
    let documents = Documents::from_texts(vec!["a".into()]).unwrap();
    let error = TokenRows::new(documents, None, PackingOptions::new(5)).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "document 0 of file 0 is text, and no tokenizer was given");
}

/// Refuses a text that says so, and gives one span too many for another.
struct Moody;

impl Tokenize for Moody {
    fn tokenize(&self, text: &str) -> Result<TokenizedText> {
        match text {
            "refuse" => Err(Error::NoDocuments),
            "spans" => Ok(TokenizedText { ids: vec![], spans: std::iter::once(0..1).collect() }),
            _ => Characters { cuts: true }.tokenize(text),
        }
    }

    fn splits_at_whitespace(&self) -> bool {
        true
    }
}

#[test]
fn errors_come_in_their_place() {
    for (bad, message) in [
        ("refuse", "no documents were given"),
        ("spans", "the tokenizer returned 0 ids and 1 spans for document 1 of file 0"),
    ] {
        let texts = ["abcde", bad, "fghij"].map(String::from).to_vec();
        let documents = Documents::from_texts(texts).unwrap();
        let rows = TokenRows::new(documents, Some(Arc::new(Moody)), PackingOptions::new(5)).unwrap();
        let all: Vec<_> = rows.collect();
        assert_eq!(all.len(), 2, "the row before the error, the error, and nothing more");
        assert!(all[0].is_ok());
        assert_eq!(all[1].as_ref().unwrap_err().to_string(), message);
    }
    let dir = Folder::new();
    let path = dir.file("x.jsonl", "{\"text\": \"abcdefgh\"}\n{\"text\": \"broken");
    let rows =
        TokenRows::new(Documents::open(&[path], options()).unwrap(), Some(Arc::new(Moody)), PackingOptions::new(5));
    let all: Vec<_> = rows.unwrap().collect();
    assert!(all.len() == 2 && all[0].is_ok() && all[1].as_ref().unwrap_err().to_string().contains("line 2"));
}

#[test]
fn a_source_that_ends_within_a_document() {
    let doc = DocId::default();
    let piece = |text: &str, start| Piece { doc, start, content: Content::Text(text.into()), last: false };
    for cuts in [true, false] {
        let pieces = Pieces::new(vec![piece("abc", 0), piece(" def", 3)]);
        let rows = TokenRows::new(pieces, Some(Arc::new(Characters { cuts })), PackingOptions::new(6)).unwrap();
        let all: Vec<TokenRow> = rows.map(Result::unwrap).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].origin[3].clone().unwrap().span, 3..5);
    }
}
