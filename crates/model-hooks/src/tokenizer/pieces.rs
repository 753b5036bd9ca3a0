//! Text of each id, alone and among its neighbors.

use super::split_rules::names_type;
use super::{caught, no_token};
use std::borrow::Cow;
use std::fmt::Write;

/// Per id: its text decoded alone, and its bytes.
pub(super) struct Pieces {
    alone: Vec<String>,
    bytes: Vec<Vec<u8>>,
}

/// Representation of bytes in a vocabulary.
#[derive(Clone, Copy, PartialEq)]
enum Alphabet {
    /// GPT-2's printable character for each byte.
    ByteLevel,
    /// SentencePiece's: text with `▁` for a space, and `<0xE2>` for single bytes.
    Fallback,
    /// Neither: a token's bytes are those of its decoded text.
    Text,
}

impl Pieces {
    pub(super) fn of(inner: &tokenizers::Tokenizer, known: &[bool]) -> Self {
        let vocab_size = known.len();
        let decoder = inner.get_decoder().and_then(|d| serde_json::to_value(d).ok()).unwrap_or_default();
        let alphabet = if names_type(&decoder, "ByteLevel") {
            Alphabet::ByteLevel
        } else if names_type(&decoder, "ByteFallback") {
            Alphabet::Fallback
        } else {
            Alphabet::Text
        };
        let byte_of = byte_level_alphabet();
        let added = inner.get_added_tokens_decoder();
        let mut pieces = Self { alone: Vec::with_capacity(vocab_size), bytes: Vec::with_capacity(vocab_size) };
        for (id, known) in (0..).zip(known) {
            if !known {
                pieces.alone.push(no_token(id));
                pieces.bytes.push(no_token(id).into_bytes());
                continue;
            }
            let alone = caught(|| inner.decode(&[id], false)).unwrap_or_default();
            let bytes = match (inner.id_to_token(id), alphabet) {
                _ if added.contains_key(&id) => alone.clone().into_bytes(),
                (Some(entry), Alphabet::ByteLevel) => {
                    let bytes: Option<Vec<u8>> = entry.chars().map(&byte_of).collect();
                    bytes.unwrap_or_else(|| entry.into_bytes())
                }
                (Some(entry), Alphabet::Fallback) => match fallback_byte(&entry) {
                    Some(byte) => vec![byte],
                    None => entry.replace('▁', " ").into_bytes(),
                },
                _ => alone.clone().into_bytes(),
            };
            pieces.alone.push(alone);
            pieces.bytes.push(bytes);
        }
        pieces
    }

    pub(super) fn alone(&self, id: u32) -> &str {
        self.alone.get(id as usize).map_or("", String::as_str)
    }

    /// The bytes of a token; what is printed for ids beyond the vocabulary.
    fn bytes(&self, id: u32) -> Cow<'_, [u8]> {
        self.bytes.get(id as usize).map_or_else(|| no_token(id).into_bytes().into(), |bytes| bytes.into())
    }

    pub(super) fn readable(&self, ids: &[u32]) -> Vec<String> {
        let mut open: Vec<u8> = Vec::new(); // first bytes of a character that is not complete yet
        let mut all = Vec::with_capacity(ids.len());
        for &id in ids {
            let bytes = &*self.bytes(id);
            // Bytes that cannot continue the open character leave it incomplete for ever; it has printed as hex already.
            if !open.is_empty() && !continues(&open, bytes) {
                open.clear();
            }
            open.extend_from_slice(bytes);
            let mut text = String::new();
            let rest = print_whole(&mut text, &open);
            // Nothing complete yet: this token shows its own bytes only.
            let shown = if text.is_empty() { bytes } else { rest };
            print_hex(&mut text, shown);
            let decided = open.len() - rest.len();
            open.drain(..decided);
            all.push(text);
        }
        all
    }

    pub(super) fn readable_text(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id).into_owned()).collect();
        let mut text = String::with_capacity(bytes.len());
        let rest = print_whole(&mut text, &bytes);
        print_hex(&mut text, rest);
        text
    }
}

/// Appends all that is decided: characters as they are, bytes that can never form one as hex. Returns a possible
/// beginning of a character at the very end.
fn print_whole<'a>(text: &mut String, mut bytes: &'a [u8]) -> &'a [u8] {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                return &[];
            }
            Err(e) => {
                let (valid, rest) = bytes.split_at_checked(e.valid_up_to()).unwrap_or_default();
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(bad) = e.error_len() else { return rest };
                let (bad, rest) = rest.split_at_checked(bad).unwrap_or_default();
                print_hex(text, bad);
                bytes = rest;
            }
        }
    }
}

fn print_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "<0x{byte:02X}>");
    }
}

/// Whether `next` carries the open character on (to its end or a step further).
fn continues(open: &[u8], next: &[u8]) -> bool {
    let Some(&first) = next.first() else { return true };
    let mut joined = open.to_vec();
    joined.push(first);
    match std::str::from_utf8(&joined) {
        Ok(_) => true,
        Err(e) => e.valid_up_to() == 0 && e.error_len().is_none(),
    }
}

/// The byte of `<0xE2>`.
fn fallback_byte(entry: &str) -> Option<u8> {
    let hex = entry.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

/// GPT-2's printable characters for the 256 bytes, in the order of bytes.
pub(super) fn byte_level_characters() -> [char; 256] {
    let byte_of = byte_level_alphabet();
    let mut characters = ['\0'; 256];
    for c in (0x21..0x144).filter_map(char::from_u32) {
        if let Some(character) = byte_of(c).and_then(|byte| characters.get_mut(usize::from(byte))) {
            *character = c;
        }
    }
    characters
}

/// GPT-2's map from printable character to byte: printable Latin-1 stands for itself, the others follow from U+0100 on.
fn byte_level_alphabet() -> impl Fn(char) -> Option<u8> {
    let prints_itself = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let shifted: Vec<u8> = (0..=255u8).filter(|&b| !prints_itself(b)).collect();
    move |c| match u8::try_from(u32::from(c)) {
        Ok(byte) => prints_itself(byte).then_some(byte),
        Err(_) => shifted.get((u32::from(c) - 0x100) as usize).copied(),
    }
}
