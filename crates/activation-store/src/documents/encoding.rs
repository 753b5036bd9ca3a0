//! Text that is not UTF-8: what it probably is, and the command that converts it.

use super::files::{Compression, Input};
use crate::{Error, Place, Result};
use std::io::{BufRead, Read};
use std::path::Path;

/// Looked at, at the start of a file and around a byte that is no UTF-8.
const LOOKED_AT: u64 = 4 << 10;
/// Read at a time.
const CHUNK_BYTES: u64 = 64 << 10;

/// What other files begin with than text does.
const MAGIC: [(&[u8], &str); 7] = [
    (b"\x1f\x8b", "gzip data, which is read where its name ends with .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd data, which is read where its name ends with .zst"),
    (b"PAR1", "Parquet, which is read where its name ends with .parquet"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"BZh", "bzip2 data: decompress it"),
    (b"\xfd7zXZ\0", "xz data: decompress it"),
    (b"%PDF", "PDF, of which the text must be taken out first"),
];

impl Input {
    /// Refuses text that begins as UTF-16 or UTF-32 does, with or without a byte order mark.
    pub(super) fn check_encoding(&self) -> Result<()> {
        let mut head = Vec::new();
        // A file that cannot be read says so where it is read.
        if self.open()?.take(LOOKED_AT).read_to_end(&mut head).is_err() {
            return Ok(());
        }
        match wide(&head) {
            None => Ok(()),
            Some((found, name)) => {
                Err(Error::Encoding { path: self.path.clone(), found, command: self.conversion(name) })
            }
        }
    }

    /// Bytes that are no UTF-8, and what they probably are. Reads the file up to these bytes once more.
    pub(super) fn not_utf8(&self, place: Place, detail: String) -> Error {
        let advice = self.advice().unwrap_or_else(|| "the text must be UTF-8".into());
        Error::NotUtf8 { path: self.path.clone(), place, detail, advice }
    }

    fn advice(&self) -> Option<String> {
        let Around { head, window, had_characters, at_end } = Around::find(&mut self.open().ok()?).ok()??;
        if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Some(format!("it begins as {what}"));
        }
        Some(if at_end {
            "the file ends within a character, it is probably cut off".into()
        } else if had_characters {
            let command = self.conversion("UTF-8 -c");
            format!("what comes before is UTF-8, so this character is damaged; `{command}` leaves such bytes out")
        } else if window.contains(&0) {
            "there are zero bytes too, so it is probably no text".into()
        } else {
            match single_byte(&window) {
                Some((found, name)) => {
                    format!("it is probably {found}, by the bytes there; convert it with `{}`", self.conversion(name))
                }
                None => {
                    let path = shell_word(&self.path.to_string_lossy());
                    let command = self.conversion("ENCODING");
                    format!("the encoding is not known (`file -i {path}` guesses it); convert it with `{command}`")
                }
            }
        })
    }

    /// A command that writes the text as UTF-8 beside the file.
    fn conversion(&self, from: &str) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let compressed = self.compression != Compression::None;
        let (stem, packed) = name.rsplit_once('.').filter(|_| compressed).unwrap_or((&name, ""));
        let (stem, ending) = stem.rsplit_once('.').unwrap_or((stem, "txt"));
        let dot = if packed.is_empty() { "" } else { "." };
        let new = self.path.with_file_name(format!("{stem}.utf8.{ending}{dot}{packed}"));
        let word = |path: &Path| shell_word(&path.to_string_lossy());
        let (old, new) = (word(&self.path), word(&new));
        let iconv = format!("iconv -f {from} -t UTF-8");
        match self.compression {
            Compression::None => format!("{iconv} {old} > {new}"),
            Compression::Gzip => format!("gunzip -c {old} | {iconv} | gzip > {new}"),
            Compression::Zstd => format!("zstd -dc {old} | {iconv} | zstd > {new}"),
        }
    }
}

/// A word of a shell's command line.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',' | ':' | '@' | '=');
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Encodings of two or four bytes for a character: in words, and as `iconv` calls them.
fn wide(head: &[u8]) -> Option<(&'static str, &'static str)> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => return Some(("UTF-32 (little-endian)", "UTF-32")),
        [0, 0, 0xfe, 0xff, ..] => return Some(("UTF-32 (big-endian)", "UTF-32")),
        [0xff, 0xfe, ..] => return Some(("UTF-16 (little-endian)", "UTF-16")),
        [0xfe, 0xff, ..] => return Some(("UTF-16 (big-endian)", "UTF-16")),
        _ => {}
    }
    // Without a mark: of letters below U+0100 one byte in two is zero, which text in UTF-8 has none of.
    let pairs = || head.chunks_exact(2);
    let zeros = |at: usize| pairs().filter(|pair| pair.get(at) == Some(&0)).count();
    let (n, first, second) = (pairs().count(), zeros(0), zeros(1));
    let most = |zeros: usize| n >= 4 && zeros * 10 > n * 6;
    if most(second) && first == 0 {
        Some(("UTF-16 (little-endian, without a byte order mark)", "UTF-16LE"))
    } else if most(first) && second == 0 {
        Some(("UTF-16 (big-endian, without a byte order mark)", "UTF-16BE"))
    } else {
        None
    }
}

/// Encodings of western Europe, where most bytes above 127 stand alone between letters of ASCII.
fn single_byte(window: &[u8]) -> Option<(&'static str, &'static str)> {
    let high = window.iter().filter(|b| !b.is_ascii()).count();
    let runs = window.chunk_by(|a, b| a.is_ascii() == b.is_ascii());
    let alone = runs.filter(|run| matches!(run, [b] if !b.is_ascii())).count();
    if alone * 2 < high {
        None
    } else if window.iter().any(|b| (0x80..0xa0).contains(b)) {
        Some(("Windows-1252", "WINDOWS-1252"))
    } else {
        Some(("Latin-1", "ISO-8859-1"))
    }
}

/// The first bytes of a file that are no UTF-8, and what is around them.
struct Around {
    head: Vec<u8>,
    /// From the first such byte on.
    window: Vec<u8>,
    /// Whether characters beyond ASCII came before.
    had_characters: bool,
    /// Whether a character is cut off at the end of the file.
    at_end: bool,
}

impl Around {
    fn find(bytes: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let (mut head, mut held, mut had_characters) = (Vec::new(), Vec::new(), false);
        loop {
            let n = bytes.by_ref().take(CHUNK_BYTES).read_to_end(&mut held)?;
            if head.is_empty() {
                head.extend(held.iter().take(16));
            }
            let valid = match std::str::from_utf8(&held) {
                Ok(_) if n == 0 => return Ok(None),
                Ok(_) => held.len(),
                Err(error) if error.error_len().is_none() && n > 0 => error.valid_up_to(),
                Err(error) => {
                    let at_end = error.error_len().is_none();
                    let (before, window) = held.split_at(error.valid_up_to());
                    had_characters |= !before.is_ascii();
                    let mut window = window.to_vec();
                    bytes.take(LOOKED_AT).read_to_end(&mut window)?;
                    window.truncate(LOOKED_AT as usize);
                    return Ok(Some(Self { head, window, had_characters, at_end }));
                }
            };
            had_characters |= held.drain(..valid).any(|b| !b.is_ascii());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        assert_eq!(shell_word("a/b-c_1.txt"), "a/b-c_1.txt");
        assert_eq!(shell_word("it's here.txt"), r"'it'\''s here.txt'");
    }

    #[test]
    fn utf_8_with_zero_bytes_is_not_utf_16() {
        for text in ["", "ab", "a\0b\0", "\0\0\0\0\0\0\0\0\0\0", "plain text, as most is", "a\0b c\0d e\0f"] {
            assert_eq!(wide(text.as_bytes()), None, "{text:?}");
        }
    }
}
