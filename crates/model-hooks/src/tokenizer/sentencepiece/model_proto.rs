//! A SentencePiece model file: the `ModelProto` message of sentencepiece's `sentencepiece_model.proto`, read without trust.

use super::{Pieces, TokenKind};
use std::collections::HashSet;

/// Segmentation algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// The fields of a model that are read. The others are about its training.
#[derive(Debug)]
pub(super) struct Model {
    pub pieces: Pieces,
    pub algorithm: Algorithm,
    pub byte_fallback: bool,
    /// The ids of beginning, end and padding, where the file has them.
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
    /// Compiled rules of normalization; empty for none.
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
}

/// The bytes of a message that are left.
struct Message<'a>(&'a [u8]);

/// A field's value, by its wire type.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

impl<'a> Message<'a> {
    /// The next field: its number and value.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => {
                let mut four = [0; 4];
                four.copy_from_slice(self.take(4)?);
                Field::Fixed32(four)
            }
            kind => {
                return Err(format!("a field of wire type {kind}, expected 0, 1, 2 or 5: not a SentencePiece model"));
            }
        };
        match key >> 3 {
            0 => Err("a field of number 0: not a SentencePiece model".into()),
            number => Ok(Some((number, value))),
        }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte, rest @ ..] = self.0 else { return Err("it ends inside a number".into()) };
            self.0 = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".into())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let left = self.0.len();
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or_else(|| format!("a field of {len} bytes where {left} are left"))?;
        self.0 = rest;
        Ok(taken)
    }
}

impl Model {
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Pieces::default(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            bos: Some(1),
            eos: Some(2),
            pad: None,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        let mut seen = HashSet::new();
        let mut message = Message(bytes);
        while let Some((number, value)) = message.next()? {
            match (number, value) {
                (1, Field::Bytes(piece)) => model.piece(piece, &mut seen)?,
                (2, Field::Bytes(trainer)) => model.trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.normalizer(normalizer)?,
                (5, Field::Bytes(denormalizer)) => refuse_denormalizer(denormalizer)?,
                _ => {}
            }
        }
        let count = model.pieces.tokens.len();
        if count == 0 {
            return Err("no pieces: not a SentencePiece model".into());
        }
        for id in [&mut model.bos, &mut model.eos, &mut model.pad] {
            *id = id.filter(|&id| (id as usize) < count);
        }
        Ok(model)
    }

    /// `SentencePiece`: text, score, kind.
    fn piece<'a>(&mut self, bytes: &'a [u8], seen: &mut HashSet<&'a str>) -> Result<(), String> {
        let id = self.pieces.tokens.len();
        let (mut text, mut score, mut kind) = ("", 0f32, TokenKind::Normal);
        let mut message = Message(bytes);
        while let Some((number, value)) = message.next()? {
            match (number, value) {
                (1, Field::Bytes(bytes)) => {
                    text = std::str::from_utf8(bytes).map_err(|_| format!("piece {id} is not UTF-8"))?;
                }
                (2, Field::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
                (3, Field::Number(number)) => {
                    let known = i32::try_from(number).ok().and_then(TokenKind::from_number);
                    kind = known.ok_or_else(|| format!("piece {id} is of kind {number}, expected 1 to 6"))?;
                }
                _ => {}
            }
        }
        if text.is_empty() || !seen.insert(text) {
            return Err(format!("piece {id} is {text:?}, empty or not for the first time"));
        }
        if !score.is_finite() {
            return Err(format!("piece {id} has the score {score}, expected a finite number"));
        }
        self.pieces.tokens.push(text.into());
        self.pieces.scores.push(score);
        self.pieces.kinds.push(kind);
        Ok(())
    }

    /// `TrainerSpec`.
    fn trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut message = Message(bytes);
        while let Some((number, value)) = message.next()? {
            // Negative ids, which stand for none, are written in 64 bits.
            let id = |value: u64| u32::try_from(value).ok().filter(|id| i32::try_from(*id).is_ok());
            match (number, value) {
                (3, Field::Number(1)) => self.algorithm = Algorithm::Unigram,
                (3, Field::Number(2)) => self.algorithm = Algorithm::Bpe,
                (3, Field::Number(other)) => {
                    return Err(format!("its model_type is {other}, expected 1 (unigram) or 2 (BPE)"));
                }
                (24, Field::Number(suffix)) if suffix != 0 => {
                    return Err("treat_whitespace_as_suffix is true, expected false".into());
                }
                (35, Field::Number(fallback)) => self.byte_fallback = fallback != 0,
                (41, Field::Number(value)) => self.bos = id(value),
                (42, Field::Number(value)) => self.eos = id(value),
                (43, Field::Number(value)) => self.pad = id(value),
                _ => {}
            }
        }
        Ok(())
    }

    /// `NormalizerSpec`.
    fn normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut message = Message(bytes);
        while let Some((number, value)) = message.next()? {
            match (number, value) {
                (2, Field::Bytes(charsmap)) => self.charsmap = charsmap.into(),
                (3, Field::Number(add)) => self.add_dummy_prefix = add != 0,
                (4, Field::Number(remove)) => self.remove_extra_whitespaces = remove != 0,
                (5, Field::Number(0)) => return Err("escape_whitespaces is false, expected true".into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Rules that change a text back after decoding are known to none of the published models.
fn refuse_denormalizer(bytes: &[u8]) -> Result<(), String> {
    let mut message = Message(bytes);
    while let Some((number, value)) = message.next()? {
        if let (2, Field::Bytes([_, ..])) = (number, value) {
            return Err("it has rules for denormalization, expected none".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes shorter than 128.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn piece(text: &str) -> Vec<u8> {
        field(1, &field(1, text.as_bytes()))
    }

    #[track_caller]
    fn refused(bytes: &[u8], with: &str) {
        let found = Model::read(bytes).expect_err("it was read");
        assert!(found.contains(with), "{found}");
    }

    #[test]
    fn what_is_no_model() {
        refused(&[], "no pieces");
        refused(&field(2, &[]), "no pieces");
        refused(&[piece("a"), piece("a")].concat(), "piece 1 is \"a\"");
        refused(&piece(""), "piece 0 is \"\"");
        refused(&field(1, &field(1, &[0xFF])), "piece 0 is not UTF-8");
        let nan = [field(1, b"a"), vec![2 << 3 | 5], f32::NAN.to_le_bytes().to_vec()].concat();
        refused(&field(1, &nan), "score NaN");
        refused(&field(1, &[field(1, b"a"), vec![3 << 3, 9]].concat()), "of kind 9");
        refused(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], "bytes where 0 are left");
        refused(&[0x0A, 5, 1], "a field of 5 bytes where 1 are left");
        refused(&[0xFF; 20], "more than 64 bits");
        refused(&[0x80], "ends inside a number");
        refused(&[0x0B], "wire type 3");
        refused(&[0x02, 0], "number 0");
        refused(&[piece("a"), field(2, &[3 << 3, 3])].concat(), "model_type is 3");
        refused(&[piece("a"), field(3, &[5 << 3, 0])].concat(), "escape_whitespaces");
        refused(&[piece("a"), field(5, &field(2, b"x"))].concat(), "denormalization");
        refused(&[piece("a"), field(2, &[0xC0, 0x01, 1])].concat(), "treat_whitespace_as_suffix");
    }

    #[test]
    fn what_the_format_leaves_out_has_its_defaults() {
        let model = Model::read(&[piece("a"), piece("b"), vec![10 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]].concat()).unwrap();
        assert_eq!((model.bos, model.eos, model.pad), (Some(1), None, None));
        assert!(model.add_dummy_prefix && model.remove_extra_whitespaces && !model.byte_fallback);
        assert_eq!((model.algorithm, model.pieces.tokens.len()), (Algorithm::Unigram, 2));
        let minus_one = [&[0xFF; 9][..], &[1]].concat();
        let none = [piece("a"), field(2, &[&[0xC8, 0x02][..], &minus_one].concat())].concat();
        assert_eq!(Model::read(&none).unwrap().bos, None);
    }
}
