//! The reading thread's end of the channel, and the knife that cuts documents into pieces.

use super::files::Input;
use super::report::DocumentReport;
use crate::{Content, DocId, Error, Piece, Place, cut};
use model_hooks::Conversation;
use std::sync::mpsc::SyncSender;

/// Small documents cross the channel together, about this many bytes at a time.
const BATCH_BYTES: usize = 128 << 10;

/// What the reading thread says.
pub(super) enum Message {
    /// Pieces, and counts of the records skipped since the last message.
    Pieces(Vec<Piece>, DocumentReport),
    Failed(Error),
    End,
}

/// Why reading stops early.
pub(super) enum Stop {
    /// Something is wrong with the input.
    Failed(Box<Error>),
    /// Nobody listens any more.
    Closed,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Sends pieces, many at a time.
pub(super) struct Emitter {
    sender: SyncSender<Message>,
    batch: Vec<Piece>,
    bytes: usize,
    /// Longest piece, in bytes.
    pub(super) max_piece_bytes: usize,
    /// Documents finished so far.
    pub(super) documents: u64,
    /// What was left out since the last batch.
    pub(super) left_out: DocumentReport,
    /// The first refusal, returned if every conversation is refused.
    pub(super) first_refusal: Option<Error>,
}

impl Emitter {
    pub(super) fn new(sender: SyncSender<Message>, max_piece_bytes: usize) -> Self {
        Self {
            sender,
            batch: Vec::new(),
            bytes: 0,
            max_piece_bytes,
            documents: 0,
            left_out: DocumentReport::default(),
            first_refusal: None,
        }
    }

    fn piece(&mut self, piece: Piece) -> Result<(), Stop> {
        self.documents += u64::from(piece.last);
        self.bytes += std::mem::size_of::<Piece>()
            + match &piece.content {
                Content::Text(text) => text.len(),
                Content::Tokens(ids) => 4 * ids.len(),
            };
        self.batch.push(piece);
        if self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// A whole document of text; long ones are cut.
    pub(super) fn text(&mut self, doc: DocId, text: String) -> Result<(), Stop> {
        if text.len() <= self.max_piece_bytes {
            return self.piece(Piece { doc, start: 0, content: Content::Text(text), last: true });
        }
        let mut cutter = Cutter::new(doc);
        cutter.push(&text, self)?;
        cutter.finish(self)
    }

    /// A conversation, as JSON; or a text that is one message, as JSON too.
    pub(super) fn conversation(&mut self, input: &Input, place: Place, doc: DocId, json: &str) -> Result<(), Stop> {
        let refused = |reason: String| Error::Conversation {
            path: input.path.clone(),
            place,
            field: input.field.clone(),
            reason,
        };
        let is_text = json.trim_ascii_start().starts_with('"');
        if is_text && !input.text_is_user {
            return Err(input.wrong_type(place, "text").into());
        }
        let conversation = match is_text {
            true => {
                serde_json::from_str::<String>(json).map(|text| Conversation::user(&text)).map_err(|e| e.to_string())
            }
            false => Conversation::from_json(json).map_err(|e| e.to_string()),
        };
        // As one that the template refuses: a record that is no conversation does not end a run over the others.
        let conversation = match conversation {
            Ok(conversation) => conversation,
            Err(reason) => {
                self.left_out.refused_conversations += 1;
                self.first_refusal.get_or_insert_with(|| refused(reason));
                return Ok(());
            }
        };
        if conversation.is_empty() {
            self.left_out.null_documents += 1;
            return Ok(());
        }
        let Some(chat) = &input.chat else {
            return Err(Error::NoChatTemplate { path: input.path.clone(), field: input.field.clone() }.into());
        };
        match chat.render(&conversation) {
            Ok(text) => self.text(doc, text),
            Err(error) => {
                self.left_out.refused_conversations += 1;
                self.first_refusal.get_or_insert_with(|| refused(error.to_string()));
                Ok(())
            }
        }
    }

    /// A stretch of a document of tokens, no longer than a piece.
    pub(super) fn token_piece(&mut self, doc: DocId, start: u64, ids: Vec<u32>, last: bool) -> Result<(), Stop> {
        self.piece(Piece { doc, start, content: Content::Tokens(ids), last })
    }

    /// A whole document of tokens; long ones are cut.
    pub(super) fn tokens(&mut self, doc: DocId, ids: &[u32]) -> Result<(), Stop> {
        let most = self.max_piece_tokens();
        let last = ids.len().saturating_sub(1) / most;
        for (i, part) in ids.chunks(most).enumerate() {
            self.token_piece(doc, (i * most) as u64, part.to_vec(), i == last)?;
        }
        if ids.is_empty() { self.token_piece(doc, 0, Vec::new(), true) } else { Ok(()) }
    }

    /// Longest piece of a document of tokens.
    pub(super) fn max_piece_tokens(&self) -> usize {
        (self.max_piece_bytes / size_of::<u32>()).max(1)
    }

    /// Sends what has gathered.
    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        self.bytes = 0;
        if self.batch.is_empty() && self.left_out.is_empty() {
            return Ok(());
        }
        let batch = Message::Pieces(std::mem::take(&mut self.batch), std::mem::take(&mut self.left_out));
        self.send(batch)
    }

    /// Sends what has gathered, and the last word.
    pub(super) fn finish(mut self, outcome: Result<(), Stop>) {
        let last = match outcome {
            Ok(()) => Message::End,
            Err(Stop::Failed(error)) => Message::Failed(*error),
            Err(Stop::Closed) => return,
        };
        // The receiver may be gone: the message is then not needed.
        let _ = self.flush().and_then(|()| self.send(last));
    }

    fn send(&self, message: Message) -> Result<(), Stop> {
        self.sender.send(message).map_err(|_| Stop::Closed)
    }
}

/// Cuts the text of one document, which arrives in chunks of any length, into pieces.
pub(super) struct Cutter {
    doc: DocId,
    start: u64,
    held: String,
}

impl Cutter {
    pub(super) fn new(doc: DocId) -> Self {
        Self { doc, start: 0, held: String::new() }
    }

    /// More text of the document.
    pub(super) fn push(&mut self, mut text: &str, out: &mut Emitter) -> Result<(), Stop> {
        let most = out.max_piece_bytes;
        while self.held.len() + text.len() > most {
            // One character beyond the limit, so that the knife sees what follows the last place where it may cut.
            let room = (most + 4).saturating_sub(self.held.len());
            let (now, later) = text.split_at(text.floor_char_boundary(room));
            self.held.push_str(now);
            text = later;
            if self.held.len() <= most {
                break;
            }
            let at = cut::safe_cut(&self.held, most).unwrap_or_else(|| cut::forced_cut(&self.held, most));
            let rest = self.held.split_off(at);
            self.send(rest, false, out)?;
        }
        self.held.push_str(text);
        Ok(())
    }

    /// The document is over.
    pub(super) fn finish(mut self, out: &mut Emitter) -> Result<(), Stop> {
        self.send(String::new(), true, out)
    }

    fn send(&mut self, rest: String, last: bool, out: &mut Emitter) -> Result<(), Stop> {
        let text = std::mem::replace(&mut self.held, rest);
        let start = self.start;
        self.start += text.len() as u64;
        out.piece(Piece { doc: self.doc, start, content: Content::Text(text), last })
    }
}

/// UTF-8 from bytes that arrive in chunks cut anywhere.
#[derive(Default)]
pub(super) struct Utf8 {
    bytes: Vec<u8>,
    /// How many of `bytes` were given out.
    used: usize,
    /// Bytes before `bytes`.
    offset: u64,
}

impl Utf8 {
    /// The characters that the bytes so far complete; or the offset of the first byte that is none.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<&str, u64> {
        self.bytes.drain(..self.used);
        self.offset += self.used as u64;
        self.bytes.extend_from_slice(bytes);
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => {
                self.used = text.len();
                Ok(text)
            }
            Err(error) if error.error_len().is_none() => {
                self.used = error.valid_up_to();
                let valid = self.bytes.get(..self.used).unwrap_or_default();
                Ok(std::str::from_utf8(valid).unwrap_or_default())
            }
            Err(error) => Err(self.offset + error.valid_up_to() as u64),
        }
    }

    /// Whether a character is cut off at the end: its offset.
    pub(super) fn finish(&self) -> Result<(), u64> {
        if self.used == self.bytes.len() { Ok(()) } else { Err(self.offset + self.used as u64) }
    }
}
