//! How much memory reading takes, measured: 2 GB of JSON Lines, and a line of 500 MB.
//!
//! ```text
//! cargo test --release --workspace --test reading -- --ignored --nocapture --exact memory::peak
//! ```
//!
//! Peak of the resident set (VmHWM, set back before each step) and what was resident before, on two cores that others used too:
//!
//! | step | before | peak |
//! |---|---|---|
//! | 2 GB of lines, pieces only | 15 MB | 16 MB |
//! | 2 GB of lines, packed, split at spaces (328 M tokens) | 16 MB | 19 MB |
//! | the same file, the demo tokenizer's first 16 M tokens | 18 MB | 33 MB |
//! | a line of 500 MB, pieces only | 31 MB | 36 MB |
//! | the line, packed, split at spaces (83 M tokens) | 35 MB | 48 MB |
//! | the line, the demo tokenizer's first 16 M tokens | 32 MB | 64 MB |
//!
//! The look-ahead grows with the number of threads: up to 8 MiB of text and its tokens, where two threads hold 512 KiB.

use super::support::{demo_tokenizer, options};
use activation_store::{Documents, PackingOptions, Result, TokenRows, Tokenize, TokenizedText};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const MB: u64 = 1_000_000;
/// What reading may take on top of what is there before: the tokenizer, the test itself.
const LIMIT_MB: u64 = 256;

/// Splits before whitespace; the id is the length. Fast enough for gigabytes.
struct Words;

impl Tokenize for Words {
    fn tokenize(&self, text: &str) -> Result<TokenizedText> {
        let mut out = TokenizedText::default();
        let mut start = 0;
        let mut space = true;
        let mut token = |start: usize, end: usize| {
            out.ids.push((end - start) as u32);
            out.spans.push(start..end);
        };
        for (at, byte) in text.bytes().enumerate() {
            let is_space = byte == b' ' || byte == b'\n';
            if is_space && !space {
                token(start, at);
                start = at;
            }
            space = is_space;
        }
        if start < text.len() {
            token(start, text.len());
        }
        Ok(out)
    }

    fn splits_at_whitespace(&self) -> bool {
        true
    }
}

/// A line of the process's status in kB, as MB.
fn status_mb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024 / MB
}

/// Runs `read`, which says how many tokens it saw, and prints and checks what memory it took.
fn measure(what: &str, read: impl FnOnce() -> u64) {
    // Sets the peak back to what is resident now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, start) = (status_mb("VmRSS"), Instant::now());
    let tokens = read();
    let peak = status_mb("VmHWM");
    println!(
        "{what}: {tokens} tokens in {:.1} s; resident {before} MB before, peak {peak} MB",
        start.elapsed().as_secs_f64()
    );
    assert!(peak - before < LIMIT_MB, "{what}: {} MB on top", peak - before);
}

fn rows(path: &Path, tokenizer: Arc<dyn Tokenize>, most_tokens: u64) -> u64 {
    let documents = Documents::open(&[path], options()).unwrap();
    let packing = PackingOptions { begin_batch: Some(0), separator: Some(0), ..PackingOptions::new(128) };
    let mut rows = TokenRows::new(documents, Some(tokenizer), packing).unwrap();
    while rows.report().tokens < most_tokens && rows.next().map(Result::unwrap).is_some() {}
    rows.report().tokens
}

fn pieces(path: &Path) -> u64 {
    Documents::open(&[path], options()).unwrap().map(|piece| piece.unwrap().content.len() as u64).sum()
}

#[test]
#[ignore = "writes 2.5 GB"]
fn peak() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string("../../assets/demo/text.jsonl").unwrap();
    let lines = dir.path().join("lines.jsonl");
    let mut out = BufWriter::new(File::create(&lines).unwrap());
    for _ in 0..2000 * MB / text.len() as u64 + 1 {
        out.write_all(text.as_bytes()).unwrap();
    }
    out.flush().unwrap();
    let line = dir.path().join("line.jsonl");
    let mut out = BufWriter::new(File::create(&line).unwrap());
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].to_string();
    let body: String =
        text.lines().map(value).map(|quoted| format!("{}\\n\\n", &quoted[1..quoted.len() - 1])).collect();
    write!(out, "{{\"id\": 1, \"text\": \"").unwrap();
    for _ in 0..500 * MB / body.len() as u64 + 1 {
        out.write_all(body.as_bytes()).unwrap();
    }
    writeln!(out, "\", \"after\": [1, 2, 3]}}").unwrap();
    out.flush().unwrap();
    for path in [&lines, &line] {
        println!("{}: {} MB", path.file_name().unwrap().display(), std::fs::metadata(path).unwrap().len() / MB);
    }

    let tokenizer: Arc<dyn Tokenize> = Arc::new(demo_tokenizer());
    tokenizer.tokenize("warm").unwrap();
    measure("2 GB of lines, pieces only (the tokens are bytes)", || pieces(&lines));
    measure("2 GB of lines, packed, split at spaces", || rows(&lines, Arc::new(Words), u64::MAX));
    measure("2 GB of lines, packed, the demo tokenizer's first 16 M tokens", || {
        rows(&lines, tokenizer.clone(), 16 * MB)
    });
    measure("a line of 500 MB, pieces only (the tokens are bytes)", || pieces(&line));
    measure("a line of 500 MB, packed, split at spaces", || rows(&line, Arc::new(Words), u64::MAX));
    measure("a line of 500 MB, packed, the demo tokenizer's first 16 M tokens", || {
        rows(&line, tokenizer.clone(), 16 * MB)
    });
}
