//! Arrow IPC: what the `datasets` library keeps on the disk (`save_to_disk`, its cache), one document a row.
//!
//! The library writes the streaming format: messages one after another. A file in the format that has a footer is such a stream between its
//! magic bytes and the footer, and is read as one. Memory: one batch of rows (1000, as the library writes them), all columns of it.

use super::emit::{Emitter, Stop};
use super::files::Input;
use super::inspect::Columns;
use super::rows::{self, arrow, damaged};
use crate::{DocId, Error, Result};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{Endianness, Message, MessageHeader, RecordBatch as Batch, root_as_message};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// What a file with a footer begins with.
const MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// And the zeros after it, at most.
const MAX_PADDED: u64 = 64;
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Larger descriptions of a message are refused. They have 16 bytes or so for a column.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Rows of a batch that take no bytes, such as nulls.
const FREE_ROWS: u64 = 1 << 18;

/// What a file of messages says of itself, held against what it has.
struct Claims {
    start: u64,
    rows: u64,
}

/// Checks every message before a reader takes memory for it.
fn check(mut file: &File) -> std::result::Result<Claims, String> {
    let io = |e: std::io::Error| e.to_string();
    let length = file.metadata().map_err(io)?.len();
    let mut head = Vec::new();
    file.take(MAX_PADDED).read_to_end(&mut head).map_err(io)?;
    // Between the magic bytes and the first message zeros may stand, up to the writer's alignment.
    let start = match head.strip_prefix(MAGIC) {
        Some(rest) => (MAGIC.len() + 8 * rest.chunks_exact(8).take_while(|word| **word == [0; 8]).count()) as u64,
        None => 0,
    };
    let mut claims = Claims { start, rows: 0 };
    let (mut at, mut description) = (start, Vec::new());
    loop {
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        let Some((size, prefix)) = size(file).map_err(io)? else { return Ok(claims) };
        at += prefix;
        let left = length.saturating_sub(at);
        let size = u64::try_from(size).ok().filter(|size| *size <= left.min(MAX_MESSAGE_BYTES));
        let size =
            size.ok_or_else(|| format!("a message at byte {at} claims a size that cannot be, {left} bytes are left"))?;
        description.clear();
        file.take(size).read_to_end(&mut description).map_err(io)?;
        at += size;
        let message = root_as_message(&description).map_err(|e| format!("the message before byte {at}: {e}"))?;
        let left = length.saturating_sub(at);
        let body = u64::try_from(message.bodyLength()).ok().filter(|body| *body <= left);
        let body =
            body.ok_or_else(|| format!("a message claims {} bytes at {at}, {left} are left", message.bodyLength()))?;
        claims.rows = claims.rows.saturating_add(check_message(&message, body)?);
        at += body;
    }
}

/// The size before a message, and how many bytes say it; `None` at the end of the stream.
fn size(mut file: &File) -> std::io::Result<Option<(i32, u64)>> {
    let mut prefix = Vec::new();
    file.by_ref().take(4).read_to_end(&mut prefix)?;
    let mut length = 4;
    if prefix == CONTINUATION {
        prefix.clear();
        file.take(4).read_to_end(&mut prefix)?;
        length = 8;
    }
    let size = <[u8; 4]>::try_from(prefix.as_slice()).map(i32::from_le_bytes);
    Ok(size.ok().filter(|size| *size != 0).map(|size| (size, length)))
}

/// How many rows a message has.
fn check_message(message: &Message, body: u64) -> std::result::Result<u64, String> {
    match message.header_type() {
        MessageHeader::Schema => match message.header_as_schema() {
            Some(schema) if schema.endianness() == Endianness::Big => Err("written on a big-endian machine".into()),
            Some(_) => Ok(0),
            None => Err("a message has no schema".into()),
        },
        MessageHeader::RecordBatch => check_batch(message.header_as_record_batch(), body),
        MessageHeader::DictionaryBatch => {
            check_batch(message.header_as_dictionary_batch().and_then(|of| of.data()), body).map(|_| 0)
        }
        _ => Err("it holds other things than a table".into()),
    }
}

fn check_batch(batch: Option<Batch>, body: u64) -> std::result::Result<u64, String> {
    let batch = batch.ok_or("a message has no batch")?;
    if batch.compression().is_some() {
        return Err("its batches are compressed, which is not supported: write it without compression".into());
    }
    let most = FREE_ROWS.saturating_add(body.saturating_mul(8));
    let is_count = |n: i64| u64::try_from(n).is_ok_and(|n| n <= most);
    let nodes_fit = batch.nodes().is_some_and(|nodes| {
        nodes.iter().all(|node| is_count(node.length()) && (0..=node.length()).contains(&node.null_count()))
    });
    let in_body = |offset: i64, length: i64| {
        let range = u64::try_from(offset).ok().zip(u64::try_from(length).ok());
        range.and_then(|(offset, length)| offset.checked_add(length)).is_some_and(|end| end <= body)
    };
    let buffers = batch.buffers();
    let buffers_fit = buffers.is_some_and(|all| all.iter().all(|buffer| in_body(buffer.offset(), buffer.length())));
    let most_views = buffers.map_or(0, |all| all.len() as i64);
    let views_fit =
        batch.variadicBufferCounts().is_none_or(|counts| counts.iter().all(|n| (0..=most_views).contains(&n)));
    match u64::try_from(batch.length()).ok().filter(|rows| *rows <= most) {
        Some(rows) if nodes_fit && buffers_fit && views_fit => Ok(rows),
        _ => Err(format!("a batch of {body} bytes claims more than it has")),
    }
}

type Batches = StreamReader<BufReader<File>>;

fn open(input: &Input, column: Option<usize>) -> Result<(Batches, Claims)> {
    let io = |source| Error::Io { path: input.path.clone(), source };
    let mut file = File::open(&input.path).map_err(io)?;
    let claims = check(&file).map_err(|reason| damaged(input, reason))?;
    file.seek(SeekFrom::Start(claims.start)).map_err(io)?;
    let batches = arrow(input, || StreamReader::try_new(BufReader::new(file), column.map(|column| vec![column])))?;
    Ok((batches, claims))
}

/// The columns of the table.
///
/// # Errors
/// A table without rows.
pub(super) fn columns(input: &Input) -> Result<Columns> {
    let (batches, claims) = open(input, None)?;
    if claims.rows == 0 {
        return Err(Error::EmptyFile { path: input.path.clone() });
    }
    Ok(rows::columns(batches.schema().fields()))
}

pub(super) fn read(input: &Input, file: u32, out: &mut Emitter) -> std::result::Result<(), Stop> {
    let (all, _) = open(input, None)?;
    let root = input.keys.first().map_or("", String::as_str);
    let column = all.schema().index_of(root).map_err(|e| damaged(input, e))?;
    let (mut batches, _) = open(input, Some(column))?;
    let mut ordinal = 0;
    let mut next = || -> Result<Option<RecordBatch>> { arrow(input, || batches.next().transpose()) };
    while let Some(batch) = next()? {
        let values = batch.columns().first().ok_or_else(|| damaged(input, "a batch has no column"))?;
        rows::emit(input, values, DocId { file, ordinal }, out)?;
        ordinal += values.len() as u64;
    }
    Ok(())
}
