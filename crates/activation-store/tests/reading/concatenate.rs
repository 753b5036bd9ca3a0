//! TransformerLens' `tokenize_and_concatenate` against itself (`tools/goldens/golden_concatenate.py`).

use super::support::{Pieces, demo_tokenizer};
use activation_store::{
    ConcatenateOptions, ConcatenateVersion, Documents, PackingReport, Result, TokenRow, tokenize_and_concatenate,
};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    version: String,
    first: usize,
    count: usize,
    max_length: usize,
    add_bos: bool,
    pad: Option<String>,
    rows: usize,
    hash: String,
    head: Vec<Vec<u32>>,
    tail: Vec<Vec<u32>>,
}

impl Case {
    fn options(&self) -> ConcatenateOptions {
        let mut options = ConcatenateOptions::new(self.max_length, &demo_tokenizer()).unwrap();
        if !self.add_bos {
            options.bos = None;
        }
        options.pad = self.pad.as_ref().map(|text| demo_tokenizer().to_single_token(text).unwrap());
        if self.version == "2.16" {
            options.version = ConcatenateVersion::Chunks;
        }
        options
    }
}

/// The rule of the golden's generator.
fn sentences() -> Vec<String> {
    let file = std::fs::read_to_string("../../assets/demo/text.jsonl").unwrap();
    let text =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    let mut found: Vec<String> =
        file.lines().flat_map(|line| text(line).split(". ").map(str::to_owned).collect::<Vec<_>>()).collect();
    found.iter_mut().step_by(50).for_each(String::clear);
    found.iter_mut().skip(7).step_by(70).for_each(|s| *s = format!("{s}<|endoftext|>{s}"));
    found
}

fn run(texts: &[String], options: ConcatenateOptions, max_piece_bytes: usize) -> (Vec<TokenRow>, PackingReport) {
    let pieces = super::support::options().max_piece_bytes(max_piece_bytes);
    let documents = Documents::from_texts_with(texts.to_vec(), pieces).unwrap();
    let mut rows = tokenize_and_concatenate(documents, Arc::new(demo_tokenizer()), options).unwrap();
    let all = rows.by_ref().collect::<Result<_>>().unwrap();
    (all, *rows.report())
}

fn fnv(rows: &[TokenRow]) -> String {
    let bytes = rows.iter().flat_map(|row| &row.tokens).flat_map(|id| id.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[test]
fn as_transformer_lens() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/concatenate.json")).unwrap();
    let sentences = sentences();
    assert!(golden.cases.len() > 12);
    for case in &golden.cases {
        let texts = &sentences[case.first..case.first + case.count];
        let name = format!("{} first {} count {} pad {:?}", case.version, case.first, case.count, case.pad);
        let (rows, report) = run(texts, case.options(), 1 << 20);
        let of = |range: std::ops::Range<usize>| rows[range].iter().map(|row| row.tokens.clone()).collect::<Vec<_>>();
        assert_eq!(rows.len(), case.rows, "{name}");
        let shown = case.head.len();
        // Without a padding token 2.16 fills up with an id outside the vocabulary; ours is EOS.
        assert_eq!(of(0..shown), case.head, "{name}");
        assert_eq!(of(rows.len() - shown..rows.len()), case.tail, "{name}");
        assert_eq!(fnv(&rows), case.hash, "{name}");
        assert_eq!(run(texts, case.options(), 16).0, rows, "{name}: the size of pieces shows");

        let kept: u64 = rows.iter().map(|row| row.origin.iter().flatten().count() as u64).sum();
        assert_eq!(report.kept_tokens(case.max_length), kept);
        assert_eq!(report.tokens, kept + report.dropped_tokens);
        assert_eq!(report.documents, case.count as u64);
        let mut last = None;
        for (i, row) in rows.iter().enumerate() {
            assert_eq!((row.row, row.tokens.len(), row.origin.len()), (i as u64, case.max_length, case.max_length));
            for origin in row.origin.iter().flatten() {
                let text = &texts[origin.doc.ordinal as usize];
                assert!(origin.span.end as usize <= text.len());
                assert!(last <= Some((origin.doc, origin.span.start)), "origins ascend");
                last = Some((origin.doc, origin.span.start));
            }
        }
    }
}

#[test]
fn a_group_is_a_thousand_documents() {
    let texts: Vec<String> = (0..1001).map(|i| format!("number {i}")).collect();
    let (rows, report) = run(&texts, ConcatenateOptions::new(16, &demo_tokenizer()).unwrap(), 1 << 20);
    let last = rows.last().unwrap();
    // The last group is one document; it is filled up.
    assert_eq!(last.origin[1].as_ref().unwrap().doc.ordinal, 1000);
    assert_eq!(last.tokens[8..], [0; 8]);
    let origins = rows[..rows.len() - 1].iter().flat_map(|row| row.origin.iter().flatten());
    assert!(origins.into_iter().all(|origin| origin.doc.ordinal < 1000));
    assert_eq!((report.documents, report.empty_documents), (1001, 0));
}

#[test]
fn refusals() {
    let mut bad = ConcatenateOptions::new(1, &demo_tokenizer()).unwrap();
    let error = |options| {
        let tokens = Pieces::tokens(&[vec![1, 2]], 1);
        match tokenize_and_concatenate(tokens, Arc::new(demo_tokenizer()), options) {
            Ok(mut rows) => {
                let error = rows.next().unwrap().unwrap_err().to_string();
                assert!(rows.next().is_none(), "nothing after an error");
                error
            }
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(error(bad.clone()), "max_length is 1, expected room for BOS and a token");
    bad.max_length = 2;
    assert_eq!(error(bad), "document 0 of file 0 is a list of tokens, expected text");
}
