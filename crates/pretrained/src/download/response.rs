//! What an answer means.

use super::{Downloader, Failure};
use crate::cache::CachedRepo;
use crate::registry::{Registry, near};
use crate::{Error, Result, names};
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;

/// A file as the hub describes it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) etag: String,
    pub(super) length: u64,
    /// Where its bytes are asked for.
    pub(super) url: String,
}

pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Asks for a file's etag and length.
pub(super) fn wanted(
    downloader: &Downloader<'_>,
    url: &str,
    repo: &CachedRepo,
    commit: &str,
) -> Result<Wanted, Failure> {
    let (last, response) = downloader.request("HEAD", url, false, None)?;
    let response = match response.status().is_redirection() {
        true => response,
        false => good(response, url, repo, None, downloader.from.token.is_some())?,
    };
    let wrong = |what: String| Failure::from(Error::BadAnswer { url: url.into(), what });
    match header(&response, "x-repo-commit") {
        Some(found) if found == commit => {}
        Some(found) => return Err(wrong(format!("commit `{found}` instead of {commit}"))),
        None => return Err(wrong("no X-Repo-Commit: this server does not speak the hub's protocol".into())),
    }
    let etag = header(&response, "x-linked-etag")
        .or_else(|| header(&response, "etag"))
        .ok_or_else(|| wrong("no ETag".into()))?;
    let length = header(&response, "x-linked-size").or_else(|| {
        // The length of a redirect is that of its own few words.
        header(&response, "content-length").filter(|_| !response.status().is_redirection())
    });
    let length = length.ok_or_else(|| wrong("no length".into()))?;
    let length = length.parse().map_err(|_| wrong(format!("a length of `{length}`")))?;
    Ok(Wanted { etag: names::etag(etag)?.into(), length, url: last })
}

/// An answer of status 200 or 206; everything else is an error in words.
pub(super) fn good(
    response: Response<Body>,
    url: &str,
    repo: &CachedRepo,
    revision: Option<&str>,
    with_token: bool,
) -> Result<Response<Body>, Failure> {
    let status = response.status().as_u16();
    if matches!(status, 200 | 206) {
        return Ok(response);
    }
    let code = header(&response, "x-error-code").unwrap_or_default().to_owned();
    let id = repo.id.clone();
    if matches!(status, 408 | 429 | 500 | 502 | 503 | 504) {
        let asked = header(&response, "retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        return Err(Failure::again(Error::Status { url: url.into(), status }, asked));
    }
    Err(Failure::from(match (status, code.as_str()) {
        (_, "GatedRepo") => Error::Denied { repo: id, status, reason: gated(with_token) },
        (404, "RevisionNotFound") => Error::NoSuchRevision { repo: id, revision: revision.unwrap_or_default().into() },
        (404, "EntryNotFound") => Error::Status { url: url.into(), status },
        // The hub says 401 for a repository that is not there, lest private ones be guessed.
        (401 | 404, "RepoNotFound") | (404, _) if revision.is_some() || code == "RepoNotFound" => {
            let repos: Vec<String> = Registry::built_in().releases().map(|release| release.repo).collect();
            let near = near(&id, repos.iter().map(String::as_str), 3);
            Error::NoSuchRepository { repo: id, with_token, near }
        }
        (401, _) => Error::Denied {
            repo: id,
            status,
            reason: match with_token {
                true => "the token is not valid",
                false => "it asks for a token (HF_TOKEN, or the file that `hf auth login` writes)",
            },
        },
        (403, _) => Error::Denied { repo: id, status, reason: "the token's account may not read it" },
        _ => Error::Status { url: url.into(), status },
    }))
}

fn gated(with_token: bool) -> &'static str {
    match with_token {
        true => "it is gated: accept its terms on its page with the account of the token",
        false => {
            "it is gated: accept its terms on its page, then give a token (HF_TOKEN, or the file that `hf auth login` writes)"
        }
    }
}
