//! Text that is not UTF-8: the error says what it probably is, and which command converts it.

use super::support::{Folder, gzip, options, refused, texts, zst};
use activation_store::TextSplit;

fn utf16(text: &str, big: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

fn utf32(text: &str, big: bool) -> Vec<u8> {
    text.chars().flat_map(|c| if big { u32::from(c).to_be_bytes() } else { u32::from(c).to_le_bytes() }).collect()
}

const LINE: &str = "{\"text\": \"naïve words\"}\n";

#[test]
fn utf_16_and_utf_32() {
    let dir = Folder::new();
    let marked = format!("\u{feff}{LINE}");
    for (bytes, found, name) in [
        (utf16(&marked, false), "UTF-16 (little-endian)", "UTF-16"),
        (utf16(&marked, true), "UTF-16 (big-endian)", "UTF-16"),
        (utf16(LINE, false), "UTF-16 (little-endian, without a byte order mark)", "UTF-16LE"),
        (utf16(LINE, true), "UTF-16 (big-endian, without a byte order mark)", "UTF-16BE"),
        (utf32(&marked, false), "UTF-32 (little-endian)", "UTF-32"),
        (utf32(&marked, true), "UTF-32 (big-endian)", "UTF-32"),
    ] {
        for ending in ["txt", "jsonl"] {
            let path = dir.file(&format!("x.{ending}"), &bytes);
            let error = refused(&[&path], options());
            let command = format!("iconv -f {name} -t UTF-8 {} > ", path.display());
            for words in [format!("the text is {found}, expected UTF-8"), command, format!("x.utf8.{ending}`")] {
                assert!(error.contains(&words), "{words}: {error}");
            }
        }
    }
    let bytes = utf16(&marked, false);
    for (name, bytes, command) in [
        ("a b.txt.gz", gzip(&bytes), "a b.txt.gz' | iconv -f UTF-16 -t UTF-8 | gzip > '"),
        ("a b.jsonl.zst", zst(&bytes), "a b.jsonl.zst' | iconv -f UTF-16 -t UTF-8 | zstd > '"),
    ] {
        let error = refused(&[dir.file(name, bytes)], options());
        assert!(error.contains(command) && error.contains("a b.utf8."), "{error}");
    }
}

#[test]
fn encodings_of_one_byte() {
    let dir = Folder::new();
    let before = "plain words ".repeat(10_000);
    for (word, words) in [
        (
            &b"na\xefve caf\xe9 "[..],
            "probably Latin-1, by the bytes there; convert it with `iconv -f ISO-8859-1 -t UTF-8 ",
        ),
        (
            b"\x93na\xefve\x94 caf\xe9 ",
            "probably Windows-1252, by the bytes there; convert it with `iconv -f WINDOWS-1252 -t UTF-8 ",
        ),
        // Japanese in Shift-JIS.
        (b"\x93\xfa\x96\x7b\x8c\xea\x82\xcc\x83\x65 ", "the encoding is not known (`file -i "),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "zero bytes"),
    ] {
        for before in ["", &before] {
            let text = [before.as_bytes(), word, b"and more"].concat();
            let error = refused(&[dir.file("x.txt", &text)], options());
            let place = format!(
                "x.txt, byte {}: not valid UTF-8: ",
                before.len() + word.iter().position(|b| !b.is_ascii()).unwrap()
            );
            assert!(error.contains(&place) && error.contains(words), "{error}");
            let line = [b"{\"text\": \"", &text[..], b"\"}"].concat();
            let error = refused(&[dir.file("x.jsonl", line)], options());
            assert!(error.contains("line 1") && error.contains(words), "{error}");
        }
    }
}

#[test]
fn damaged_utf_8_and_what_is_no_text() {
    let dir = Folder::new();
    let error = refused(&[dir.file("x.txt", b"caf\xc3\xa9, caf\xe9 and more")], options());
    assert!(error.contains("byte 10: not valid UTF-8: what comes before is UTF-8"), "{error}");
    assert!(error.contains("`iconv -f UTF-8 -c -t UTF-8 "), "{error}");
    let error = refused(&[dir.file("x.txt", b"caf\xc3")], options());
    assert!(error.contains("byte 3: not valid UTF-8: the file ends within a character"), "{error}");
    let error = refused(&[dir.file("x.txt", gzip(b"text"))], options());
    assert!(error.contains("begins as gzip data, which is read where its name ends with .gz"), "{error}");
}

/// A byte order mark before UTF-8 is skipped.
#[test]
fn a_byte_order_mark_is_passed_over() {
    let dir = Folder::new();
    let text = "\u{feff}é, and \u{feff} inside";
    let plain = text.trim_start_matches('\u{feff}').to_string();
    let cut = [&gzip(&text.as_bytes()[..1])[..], &gzip(&text.as_bytes()[1..])].concat();
    for (name, bytes) in [
        ("x.txt", text.as_bytes().to_vec()),
        ("x.txt.gz", gzip(text.as_bytes())),
        ("y.txt.gz", cut),
        ("x.txt.zst", zst(text.as_bytes())),
    ] {
        let path = dir.file(name, bytes);
        for split in [TextSplit::File, TextSplit::BlankLines] {
            let found = texts(&[&path], options().text_split(split)).unwrap();
            assert_eq!(found, [(0, 0, plain.clone())], "{name}");
        }
    }
    let error = refused(&[dir.file("z.txt", b"\xef\xbb\xbfcaf\xe9 and")], options());
    assert!(error.contains("byte 6:"), "counts from the start of the file: {error}");
}
