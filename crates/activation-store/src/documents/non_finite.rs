//! Numbers that Python's `json` writes and JSON does not have: `NaN`, `Infinity`, `-Infinity`.

use std::io::Read;

const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
const BUFFER_BYTES: usize = 8 << 10;

/// Bytes of JSON in which each of these words that stands outside a string reads `null`. All other bytes go through as they are. Columns
/// after such a word are no longer those of the file.
pub(super) struct NonFiniteAsNull<R> {
    inner: R,
    in_string: bool,
    escaped: bool,
    /// The beginning of a word that may become one of [`WORDS`].
    word: Vec<u8>,
    /// What was read and is still to be handed out, from `at`.
    ready: Vec<u8>,
    at: usize,
    chunk: Vec<u8>,
}

/// A line with these words replaced; `None` where there is none.
pub(super) fn as_null(line: &str) -> Option<String> {
    if !line.contains("NaN") && !line.contains("Infinity") {
        return None;
    }
    let mut out = String::with_capacity(line.len() + 64);
    NonFiniteAsNull::new(line.as_bytes()).read_to_string(&mut out).ok()?;
    (out != line).then_some(out)
}

impl<R: Read> NonFiniteAsNull<R> {
    pub(super) fn new(inner: R) -> Self {
        let (word, ready, chunk) = (Vec::new(), Vec::new(), Vec::new());
        Self { inner, in_string: false, escaped: false, word, ready, at: 0, chunk }
    }

    fn feed_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // Strings, which are most of a text's bytes, are copied as they are.
            if self.in_string && !self.escaped {
                let plain = bytes.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(bytes.len());
                let (copied, rest) = bytes.split_at_checked(plain).unwrap_or((bytes, &[]));
                self.ready.extend_from_slice(copied);
                bytes = rest;
            }
            if let Some((byte, rest)) = bytes.split_first() {
                self.feed(*byte);
                bytes = rest;
            }
        }
    }

    fn feed(&mut self, byte: u8) {
        if self.in_string {
            self.ready.push(byte);
            if self.escaped {
                self.escaped = false;
            } else {
                self.escaped = byte == b'\\';
                self.in_string = byte != b'"';
            }
            return;
        }
        self.word.push(byte);
        if WORDS.contains(&self.word.as_slice()) {
            self.ready.extend_from_slice(b"null");
            self.word.clear();
        } else if !WORDS.iter().any(|word| word.starts_with(&self.word)) {
            self.word.pop();
            // What was held is no such word; this byte may begin one.
            self.ready.append(&mut self.word);
            match byte {
                b'N' | b'I' | b'-' => self.word.push(byte),
                _ => {
                    self.in_string = byte == b'"';
                    self.ready.push(byte);
                }
            }
        }
    }
}

impl<R: Read> Read for NonFiniteAsNull<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.ready.len() && !buffer.is_empty() {
            self.ready.clear();
            self.at = 0;
            self.chunk.resize(BUFFER_BYTES, 0);
            let n = self.inner.read(&mut self.chunk)?;
            if n == 0 {
                self.ready.append(&mut self.word);
                if self.ready.is_empty() {
                    return Ok(0);
                }
                break;
            }
            let chunk = std::mem::take(&mut self.chunk);
            self.feed_all(chunk.get(..n).unwrap_or_default());
            self.chunk = chunk;
        }
        let n = self.ready.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one byte at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(1);
            (&self.0[..n]).read(buffer)?;
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn only_outside_strings_and_only_whole_words() {
        for (line, expected) in [
            (r#"{"a": NaN, "b": [-Infinity,Infinity]}"#, r#"{"a": null, "b": [null,null]}"#),
            (r#"{"NaN": "NaN \" Infinity", "x": -1}"#, r#"{"NaN": "NaN \" Infinity", "x": -1}"#),
            (r#"{"a\\": NaN}"#, r#"{"a\\": null}"#),
            (r#"{"a": Na, "b": -Inf, "c": NNaN}"#, r#"{"a": Na, "b": -Inf, "c": Nnull}"#),
            (r#"{"a": --Infinity"#, r#"{"a": -null"#),
            ("{\"a\": Infini", "{\"a\": Infini"),
        ] {
            let mut found = String::new();
            NonFiniteAsNull::new(Drops(line.as_bytes())).read_to_string(&mut found).unwrap();
            assert_eq!(found, expected);
            assert_eq!(as_null(line).unwrap_or_else(|| line.into()), expected);
        }
    }
}
