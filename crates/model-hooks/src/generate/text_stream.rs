//! Text of tokens that come one by one.

use crate::{Result, Tokenizer};

/// Decodes tokens as they come, whole characters only: a character whose bytes are split between tokens comes with the last of them.
///
/// What tokens mean may depend on those before (a decoder drops the space of a first word), so each piece is the difference of two
/// decodings that begin at the same earlier token. (SentencePiece's decoder turns a whole run of bytes into U+FFFD when one of them fits
/// nowhere, those of whole characters before it too; what has been returned stays.)
pub(super) struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
    /// Decodings begin here: everything before has been returned, and what came next was whole.
    from: usize,
    /// Up to here everything has been returned.
    to: usize,
}

impl<'t> TextStream<'t> {
    /// After a prompt, whose text is not returned.
    pub fn new(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Self {
        Self { tokenizer, ids: prompt.to_vec(), from: 0, to: prompt.len() }
    }

    /// Adds a token and returns the text that it completes; often its own text, sometimes none.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let all = self.tokenizer.decode(&self.ids[self.from..])?;
        // Bytes that are no character (yet) end in U+FFFD.
        if all.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let new = self.beyond(&all)?;
        (self.from, self.to) = (self.to, self.ids.len());
        Ok(new)
    }

    /// The text that never became complete.
    pub fn rest(&mut self) -> Result<String> {
        let all = self.tokenizer.decode(&self.ids[self.from..])?;
        let new = self.beyond(&all)?;
        self.to = self.ids.len();
        Ok(new)
    }

    /// The part of `all` beyond the text already returned.
    fn beyond(&self, all: &str) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[self.from..self.to])?;
        let same: usize = all.chars().zip(before.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        Ok(all[same..].to_owned())
    }
}

/// Holds back what may be the beginning of a stop text.
pub(super) struct StopTexts<'s> {
    stops: &'s [String],
    held: String,
}

/// The text that may be shown after a piece.
#[derive(Debug, PartialEq)]
pub(super) enum Shown {
    /// This, and there may be more.
    More(String),
    /// This, up to the stop text of that number.
    Last(String, usize),
}

impl<'s> StopTexts<'s> {
    pub fn new(stops: &'s [String]) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes a further piece. Of several stop texts the one that begins first counts, and of those the first in the list.
    pub fn push(&mut self, piece: &str) -> Shown {
        self.held += piece;
        let found = self.stops.iter().enumerate().filter_map(|(i, stop)| Some((self.held.find(stop.as_str())?, i)));
        if let Some((at, stop)) = found.min() {
            self.held.truncate(at);
            return Shown::Last(std::mem::take(&mut self.held), stop);
        }
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len());
        let held = self.held.split_off(at);
        Shown::More(std::mem::replace(&mut self.held, held))
    }

    /// The text held back, at the end of the stream.
    pub fn rest(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpecialTokens;

    /// A vocabulary of all bytes and a few words; its decoder is as the vocabulary's kind has it.
    fn tokenizer(byte_level: bool) -> Tokenizer {
        let words = if byte_level { ["a", "\u{120}b", "\u{120}"] } else { ["a", "▁b", "▁"] };
        let bytes: Vec<String> = if byte_level {
            // GPT-2's alphabet, in the order of bytes.
            let itself = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
            let mut other = 0x100..;
            (0..256u32)
                .map(|b| if itself(&b) { b } else { other.next().unwrap() })
                .map(|c| char::from_u32(c).unwrap().to_string())
                .collect()
        } else {
            (0..256).map(|b| format!("<0x{b:02X}>")).collect()
        };
        let mut vocab = serde_json::Map::new();
        for word in bytes.iter().map(String::as_str).chain(words) {
            let id = vocab.len();
            vocab.entry(word).or_insert(id.into());
        }
        let decoder = if byte_level {
            serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
        } else {
            serde_json::json!({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})
        };
        let json = serde_json::json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "truncation": null, "padding": null, "decoder": decoder,
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": !byte_level}});
        let inner = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
        Tokenizer::from_parts(inner, SpecialTokens::default()).unwrap()
    }

    /// Whatever comes, the pieces are whole characters and join to what decoding everything at once adds to the prompt.
    #[test]
    fn pieces_join_to_the_text() {
        let mut state = 1u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for byte_level in [true, false] {
            let tokenizer = tokenizer(byte_level);
            let words: Vec<u32> = if byte_level { vec![97, 256, 220] } else { vec![256, 257, 258] };
            let ids: Vec<u32> = if byte_level { words[..2].to_vec() } else { words.clone() };
            for round in 0..400 {
                let mut all: Vec<u32> = vec![ids[round % ids.len()]];
                let prompt = all.len();
                for _ in 0..random(12) {
                    // A byte fallback takes back a whole run of bytes for one that does not fit: what is shown is shown.
                    match random(if byte_level { 4 } else { 2 }) {
                        0 => all.push(ids[random(ids.len() as u64) as usize]),
                        1 => all.extend("🦀é—".bytes().map(u32::from)),
                        2 => all.extend("語".bytes().map(u32::from).take(1 + random(2) as usize)),
                        _ => all.push(random(256) as u32),
                    }
                }
                let mut stream = TextStream::new(&tokenizer, &all[..prompt]);
                let mut text = String::new();
                for &id in &all[prompt..] {
                    let piece = stream.push(id).unwrap();
                    assert!(!piece.ends_with(char::REPLACEMENT_CHARACTER));
                    text += &piece;
                }
                text += &stream.rest().unwrap();
                let before = tokenizer.decode(&all[..prompt]).unwrap();
                assert_eq!(before + &text, tokenizer.decode(&all).unwrap(), "{all:?}");
            }
        }
    }

    #[test]
    fn a_split_character_comes_with_its_last_byte() {
        let tokenizer = tokenizer(true);
        let mut stream = TextStream::new(&tokenizer, &[97]);
        let pieces: Vec<String> = "é🦀".bytes().map(|byte| stream.push(u32::from(byte)).unwrap()).collect();
        assert_eq!(pieces, ["", "é", "", "", "", "🦀"]);
        assert_eq!(stream.push(0xF0).unwrap(), "");
        assert_eq!(stream.rest().unwrap(), "\u{FFFD}");
    }

    #[test]
    fn stop_texts_are_found_across_pieces_and_never_shown() {
        let stops = ["\n\nQ:".to_owned(), "END".to_owned()];
        let text = "a\n\nb E EN\nQ:\n\n\nQ:END";
        for size in 1..=text.len() {
            let (mut stop, mut shown) = (StopTexts::new(&stops), String::new());
            let mut found = None;
            for piece in text.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap()) {
                match stop.push(piece) {
                    Shown::More(text) => shown += &text,
                    Shown::Last(text, i) => {
                        shown += &text;
                        found = Some(i);
                        break;
                    }
                }
            }
            assert_eq!((shown.as_str(), found), ("a\n\nb E EN\nQ:\n", Some(0)), "pieces of {size}");
        }
        let mut stop = StopTexts::new(&stops);
        assert_eq!(stop.push("x E"), Shown::More("x ".into()));
        assert_eq!(stop.push("N"), Shown::More(String::new()));
        assert_eq!(stop.rest(), "EN");
        assert_eq!(StopTexts::new(&[]).push("anything"), Shown::More("anything".into()));
    }
}
