//! Documents too long for a tokenizer that must see a document whole.

use super::support::{Characters, Folder, Pieces, hash, options};
use activation_store::{
    Content, DocId, Documents, LongDocuments, PackingOptions, PackingReport, Piece, TokenRow, TokenRows, Tokenize,
};
use model_hooks::Tokenizer;
use std::sync::Arc;

/// Tokenizers of letters and pairs of letters whose tokens depend on the text before a space: a space is put before every text, or
/// before the first word, as part of a normalizer or of a pre-tokenizer; or none is, but words are cut by an unknown rule.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let prepend = r#"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#;
    let metaspace =
        |scheme: &str| format!(r#"{{"type":"Metaspace","replacement":"▁","prepend_scheme":"{scheme}","split":true}}"#);
    [
        ("prepend", prepend.to_string(), "null".to_string()),
        ("always", "null".into(), metaspace("always")),
        ("first", "null".into(), metaspace("first")),
        ("never", "null".into(), metaspace("never")),
    ]
    .into_iter()
    .map(|(name, normalizer, pre_tokenizer)| (name, tokenizer(&normalizer, &pre_tokenizer)))
    .collect()
}

fn tokenizer(normalizer: &str, pre_tokenizer: &str) -> Tokenizer {
    let letters = ["▁", "\\n", "a", "b", "c", "d", "e", "."];
    let merges = ["▁ a", "▁ b", "▁ c", "▁ ▁", "a b", "▁a b", "c d", "▁ e"];
    let joined = merges.map(|pair| pair.replace(' ', ""));
    let entries = ["<unk>"].iter().map(ToString::to_string).chain(letters.map(String::from)).chain(joined);
    let vocab: Vec<String> = entries.enumerate().map(|(id, entry)| format!("\"{entry}\":{id}")).collect();
    let merges: Vec<String> = merges.iter().map(|pair| format!("\"{pair}\"")).collect();
    let json = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{normalizer},
        "pre_tokenizer":{pre_tokenizer},"post_processor":null,"decoder":null,"model":{{"type":"BPE","dropout":null,
        "unk_token":"<unk>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":false,
        "vocab":{{{}}},"merges":[{}]}}}}"#,
        vocab.join(","),
        merges.join(",")
    );
    let dir = Folder::new();
    dir.file("tokenizer.json", json);
    Tokenizer::from_folder(dir.path()).unwrap()
}

fn rows(texts: &[String], tokenizer: Arc<dyn Tokenize>, packing: PackingOptions) -> (Vec<TokenRow>, PackingReport) {
    let documents = Documents::from_texts_with(texts.to_vec(), options().max_piece_bytes(64)).unwrap();
    let mut rows = TokenRows::new(documents, Some(tokenizer), packing).unwrap();
    let all = rows.by_ref().map(Result::unwrap).collect();
    (all, *rows.report())
}

/// Words, double spaces, line breaks.
fn text() -> String {
    let words = ["ab", "cde", "a", "eb.", "dcab", "b"];
    let spaces = [" ", " ", "  ", " ", "\n", " ", " . "];
    (0..700).map(|i| format!("{}{}", words[i % 6], spaces[i * i % 7])).collect()
}

#[test]
fn a_cut_leaves_the_tokens_as_they_are() {
    let texts = ["ab".to_string(), text(), "cd".to_string()];
    for (name, tokenizer) in tokenizers() {
        assert!(!tokenizer.splits_at_whitespace(), "{name}");
        let tokenizer: Arc<dyn Tokenize> = Arc::new(tokenizer);
        let at = |bytes| PackingOptions { max_document_bytes: bytes, ..PackingOptions::new(1) };
        let (whole, report) = rows(&texts, tokenizer.clone(), at(1 << 20));
        assert_eq!((report.cut_documents, report.forced_cuts), (0, 0));
        for limit in [100, 333, 1000] {
            let (cut, report) = rows(&texts, tokenizer.clone(), at(limit));
            let ids = |rows: &[TokenRow]| rows.iter().map(|row| row.tokens[0]).collect::<Vec<_>>();
            assert!(ids(&cut) == ids(&whole), "{name} at {limit}");
            assert_eq!((report.cut_documents, report.forced_cuts, report.documents), (1, 0, 3), "{name} at {limit}");
            // Addresses count from the document's beginning; a token that stood for the space alone has the character after it.
            for (cut, whole) in cut.iter().zip(&whole) {
                let (cut, whole) = (cut.origin[0].clone().unwrap(), whole.origin[0].clone().unwrap());
                assert_eq!(cut.doc, whole.doc, "{name} at {limit}");
                assert!(cut.span.start - whole.span.start <= 1 && cut.span.end - whole.span.end <= 1);
            }
        }
    }
}

#[test]
fn a_text_without_whitespace_is_cut_all_the_same() {
    let text = "日".repeat(1000);
    let packing = PackingOptions { max_document_bytes: 100, ..PackingOptions::new(1) };
    let (rows, report) = rows(&[text], Arc::new(Characters { cuts: false }), packing);
    assert_eq!(rows.len(), 1000);
    assert!(rows.iter().all(|row| row.tokens == [hash("日")]));
    assert_eq!((report.cut_documents, report.forced_cuts), (1, 3000_u64.div_ceil(99) - 1));
}

#[test]
fn a_long_document_can_be_left_out() {
    let long = "word ".repeat(100);
    let texts = ["ab".to_string(), long.clone(), "cd".into(), long];
    let packing =
        PackingOptions { max_document_bytes: 100, long_documents: LongDocuments::Skip, ..PackingOptions::new(1) };
    let (rows, report) = rows(&texts, Arc::new(Characters { cuts: false }), packing.clone());
    let found: Vec<u32> = rows.iter().map(|row| row.tokens[0]).collect();
    assert_eq!(found, ["a", "b", "c", "d"].map(hash));
    assert_eq!((report.skipped_documents, report.cut_documents, report.documents), (2, 0, 2));
    // The same in one piece.
    let pieces = Pieces::new(vec![Piece {
        doc: DocId::default(),
        start: 0,
        content: Content::Text("word ".repeat(100)),
        last: true,
    }]);
    let mut rows = TokenRows::new(pieces, Some(Arc::new(Characters { cuts: false })), packing).unwrap();
    assert!(rows.next().is_none());
    assert_eq!(rows.report().skipped_documents, 1);
}
