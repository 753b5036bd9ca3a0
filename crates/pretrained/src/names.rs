//! Names from a server, a table or a user, before they become parts of a path or an address.
//!
//! Each function returns the name itself, or why it is refused.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::{Error, Result};

const LONGEST: usize = 1024;

fn refused(what: &'static str, name: &str, reason: &'static str) -> Error {
    Error::UnsafeName { what, name: name.chars().take(200).collect(), reason }
}

/// A file or folder inside a repository: parts divided by `/`, none of which leads out of it on any system.
pub(crate) fn file(name: &str) -> Result<&str> {
    path("file name", name)
}

/// A branch, tag, commit or `refs/..`.
pub(crate) fn revision(name: &str) -> Result<&str> {
    path("revision", name)
}

fn path<'a>(what: &'static str, name: &'a str) -> Result<&'a str> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it is longer than 1024 bytes"
    } else if name.starts_with('/') {
        "it is absolute"
    } else if name.contains('\\') {
        "it has a backslash"
    } else if name.contains(|c: char| c.is_control()) {
        "it has a control character"
    } else if name.split('/').any(|part| part.as_bytes().get(1) == Some(&b':')) {
        "a part of it begins like a drive"
    } else if name.split('/').any(|part| part == "..") {
        "it has `..`"
    } else if name.split('/').any(|part| part.is_empty() || part == ".") {
        "it has an empty part or `.`"
    } else if name.split('/').any(|part| part.ends_with(['.', ' '])) {
        "a part of it ends with a dot or a space, which some systems drop"
    } else {
        return Ok(name);
    };
    Err(refused(what, name, reason))
}

/// A repository, `owner/name` or, for a few old ones, `name`.
pub(crate) fn repo(name: &str) -> Result<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let reason = if name.is_empty() || name.len() > 200 {
        "it is empty or longer than 200 bytes"
    } else if !name.chars().all(allowed) {
        "it has characters other than letters, digits, `-`, `_`, `.` and one `/`"
    } else if name.split('/').count() > 2 {
        "it has more than one `/`"
    } else if name.split('/').any(|part| part.is_empty() || part.starts_with(['.', '-']) || part.ends_with(['.', '-']))
    {
        "a part of it is empty, or begins or ends with `.` or `-`"
    } else if name.contains("..") || name.contains("--") {
        "it has `..` or `--`"
    } else {
        return Ok(name);
    };
    Err(refused("repository", name, reason))
}

/// A commit as the hub writes it: 40 digits of base 16.
pub(crate) fn commit(name: &str) -> Result<&str> {
    match is_commit(name) {
        true => Ok(name),
        false => Err(refused("commit", name, "it is not 40 digits and letters a to f")),
    }
}

pub(crate) fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// A file's etag without its quotes: it becomes the name of the blob.
#[cfg(feature = "hub")]
pub(crate) fn etag(header: &str) -> Result<&str> {
    let name = header.strip_prefix("W/").unwrap_or(header).trim_matches('"');
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    match !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) {
        true => Ok(name),
        false => Err(refused("etag", header, "it is not 1 to 128 letters, digits, `-` and `_`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        let long = "a/".repeat(600) + "a";
        for name in [
            "",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "/etc/passwd",
            "//x",
            "a//b",
            "a/",
            "./a",
            "a/.",
            "..\\x",
            "a\\b",
            "C:\\x",
            "C:/x",
            "C:x",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a/c:b",
            "a./b",
            "a /b",
            long.as_str(),
        ] {
            assert!(file(name).is_err(), "{name:?}");
            assert!(revision(name).is_err(), "{name:?}");
        }
        for name in [
            "a",
            "a/b.npz",
            "layer_20/width_16k/average_l0_71",
            "..a",
            "a..b",
            ".hidden",
            "mlp_out_24576:v1/x",
            "a b/c+d@e#f%41",
        ] {
            assert_eq!(file(name).unwrap(), name);
        }
        assert!(revision("refs/convert/parquet").is_ok());
    }

    #[test]
    fn repositories_are_two_plain_names() {
        for name in
            ["", "a/b/c", "/a", "a/", "../a", "a/..", "a--b/c", "a/b:c", "a/b\\c", "a/b?x", "a/.b", "-a/b", "a/b%2f"]
        {
            assert!(repo(name).is_err(), "{name:?}");
        }
        for name in ["gpt2", "jbloom/GPT2-Small-SAEs-Reformatted", "Qwen/Qwen3.5-2B_x"] {
            assert_eq!(repo(name).unwrap(), name);
        }
    }

    #[test]
    fn commits_and_etags_are_words() {
        assert!(commit("0123456789abcdef0123456789abcdef01234567").is_ok());
        for name in ["", "main", "../../x", "0123456789ABCDEF0123456789abcdef01234567"] {
            assert!(commit(name).is_err(), "{name:?}");
        }
        #[cfg(feature = "hub")]
        {
            assert_eq!(etag("W/\"abc\"").unwrap(), "abc");
            for name in ["", "\"\"", "../x", "a/b", "a.b", "..", "a\\b", "a\0"] {
                assert!(etag(name).is_err(), "{name:?}");
            }
        }
    }
}
