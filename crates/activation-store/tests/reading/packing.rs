//! SAELens' packing: its own test vectors (`tests/training/test_tokenization_and_batching.py`), and the algorithm as a whole
//! against a plain port that sees each document at once.

use super::support::Pieces;
use activation_store::{Documents, PackingOptions, PackingReport, PretokenizedRows, TokenRow, TokenRows};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const BATCH: Option<u32> = Some(999);
const SEQUENCE: Option<u32> = Some(998);
const SEPARATOR: Option<u32> = Some(997);

fn context(context_size: usize) -> PackingOptions {
    PackingOptions { tokens: PretokenizedRows::Pack, ..PackingOptions::new(context_size) }
}

fn pack(documents: &[Vec<u32>], piece: usize, options: PackingOptions) -> (Vec<TokenRow>, PackingReport) {
    let mut rows = TokenRows::new(Pieces::tokens(documents, piece), None, options).unwrap();
    let all = rows.by_ref().map(Result::unwrap).collect();
    (all, *rows.report())
}

/// The rows, whatever the size of the pieces.
fn packed(documents: &[Vec<u32>], options: PackingOptions) -> Vec<Vec<u32>> {
    let (whole, report) = pack(documents, usize::MAX / 2, options.clone());
    for piece in 1..12 {
        assert_eq!(pack(documents, piece, options.clone()), (whole.clone(), report), "pieces of {piece}");
    }
    whole.into_iter().map(|row| row.tokens).collect()
}

/// 0, 1, 2 ... cut into documents that end at these tokens.
fn documents(ends: &[u32]) -> Vec<Vec<u32>> {
    ends.iter().scan(0, |start, end| Some((std::mem::replace(start, *end)..*end).collect())).collect()
}

fn s4() -> Vec<Vec<u32>> {
    documents(&[3, 10, 17, 19])
}

fn s5() -> Vec<Vec<u32>> {
    documents(&[3, 8, 11, 17, 19])
}

#[test]
fn nothing_inserted() {
    let rows = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]];
    assert_eq!(packed(&documents(&[3, 10, 17, 20]), context(5)), rows);
    assert_eq!(packed(&s4(), context(5)), rows[..3], "the last, incomplete row is dropped");
    let (_, report) = pack(&s4(), 100, context(5));
    assert_eq!((report.documents, report.tokens, report.rows, report.dropped_tokens), (4, 19, 3, 4));
}

#[test]
fn begin_batch() {
    assert_eq!(
        packed(&s4(), PackingOptions { begin_batch: BATCH, ..context(5) }),
        [[999, 0, 1, 2, 3], [999, 4, 5, 6, 7], [999, 8, 9, 10, 11], [999, 12, 13, 14, 15]]
    );
}

#[test]
fn begin_sequence() {
    assert_eq!(
        packed(&s4(), PackingOptions { begin_sequence: SEQUENCE, ..context(5) }),
        [[998, 0, 1, 2, 998], [3, 4, 5, 6, 7], [8, 9, 998, 10, 11], [12, 13, 14, 15, 16]]
    );
}

#[test]
fn separator() {
    assert_eq!(
        packed(&s4(), PackingOptions { separator: SEPARATOR, ..context(5) }),
        [[0, 1, 2, 997, 3], [4, 5, 6, 7, 8], [9, 997, 10, 11, 12], [13, 14, 15, 16, 997]]
    );
}

/// The row in which SAELens 6.54.12 differs from 6.18: a `begin_sequence` without room goes to the next row.
#[test]
fn all_three() {
    let options = PackingOptions { begin_batch: BATCH, begin_sequence: SEQUENCE, separator: SEPARATOR, ..context(5) };
    let rows = packed(&s5(), options);
    assert_eq!(
        rows,
        [
            [999, 998, 0, 1, 2],
            [999, 998, 3, 4, 5],
            [999, 6, 7, 997, 998],
            [999, 8, 9, 10, 997],
            [999, 998, 11, 12, 13],
            [999, 14, 15, 16, 997]
        ]
    );
}

#[test]
fn all_three_the_same() {
    let options = PackingOptions { begin_batch: BATCH, begin_sequence: BATCH, separator: BATCH, ..context(5) };
    assert_eq!(
        packed(&s5(), options),
        [[999, 0, 1, 2, 999], [999, 3, 4, 5, 6], [999, 7, 999, 8, 9], [999, 10, 999, 11, 12], [999, 13, 14, 15, 16]]
    );
}

#[test]
fn one_row_for_one_document() {
    let alone = PackingOptions { disable_concat: true, ..context(5) };
    let s4 = documents(&[3, 10, 17, 20]);
    assert_eq!(packed(&s4, alone.clone()), [[3, 4, 5, 6, 7], [10, 11, 12, 13, 14]]);
    let batch = PackingOptions { begin_batch: BATCH, ..alone.clone() };
    assert_eq!(packed(&s4, batch.clone()), [[999, 3, 4, 5, 6], [999, 10, 11, 12, 13]]);
    let both = PackingOptions { begin_sequence: Some(888), ..batch.clone() };
    assert_eq!(packed(&s4, both), [[888, 3, 4, 5, 6], [888, 10, 11, 12, 13]]);
    let gaps = [vec![], (0..10).collect(), vec![], (5..15).collect()];
    assert_eq!(packed(&gaps, batch.clone()), [[999, 0, 1, 2, 3], [999, 5, 6, 7, 8]]);
    // One token short of a row is enough where one is inserted, and not where the document brings it.
    assert_eq!(packed(&[vec![1, 2, 3, 4], vec![999, 2, 3, 4]], batch.clone()), [[999, 1, 2, 3, 4]]);
    let (_, report) = pack(&s4, 2, batch);
    assert_eq!((report.documents, report.short_documents, report.truncated_documents), (4, 2, 2));
    assert_eq!((report.tokens, report.inserted, report.dropped_tokens), (20, 2, 12));
}

#[test]
fn ten_million_tokens_in_one_document() {
    let start = Instant::now();
    let options = PackingOptions { begin_batch: BATCH, begin_sequence: BATCH, ..context(100) };
    let documents = Documents::from_tokens(vec![(0..10_000_000).map(|i| i % 900).collect()]).unwrap();
    let rows = TokenRows::new(documents, None, options).unwrap().take(50_000);
    assert_eq!(rows.map(Result::unwrap).filter(|row| row.tokens[0] == 999).count(), 50_000);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "5 M tokens took {took:?}; about 0.1 s is usual");
}

#[test]
fn rows_that_somebody_has_packed() {
    let rows = |documents: &[Vec<u32>]| {
        let options = PackingOptions { begin_batch: BATCH, separator: SEPARATOR, ..PackingOptions::new(3) };
        let mut rows = TokenRows::new(Pieces::tokens(documents, 2), None, options).unwrap();
        let all: Vec<_> = rows.by_ref().collect();
        (all, *rows.report())
    };
    let (all, report) = rows(&[vec![1, 2, 3, 4, 5, 6, 7], vec![8, 9, 10]]);
    let all: Vec<_> = all.into_iter().map(|row| row.unwrap().tokens).collect();
    assert_eq!(all, [[1, 2, 3], [8, 9, 10]]);
    assert_eq!((report.tokens, report.dropped_tokens, report.truncated_documents, report.inserted), (10, 4, 1, 0));
    for short in [vec![1, 2], vec![]] {
        let (all, _) = rows(&[vec![1, 2, 3], short.clone(), vec![4, 5, 6]]);
        assert_eq!(all.len(), 2, "nothing after the error");
        let error = all[1].as_ref().unwrap_err().to_string();
        let expected =
            format!("document 1 of file 0 holds {} tokens, expected at least the context size 3", short.len());
        assert_eq!(error, expected);
    }
}

#[test]
fn contexts_that_cannot_work() {
    let refused = |options| TokenRows::new(Pieces::new(vec![]), None, options).err().unwrap().to_string();
    assert_eq!(refused(context(0)), "context_size is 0, expected at least 1");
    // SAELens hands out rows of this one token for ever.
    let error = refused(PackingOptions { begin_batch: BATCH, ..context(1) });
    assert_eq!(error, "context_size is 1, expected at least 2: one for `begin_batch`, one for a token");
    assert_eq!(packed(&[vec![1, 2]], PackingOptions { begin_sequence: SEQUENCE, ..context(1) }), [[998], [1], [2]]);
}

/// What SAELens 6.54.12 does, on whole documents.
fn oracle(documents: &[Vec<u32>], o: &PackingOptions) -> Vec<Vec<u32>> {
    let mut rows = Vec::new();
    if o.disable_concat {
        let begin = o.begin_sequence.or(o.begin_batch);
        for document in documents.iter().filter(|d| !d.is_empty()) {
            let mut row = document.clone();
            if let Some(begin) = begin.filter(|b| row.len() + 1 >= o.context_size && row[0] != *b) {
                row.insert(0, begin);
            }
            if row.len() >= o.context_size {
                rows.push(row[..o.context_size].to_vec());
            }
        }
        return rows;
    }
    let mut row: Vec<u32> = Vec::new();
    for document in documents {
        let (mut at, mut start) = (0, true);
        while at < document.len() {
            let mut prefix = Vec::new();
            let opening = if row.is_empty() { o.begin_batch } else { o.separator };
            let sequence = o.begin_sequence.filter(|_| start);
            let mut pending = false;
            for token in [sequence, opening].into_iter().enumerate() {
                if let (i, Some(token)) = token
                    && token != *prefix.first().unwrap_or(&document[at])
                {
                    prefix.insert(0, token);
                    pending |= i == 0;
                }
            }
            let room = o.context_size - row.len();
            start = pending && prefix.len() > room;
            row.extend(prefix.iter().take(room));
            let take = (o.context_size - row.len()).min(document.len() - at);
            row.extend(&document[at..at + take]);
            at += take;
            if row.len() == o.context_size {
                rows.push(std::mem::take(&mut row));
            }
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The stream gives what the plain algorithm gives, and no token of a document is lost or doubled without being counted.
    #[test]
    fn streaming_equals_the_plain_algorithm(
        documents in prop::collection::vec(prop::collection::vec(0u32..6, 0..20), 0..12),
        context_size in 2usize..9,
        inserted in prop::collection::vec(prop::option::of(0u32..8), 3),
        disable_concat: bool,
        piece in 1usize..25,
    ) {
        let options = PackingOptions {
            begin_batch: inserted[0],
            begin_sequence: inserted[1],
            separator: inserted[2],
            disable_concat,
            ..context(context_size)
        };
        let (rows, report) = pack(&documents, piece, options.clone());
        let tokens: Vec<_> = rows.iter().map(|row| row.tokens.clone()).collect();
        prop_assert_eq!(tokens, oracle(&documents, &options));

        let mut last = None;
        let mut kept = 0;
        for (i, row) in rows.iter().enumerate() {
            prop_assert_eq!((row.row, row.tokens.len(), row.origin.len()), (i as u64, context_size, context_size));
            for (token, origin) in row.tokens.iter().zip(&row.origin) {
                let Some(origin) = origin else { continue };
                let at = origin.span.start;
                prop_assert_eq!(*token, documents[origin.doc.ordinal as usize][at as usize]);
                prop_assert_eq!(origin.span.end, at + 1);
                prop_assert!(last < Some((origin.doc, at)), "each token once, in order");
                last = Some((origin.doc, at));
                kept += 1;
            }
        }
        let all = documents.iter().map(Vec::len).sum::<usize>() as u64;
        prop_assert_eq!(report.tokens, all);
        prop_assert_eq!(report.kept_tokens(context_size), kept);
        prop_assert_eq!(report.dropped_tokens, all - kept);
        prop_assert_eq!(report.documents, documents.len() as u64);
        prop_assert_eq!(report.empty_documents, documents.iter().filter(|d| d.is_empty()).count() as u64);
    }
}
