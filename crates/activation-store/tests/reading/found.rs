//! Files as other programs write them: codecs, missing values, lists, windows, and what else lies in a folder of text.

use super::support::{Folder, gzip, options, refused, texts, tokens, zst};
use activation_store::{DocumentOptions, DocumentReport, DocumentSource, Documents};
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, ListArray, NullArray, StringArray, StringViewArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The documents as (ordinal, text), and what was left out.
fn read<P: AsRef<Path>>(patterns: &[P], options: DocumentOptions) -> (Vec<(u64, String)>, DocumentReport) {
    let mut documents = Documents::open(patterns, options.clone()).unwrap();
    documents.by_ref().for_each(|piece| drop(piece.unwrap()));
    let report = documents.report();
    let found = texts(patterns, options).unwrap();
    (found.into_iter().map(|(_, ordinal, text)| (ordinal, text)).collect(), report)
}

fn nulls(report: DocumentReport) -> u64 {
    report.null_documents
}

/// What `tools/goldens/golden_text_files.py` wrote.
fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text").join(name)
}

fn golden_rows() -> Vec<(u64, String)> {
    let row =
        |i: u64| if i == 5 { String::new() } else { vec![format!("row {i} of 40"); (i % 5 + 1) as usize].join(" ") };
    (0..40).filter(|i| i % 7 != 3).map(|i| (i, row(i))).collect()
}

#[test]
fn every_codec_of_parquet() {
    for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd", "pages1"] {
        let path = golden(&format!("{codec}.parquet"));
        for field in ["text", "large", "category"] {
            let (found, report) = read(&[&path], options().field(field));
            assert_eq!((found, nulls(report)), (golden_rows(), 6), "{codec}, {field}");
        }
        let ids = tokens(&[&path], options().field("ids")).unwrap();
        let words = |text: &str| (0..text.split_whitespace().count() as u32).collect();
        assert_eq!(ids, golden_rows().iter().map(|(i, text)| (*i, words(text))).collect::<Vec<_>>(), "{codec}");
    }
}

fn parquet(column: ArrayRef, codec: Compression) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable([("text", column, true)]).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder().set_compression(codec).build();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Hadoop's layout of LZ4 among them, which pyarrow does not write.
#[test]
fn every_codec_of_the_parquet_crate() {
    let dir = Folder::new();
    let rows: Vec<String> = (0..1000).map(|i| format!("row {i} {}", "word ".repeat(i % 50))).collect();
    let column: ArrayRef = Arc::new(StringArray::from(rows.clone()));
    for codec in [
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::UNCOMPRESSED,
    ] {
        let path = dir.file("x.parquet", parquet(column.clone(), codec));
        let found: Vec<String> = texts(&[&path], options()).unwrap().into_iter().map(|(_, _, text)| text).collect();
        assert_eq!(found, rows, "{codec}");
    }
}

#[test]
fn rows_of_parquet_without_a_value() {
    let dir = Folder::new();
    let of = |column: ArrayRef| dir.file("x.parquet", parquet(column, Compression::SNAPPY));
    let rows = vec![None, Some("one"), Some(""), None];
    let expected = vec![(1, "one".to_string()), (2, String::new())];
    let dictionary: DictionaryArray<Int32Type> = rows.iter().copied().collect();
    let columns: [ArrayRef; 3] =
        [Arc::new(StringArray::from(rows.clone())), Arc::new(StringViewArray::from(rows)), Arc::new(dictionary)];
    for column in columns {
        let (found, report) = read(&[&of(column)], options());
        assert_eq!((found, nulls(report)), (expected.clone(), 2));
    }
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([None, Some(vec![Some(1)]), None, Some(vec![])]);
    let path = of(Arc::new(lists));
    assert_eq!(tokens(&[&path], options().field("text")).unwrap(), [(1, vec![1]), (3, vec![])]);
    // Nothing but nulls, as pandas writes a column of them: no document.
    let error = refused(&[&of(Arc::new(NullArray::new(3)))], options());
    assert!(error.contains("x.parquet: holds no document"), "{error}");
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    assert!(refused(&[&of(numbers)], options().field("body")).contains("no field `body`; it holds `text`"));
}

/// Objects are parsed whole or as they stream by: both must say the same.
const BOTH_PATHS: [usize; 2] = [16, 1 << 20];

#[test]
fn lines_without_a_value() {
    let dir = Folder::new();
    let lines = "\n{\"text\": null, \"id\": 1}\nnull\n{\"id\": 2, \"text\": \"one and more words\"}\n{\"text\": NaN}\n{\"text\": \"\"}";
    let path = dir.file("x.jsonl", lines);
    for max_piece_bytes in BOTH_PATHS {
        let (found, report) = read(&[&path], options().max_piece_bytes(max_piece_bytes));
        assert_eq!(found, [(3, "one and more words".into()), (5, String::new())]);
        assert_eq!(nulls(report), 3);
    }
    let path = dir.file("t.jsonl", "{\"tokens\": null}\n{\"tokens\": []}\n{\"tokens\": [1, 2, 3, 4, 5]}\n");
    for max_piece_bytes in BOTH_PATHS {
        let found = tokens(&[&path], options().max_piece_bytes(max_piece_bytes)).unwrap();
        assert_eq!(found, [(1, vec![]), (2, vec![1, 2, 3, 4, 5])]);
    }
    // A field that is never there gives way to one that is.
    let path = dir.file("y.jsonl", "{\"tokens\": null, \"text\": \"a\"}\n{\"tokens\": null, \"text\": \"b\"}\n");
    assert_eq!(read(&[&path], options()).0, [(0, "a".into()), (1, "b".into())]);
    let error = refused(&[&dir.file("z.jsonl", "{\"text\": null}\nnull\n")], options());
    assert!(error.contains("z.jsonl: holds no document"), "{error}");
}

#[test]
fn numbers_that_only_python_writes() {
    let dir = Folder::new();
    let value = "\"NaN and -Infinity, \\\"Infinity\\\"\"";
    for other in ["NaN", "Infinity", "-Infinity", "[1.5, NaN, {\"a\": -Infinity}]", "{\"NaN\": NaN}"] {
        for line in [
            format!("{{\"score\": {other}, \"text\": {value}}}"),
            format!("{{\"text\": {value}, \"score\": {other}}}\n{{\"text\": {value}}}"),
        ] {
            let path = dir.file("x.jsonl", &line);
            for max_piece_bytes in BOTH_PATHS {
                let (found, report) = read(&[&path], options().max_piece_bytes(max_piece_bytes));
                assert!(found.iter().all(|(_, text)| text == "NaN and -Infinity, \"Infinity\""), "{line}");
                assert!(report.is_empty() && found.len() == line.lines().count());
            }
        }
    }
    for broken in ["Nan", "Infinite", "- Infinity", "NaN1", "+Infinity", "NaNNaN"] {
        let path = dir.file("y.jsonl", format!("{{\"text\": {value}, \"score\": {broken}}}"));
        for max_piece_bytes in BOTH_PATHS {
            let error = refused(&[&path], options().max_piece_bytes(max_piece_bytes));
            assert!(error.contains("line 1") && error.contains("not valid JSON"), "{broken}: {error}");
        }
    }
}

#[test]
fn a_list_of_objects_is_read_like_lines() {
    let dir = Folder::new();
    let elements = [
        "{\"text\": \"one, [two] and {three}\", \"id\": [1, [2, {}]]}",
        "null",
        "{\n    \"score\": NaN,\n    \"text\": \"an escaped \\\" quote, and ] and } \\\\\"\n  }",
        "{\"text\": null}",
        "{\"text\": \"\"}",
    ];
    let expected = [(0, "one, [two] and {three}"), (2, "an escaped \" quote, and ] and } \\"), (4, "")];
    let expected = expected.map(|(i, text)| (i, text.to_string())).to_vec();
    for list in
        [format!("[{}]", elements.join(",")), format!("\u{feff}\r\n\t [\r\n  {}\r\n]\r\n \n", elements.join(",\r\n  "))]
    {
        for (name, bytes) in [
            ("a.json", list.clone().into_bytes()),
            ("a.jsonl", list.clone().into_bytes()),
            ("a.json.gz", gzip(list.as_bytes())),
            ("a.json.zst", zst(list.as_bytes())),
        ] {
            let path = dir.file(name, bytes);
            for max_piece_bytes in BOTH_PATHS {
                let (found, report) = read(&[&path], options().max_piece_bytes(max_piece_bytes));
                assert_eq!((found, nulls(report)), (expected.clone(), 2), "{name}: {list}");
            }
        }
    }
    let ids = dir.file("ids.json", "[{\"input_ids\": [1, 2]}, {\"input_ids\": []}]");
    assert_eq!(tokens(&[&ids], options()).unwrap(), [(0, vec![1, 2]), (1, vec![])]);
}

#[test]
fn lists_that_are_broken() {
    let dir = Folder::new();
    let good = "{\"text\": \"a good element\"}";
    for (list, words) in [
        (format!("[{good}, {good}"), "element 2"),
        (format!("[{good}, "), "element 2"),
        (format!("[{good},]"), "element 2"),
        (format!("[{good},, {good}]"), "element 2"),
        (format!("[{good}] {good}"), "more text after the end of the list"),
        (format!("[{good}]\n[{good}]\n"), "more text after the end of the list"),
        (format!("[{good} {good}]"), "element 1"),
        (format!("[{good}, 17]"), "element 2"),
        (format!("[{good}, {{\"text\": 17, \"id\": \"a long filler\"}}]"), "element 2: field `text` holds a number"),
        (format!("[{good}, {{\"text\": \"no end}}]"), "element 2"),
        ("[".into(), "element 1"),
    ] {
        let path = dir.file("x.json", &list);
        for max_piece_bytes in BOTH_PATHS {
            let error = refused(&[&path], options().max_piece_bytes(max_piece_bytes));
            assert!(error.contains("x.json") && error.contains(words), "{list}: {error}");
        }
    }
    for empty in ["[]", " [ \n ] ", "[null]"] {
        let error = refused(&[&dir.file("x.json", empty)], options());
        assert!(error.contains("x.json: holds no document"), "{empty}: {error}");
    }
}

/// One element of 4 MiB, in pieces of 4 KiB.
#[test]
fn a_long_element_streams() {
    let dir = Folder::new();
    let long = "words, [and] \\\"more\\\" ".repeat(200_000);
    let path = dir.file("x.json", format!("[{{\"text\": \"{long}\"}}, {{\"text\": \"after\"}}]"));
    let found = texts(&[&path], options().max_piece_bytes(4 << 10)).unwrap();
    assert_eq!(found[0].2, long.replace("\\\"", "\""));
    assert_eq!(found[1], (0, 1, "after".into()));
}

#[test]
fn windows_of_zstd() {
    let path = golden("windows.jsonl.zst");
    let (found, report) = read(&[&path], options());
    assert_eq!((found, nulls(report)), (golden_rows(), 6));
    let error = refused(&[&path], options().max_zstd_window_bytes(1 << 27));
    for words in ["windows.jsonl.zst", "window is 2147483648 bytes", "allowed are 134217728", "max_zstd_window_bytes"] {
        assert!(error.contains(words), "{error}");
    }
    // What comes before such a frame is read.
    let dir = Folder::new();
    let small = zst(b"{\"text\": \"before\"}\n");
    let path = dir.file("x.jsonl.zst", [&small[..], &std::fs::read(&path).unwrap()].concat());
    let mut documents = Documents::open(&[&path], options().max_zstd_window_bytes(1 << 20)).unwrap();
    assert!(documents.by_ref().last().unwrap().is_err());
    // A frame of 4 GiB's window, which no version of the library reads.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 22 << 3, 9, 0, 0, b'a'];
    let error = refused(&[&dir.file("y.txt.zst", frame)], options().max_zstd_window_bytes(u64::MAX));
    assert!(error.contains("window is 4294967296 bytes") && error.contains("allowed are 2147483648"), "{error}");
}

#[test]
fn files_without_documents_beside_others() {
    let dir = Folder::new();
    dir.file("a.jsonl", "");
    dir.file("b.jsonl", "{\"text\": \"b\"}");
    dir.file("c.jsonl", " \n");
    dir.file("d.jsonl.gz", gzip(b""));
    dir.file("e.jsonl", "{\"text\": null}");
    dir.file("f.parquet", parquet(Arc::new(StringArray::from(Vec::<&str>::new())), Compression::SNAPPY));
    // What macOS and notebooks leave.
    dir.file("._b.jsonl", b"\x00\x05\x16\x07");
    dir.file(".ipynb_checkpoints/b-checkpoint.jsonl", "{\"text\": \"old\"}");
    let pattern = dir.path().join("**/*");
    let mut documents = Documents::open(&[&pattern], options()).unwrap();
    assert_eq!(documents.files().len(), 6);
    assert_eq!(texts(&[&pattern], options()).unwrap(), [(1, 0, "b".into())]);
    documents.by_ref().for_each(drop);
    let report = documents.report();
    assert_eq!((report.empty_files, report.null_documents), (5, 1));
    let mut again = documents.restarted();
    again.by_ref().for_each(drop);
    assert_eq!(again.report(), report);
    let hidden = dir.path().join("._*.jsonl");
    let error = refused(&[&hidden], options());
    assert!(error.contains("._b.jsonl"), "named, it is read: {error}");
}
