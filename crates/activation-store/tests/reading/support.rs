//! What several tests need: files in a temporary folder, documents put together again, a source and tokenizers made by hand.

use activation_store::{
    Content, DocId, DocumentOptions, DocumentSource, Documents, Piece, Result, Tokenize, TokenizedText,
};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A folder for one test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

pub fn options() -> DocumentOptions {
    DocumentOptions::default()
}

/// Puts the documents together again, and checks that their pieces are as promised.
pub fn whole(documents: impl Iterator<Item = Result<Piece>>, max_piece_bytes: usize) -> Result<Vec<(DocId, Content)>> {
    let mut out: Vec<(DocId, Content)> = Vec::new();
    let mut open = false;
    for piece in documents {
        let piece = piece?;
        let bytes = match &piece.content {
            Content::Text(text) => text.len(),
            Content::Tokens(ids) => 4 * ids.len(),
        };
        assert!(bytes <= max_piece_bytes, "a piece of {bytes} bytes");
        if open {
            let (doc, content) = out.last_mut().unwrap();
            assert_eq!((*doc, content.len() as u64), (piece.doc, piece.start), "pieces follow one another");
            assert!(!piece.content.is_empty(), "an empty piece of a document that is not empty");
            match (content, &piece.content) {
                (Content::Text(all), Content::Text(more)) => all.push_str(more),
                (Content::Tokens(all), Content::Tokens(more)) => all.extend(more),
                _ => panic!("a document of text and tokens"),
            }
        } else {
            assert_eq!(piece.start, 0);
            assert!(out.last().is_none_or(|(doc, _)| *doc < piece.doc), "documents ascend");
            out.push((piece.doc, piece.content));
        }
        open = !piece.last;
    }
    assert!(!open, "the last document ends");
    Ok(out)
}

/// All documents of the files as (file, ordinal, text).
pub fn texts<P: AsRef<Path>>(patterns: &[P], options: DocumentOptions) -> Result<Vec<(u32, u64, String)>> {
    let most = options.max_piece_bytes;
    let text = |content| match content {
        Content::Text(text) => text,
        Content::Tokens(ids) => panic!("tokens: {ids:?}"),
    };
    let all = whole(Documents::open(patterns, options)?, most)?;
    Ok(all.into_iter().map(|(doc, content)| (doc.file, doc.ordinal, text(content))).collect())
}

/// All documents of the files as (ordinal, tokens).
pub fn tokens<P: AsRef<Path>>(patterns: &[P], options: DocumentOptions) -> Result<Vec<(u64, Vec<u32>)>> {
    let most = options.max_piece_bytes;
    let ids = |content| match content {
        Content::Tokens(ids) => ids,
        Content::Text(text) => panic!("text: {text}"),
    };
    let all = whole(Documents::open(patterns, options)?, most)?;
    Ok(all.into_iter().map(|(doc, content)| (doc.ordinal, ids(content))).collect())
}

/// The error that reading ends in; everything is read.
pub fn refused<P: AsRef<Path>>(patterns: &[P], options: DocumentOptions) -> String {
    let mut documents = match Documents::open(patterns, options) {
        Ok(documents) => documents,
        Err(error) => return error.to_string(),
    };
    let error = documents.by_ref().find_map(Result::err).expect("an error");
    assert!(documents.next().is_none(), "nothing after an error");
    error.to_string()
}

/// Pieces made by hand.
pub struct Pieces(std::vec::IntoIter<Piece>);

impl Pieces {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Self(pieces.into_iter())
    }

    /// Documents of tokens in pieces of `size` tokens.
    pub fn tokens(documents: &[Vec<u32>], size: usize) -> Self {
        let mut pieces = Vec::new();
        for (ordinal, ids) in (0..).zip(documents) {
            let doc = DocId { file: 0, ordinal };
            let count = ids.len().div_ceil(size).max(1);
            for i in 0..count {
                let part = ids[(i * size).min(ids.len())..((i + 1) * size).min(ids.len())].to_vec();
                pieces.push(Piece {
                    doc,
                    start: (i * size) as u64,
                    content: Content::Tokens(part),
                    last: i + 1 == count,
                });
            }
        }
        Self::new(pieces)
    }
}

impl Iterator for Pieces {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl DocumentSource for Pieces {}

/// A tokenizer with GPT-2's boundaries: a token is a character, or a run of whitespace with the character after it. The id is a
/// hash of the token's text.
pub struct Characters {
    pub cuts: bool,
}

impl Tokenize for Characters {
    fn tokenize(&self, text: &str) -> Result<TokenizedText> {
        let mut out = TokenizedText::default();
        let mut start = 0;
        for (at, c) in text.char_indices() {
            let end = at + c.len_utf8();
            if !c.is_whitespace() || end == text.len() {
                out.ids.push(hash(&text[start..end]));
                out.spans.push(start..end);
                start = end;
            }
        }
        Ok(out)
    }

    fn splits_at_whitespace(&self) -> bool {
        self.cuts
    }
}

/// FNV-1a.
pub fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// The tokenizer that comes with the repository.
pub fn demo_tokenizer() -> model_hooks::Tokenizer {
    model_hooks::Tokenizer::from_folder("../../assets/demo/lm").unwrap()
}
