//! The hub's protocol: what a repository holds, and the bytes of its files.
//!
//! A file is asked for at one commit: `HEAD ENDPOINT/REPO/resolve/COMMIT/FILE` says its etag and length, perhaps with the address
//! where its bytes are. They go to `blobs/ETAG.incomplete`, are counted and hashed, and get their name only when all is right.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod address;

mod checksum;
mod response;
mod transfer;

use crate::cache::{CachedRepo, Kind};
use crate::{DownloadEvent, Error, Hub, Result, names};
use address::Address;
use serde::Deserialize;
use std::io::Read;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body, Proxy};

/// Lists of files above this are refused.
const MOST_LIST_BYTES: u64 = 64 << 20;
const MOST_REDIRECTS: usize = 5;

pub(crate) struct Downloader<'a> {
    from: &'a Hub,
    agent: Agent,
}

/// What a repository holds. The rest of the answer, whatever it is, takes no memory.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    rfilename: String,
}

/// How a request can end without an answer that is of use.
enum Failure {
    /// Another try may help; after so long, if the server said.
    Again(Box<Error>, Option<Duration>),
    Final(Box<Error>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(Box::new(error))
    }
}

impl Failure {
    fn again(error: Error, asked: Option<Duration>) -> Self {
        Self::Again(Box::new(error), asked)
    }
}

impl<'a> Downloader<'a> {
    pub(crate) fn new(from: &'a Hub) -> Self {
        let read_timeout = Some(from.retry.read_timeout);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if from.proxy_from_env { Proxy::try_from_env() } else { None })
            .user_agent(concat!("saescope/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(read_timeout)
            .timeout_recv_response(read_timeout)
            .timeout_per_read(read_timeout)
            .build();
        Self { from, agent: config.into() }
    }

    /// The commit of a revision and the files that it has; the commit is remembered.
    pub(crate) fn look_up(&self, repo: &CachedRepo, revision: &str) -> Result<(String, Vec<String>)> {
        let kind = match repo.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        let revision_part = address::escaped(revision).replace('/', "%2F");
        let url = format!("{}/api/{kind}/{}/revision/{revision_part}", self.from.endpoint, repo.id);
        let text = self.patiently(&url, |downloader| downloader.list(&url, repo, revision))?;
        let wrong = |what: &str| Error::BadAnswer { url: url.clone(), what: what.into() };
        let listed: Listing = serde_json::from_str(&text).map_err(|error| wrong(&format!("not a list: {error}")))?;
        let commit = listed.sha;
        names::commit(&commit)?;
        if names::is_commit(revision) && commit != revision {
            return Err(wrong(&format!("commit {commit} instead of the one asked for")));
        }
        repo.set_commit(revision, &commit)?;
        Ok((commit, listed.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    fn list(&self, url: &str, repo: &CachedRepo, revision: &str) -> Result<String, Failure> {
        let response = self.follow(url, false, None)?.1;
        let response = response::good(response, url, repo, Some(revision), self.from.token.is_some())?;
        let mut text = String::new();
        let read = response.into_body().into_reader().take(MOST_LIST_BYTES + 1).read_to_string(&mut text);
        match read {
            Ok(length) if length as u64 > MOST_LIST_BYTES => {
                let what = "a list of files of more than 64 MiB".into();
                Err(Error::BadAnswer { url: url.into(), what }.into())
            }
            Ok(_) => Ok(text),
            Err(error) => Err(Failure::again(unreachable(url, &error.to_string()), None)),
        }
    }

    /// A file of a commit, downloaded unless its bytes are here already.
    pub(crate) fn download(
        &self,
        repo: &CachedRepo,
        commit: &str,
        file: &str,
        number: usize,
        of: usize,
    ) -> Result<PathBuf> {
        let prefix = match repo.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        let url = format!(
            "{}/{prefix}{}/resolve/{commit}/{}",
            self.from.endpoint,
            repo.id,
            address::escaped(names::file(file)?)
        );
        let wanted = self.patiently(&url, |downloader| response::wanted(downloader, &url, repo, commit))?;
        let _lock = repo.lock(&wanted.etag)?;
        let blob = repo.blob(&wanted.etag)?;
        if !blob.is_file() {
            let told = |done: u64| {
                if let Some(progress) = &self.from.progress {
                    progress(&DownloadEvent::Bytes { file, number, of, done, total: wanted.length });
                }
            };
            transfer::bring(self, &wanted, repo, &blob, &told)?;
        }
        repo.link(commit, file, &wanted.etag)
    }

    /// A request whose redirects are followed by hand. The token goes to the endpoint alone, and never from https to http.
    ///
    /// With `to_the_end` all redirects are followed, else those on the same server; the address of the last is returned.
    fn follow(&self, url: &str, to_the_end: bool, from_byte: Option<u64>) -> Result<(String, Response<Body>), Failure> {
        self.request("GET", url, to_the_end, from_byte)
    }

    fn request(
        &self,
        method: &str,
        url: &str,
        to_the_end: bool,
        from_byte: Option<u64>,
    ) -> Result<(String, Response<Body>), Failure> {
        let endpoint = Address::parse(&self.from.endpoint).ok_or_else(|| bad_address(&self.from.endpoint))?;
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let address = Address::parse(&url).ok_or_else(|| bad_address(&url))?;
            let mut request = if method == "HEAD" { self.agent.head(&url) } else { self.agent.get(&url) };
            request = request.header("Accept-Encoding", "identity");
            if let Some(token) = self.from.token.as_ref().filter(|_| address.same_server(&endpoint)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if let Some(from_byte) = from_byte {
                request = request.header("Range", format!("bytes={from_byte}-"));
            }
            let response = request.call().map_err(|error| failure(&url, error))?;
            let location = response::header(&response, "location").map(str::to_owned);
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok((url, response));
            };
            let next = address.to(&location).ok_or_else(|| bad_address(&location))?;
            let there = Address::parse(&next).ok_or_else(|| bad_address(&next))?;
            if address.is_secure() && !there.is_secure() {
                return Err(bad_address(&next).into());
            }
            if !to_the_end && (!there.same_server(&address) || response::header(&response, "x-linked-etag").is_some()) {
                return Ok((url, response));
            }
            url = next;
        }
        Err(Error::BadAnswer { url, what: "too many redirects".into() }.into())
    }

    /// Tries until it works, cannot work, or patience ends.
    fn patiently<T>(&self, url: &str, attempt: impl Fn(&Self) -> Result<T, Failure>) -> Result<T> {
        let mut failed = 0;
        loop {
            match attempt(self) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(*error),
                Err(Failure::Again(error, asked)) => {
                    failed += 1;
                    self.wait(url, *error, failed, asked)?;
                }
            }
        }
    }

    /// Waits before the next try, or gives up.
    fn wait(&self, url: &str, error: Error, failed: usize, asked: Option<Duration>) -> Result<()> {
        let retry = &self.from.retry;
        if failed >= retry.max_attempts {
            return Err(error);
        }
        let doubled = retry.initial_backoff.saturating_mul(1 << (failed - 1).min(16));
        let wait = asked.unwrap_or(doubled).min(retry.max_backoff);
        if let Some(progress) = &self.from.progress {
            progress(&DownloadEvent::Retrying { url, reason: &error.to_string(), wait });
        }
        sleep(wait);
        Ok(())
    }
}

fn bad_address(url: &str) -> Error {
    let what = "not an address that can be followed (http or https, and never from https to http)";
    Error::BadAnswer { url: url.chars().take(300).collect(), what: what.into() }
}

fn unreachable(url: &str, reason: &str) -> Error {
    Error::Unreachable { url: url.into(), reason: reason.into() }
}

fn failure(url: &str, error: ureq::Error) -> Failure {
    let said = unreachable(url, &error.to_string());
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::BadUri(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::LargeResponseHeader(..) => said.into(),
        // The resolver's own errors come as I/O.
        ureq::Error::Io(io) if io.to_string().contains("lookup address") => said.into(),
        _ => Failure::again(said, None),
    }
}
