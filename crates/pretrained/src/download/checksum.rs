//! Whether the bytes are those that were promised.

use crate::{Error, Result};
use ring::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Compares a file with its etag: the SHA-256 of large files, Git's own SHA-1 of small ones. Etags of another form say nothing.
pub(super) fn matches(path: &Path, length: u64, etag: &str) -> Result<bool> {
    let hex = etag.bytes().all(|c| c.is_ascii_hexdigit());
    let found = match etag.len() {
        64 if hex => hash(path, Context::new(&SHA256))?,
        40 if hex => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {length}\0").as_bytes());
            hash(path, context)?
        }
        _ => return Ok(true),
    };
    let text: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(text.eq_ignore_ascii_case(etag))
}

fn hash(path: &Path, mut context: Context) -> Result<Digest> {
    let io = |source| Error::Io { path: path.into(), source };
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(io)?);
    loop {
        let bytes = file.fill_buf().map_err(io)?;
        if bytes.is_empty() {
            return Ok(context.finish());
        }
        context.update(bytes);
        let read = bytes.len();
        file.consume(read);
    }
}
