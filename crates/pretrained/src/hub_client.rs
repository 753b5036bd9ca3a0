//! What to fetch with, and from where.

use crate::cache::{Cache, home_from_env, variable};
use crate::registry::{Entry, Registry, near};
use crate::{DownloadEvent, Error, Result};
use sae_core::formats::SaeFormat;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tensor_kernels::Engine;

/// The hub of Hugging Face.
pub const HUGGING_FACE_ENDPOINT: &str = "https://huggingface.co";

/// Opens published things by name. Cheap to clone.
///
/// [`Hub::new`] knows no cache and reads no variable: it opens local paths and searches the table. [`from_env`](Self::from_env) is set up
/// as Python's tools are.
///
/// ```no_run
/// # fn main() -> pretrained::Result<()> {
/// let published = pretrained::Hub::from_env()?
///     .progress(|p| println!("{p:?}"))
///     .sae("gpt2-small-res-jb", "blocks.7.hook_resid_pre")?;
/// println!("{:?} at commit {:?}", published.entry, published.revision);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Hub {
    pub(crate) tables: Vec<Arc<Registry>>,
    pub(crate) cache: Option<Cache>,
    pub(crate) offline: bool,
    pub(crate) revision: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) endpoint: String,
    pub(crate) engine: Engine,
    pub(crate) format: Option<SaeFormat>,
    pub(crate) progress: Option<Arc<Told>>,
    pub(crate) retry: RetryPolicy,
    pub(crate) proxy_from_env: bool,
}

/// What is told of progress.
type Told = dyn Fn(&DownloadEvent<'_>) + Send + Sync;

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often something that brings nothing is tried.
    pub max_attempts: usize,
    /// The wait after the first failure; each later one is twice as long.
    pub initial_backoff: Duration,
    /// No wait is longer, whatever the server asks for in `Retry-After`.
    pub max_backoff: Duration,
    /// How long a connection may be silent.
    pub read_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            read_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// Without a cache, for the hub of Hugging Face, with the table of this crate.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: Vec::new(),
            cache: None,
            offline: false,
            revision: None,
            token: None,
            endpoint: HUGGING_FACE_ENDPOINT.into(),
            engine: Engine::default(),
            format: None,
            progress: None,
            retry: RetryPolicy::default(),
            proxy_from_env: false,
        }
    }

    /// As Python's tools are set up: the cache of [`Cache::from_env`]; the token in `HF_TOKEN`, else in the file `HF_TOKEN_PATH` or
    /// `HF_HOME/token`; `HF_ENDPOINT`; no downloads where `HF_HUB_OFFLINE` is `1`, `on`, `yes` or `true`; the usual variables of proxies.
    ///
    /// # Errors
    /// [`Error::NoCache`].
    pub fn from_env() -> Result<Self> {
        let mut new = Self::new().cache(Cache::from_env()?);
        let kept =
            variable("HF_TOKEN_PATH").map_or_else(|| home_from_env().map(|home| home.join("token")), |p| Ok(p.into()));
        new.token = variable("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(kept.ok()?).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            new = new.endpoint(endpoint);
        }
        let yes = |value: String| matches!(value.to_lowercase().as_str(), "1" | "on" | "yes" | "true");
        new.offline = variable("HF_HUB_OFFLINE").is_some_and(yes);
        new.proxy_from_env = true;
        Ok(new)
    }

    /// Keeps downloads here.
    #[must_use]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Uses what is in the cache and nothing else.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// A branch, tag or commit instead of `main`. A commit whose files are in the cache needs no request.
    #[must_use]
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Access token. Sent to the endpoint only, never to a host that it redirects to.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Another server that speaks the hub's protocol, [`HUGGING_FACE_ENDPOINT`] by default.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into().trim_end_matches('/').into();
        self
    }

    /// What SAEs are loaded for.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// The format, where it is known and the table does not say it.
    #[must_use]
    pub fn format(mut self, format: SaeFormat) -> Self {
        self.format = Some(format);
        self
    }

    /// Told of every piece that arrives and of every wait.
    #[must_use]
    pub fn progress(mut self, told: impl Fn(&DownloadEvent<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(told));
        self
    }

    /// How long to try.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// A table of one's own, which is asked before those given earlier and before the crate's.
    #[must_use]
    pub fn table(mut self, table: Registry) -> Self {
        self.tables.insert(0, Arc::new(table));
        self
    }

    /// The SAE's entry in the tables.
    ///
    /// # Errors
    /// [`Error::UnknownRelease`], [`Error::UnknownSae`].
    pub fn find(&self, release: &str, sae_id: &str) -> Result<Entry> {
        for table in &self.tables {
            match table.find(release, sae_id) {
                Err(Error::UnknownRelease { .. }) => {}
                found => return found,
            }
        }
        Registry::built_in().find(release, sae_id)
    }

    pub(crate) fn revision_or_main(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// A name that is no release: what it should have been.
    pub(crate) fn unknown(&self, name: &str) -> Error {
        let releases = Registry::built_in().releases();
        let names: Vec<String> =
            self.tables.iter().flat_map(|table| table.releases()).chain(releases).map(|r| r.name).collect();
        Error::UnknownName { name: name.into(), near: near(name, names.iter().map(String::as_str), 5) }
    }
}

/// Whether a name is meant as a local path, or could be nothing else.
pub(crate) fn is_local(name: &str) -> bool {
    Path::new(name).exists() || name.starts_with(['.', '/', '~']) || Path::new(name).is_absolute()
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pretrained")
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("revision", &self.revision)
            .field("token", &self.token.as_ref().map(|_| "(kept secret)"))
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
