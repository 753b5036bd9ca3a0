use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`], unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a name and an opened SAE, model or text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A table of releases that is not in the format of `data/README.md`.
    #[error("table of releases, line {line}: {what}")]
    Table {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A release that the table does not have.
    #[error("no release is called `{name}`{}", or_near(.near))]
    UnknownRelease {
        /// The name that was asked for.
        name: String,
        /// Names like it, best first.
        near: Vec<String>,
    },
    /// An SAE that its release does not have.
    #[error("release `{release}` has no `{sae_id}`{}", what_it_has(.held.as_deref(), .near, *.count))]
    UnknownSae {
        /// The release.
        release: String,
        /// The name that was asked for.
        sae_id: String,
        /// How many it has.
        count: usize,
        /// The same name with the layers that exist, `blocks.{0..11}.hook_resid_pre`.
        held: Option<String>,
        /// Names like it, best first.
        near: Vec<String>,
    },
    /// A name that is neither a release, nor a repository, nor a local path.
    #[error(
        "`{name}` is no release of the table, no repository `owner/name` and no folder or file here{}",
        or_near(.near)
    )]
    UnknownName {
        /// The name.
        name: String,
        /// Releases that are called something like it.
        near: Vec<String>,
    },
    /// A name that could lead out of the place that it belongs to.
    #[error("{what} `{name}` is refused: {reason}")]
    UnsafeName {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// Something must be fetched or looked for, and no folder was given to keep it in.
    #[error("no cache folder: `Hub::from_env` takes that of Python's tools, `Hub::cache` any other")]
    NoCache,
    /// It is not in the cache, and the hub is not asked.
    #[error("{what} is not in the cache {cache}, and {reason}")]
    NotInCache {
        /// What was asked for.
        what: String,
        /// The cache.
        cache: PathBuf,
        /// Why the hub is not asked.
        reason: &'static str,
    },
    /// A repository without such a file.
    #[error("repository `{repo}` at {commit} has no file `{file}`{}", or_near(.near))]
    NoSuchFile {
        /// The repository.
        repo: String,
        /// The commit.
        commit: String,
        /// The file that was asked for.
        file: String,
        /// Files that are called something like it.
        near: Vec<String>,
    },
    /// A folder of a repository that holds no SAE of a format that can be read.
    #[error("`{path}` of repository `{repo}` holds no SAE in a format that can be read{}", or_near(.folders))]
    NoSae {
        /// The repository.
        repo: String,
        /// The folder or file.
        path: String,
        /// Folders that hold weights.
        folders: Vec<String>,
    },
    /// A model's repository without weights that can be read.
    #[error("repository `{repo}` has none of model.safetensors, pytorch_model.bin and their indexes (.index.json)")]
    NoWeights {
        /// The repository.
        repo: String,
    },
    /// An index of shards that cannot be one.
    #[error("{path}: not an index of shards: {reason}")]
    BadIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A data set without files that can be read.
    #[error("data set `{name}` has no .parquet, .jsonl or .txt files that were asked for; it has {}", listed(.held))]
    NoText {
        /// The data set.
        name: String,
        /// Some of what it has.
        held: Vec<String>,
    },
    /// A repository that does not exist, or that is not shown.
    #[error(
        "the hub has no repository `{repo}`, or it is private{}{}",
        if *.with_token { " and the token's account may not see it" } else { " and no token was given" }, or_near(.near)
    )]
    NoSuchRepository {
        /// The repository.
        repo: String,
        /// Whether a token was sent.
        with_token: bool,
        /// Repositories of the table that are called something like it.
        near: Vec<String>,
    },
    /// A branch, tag or commit that the repository does not have.
    #[error("repository `{repo}` has no revision `{revision}`")]
    NoSuchRevision {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// The hub refuses a repository.
    #[error("the hub does not give `{repo}` (status {status}): {reason}")]
    Denied {
        /// The repository.
        repo: String,
        /// The status.
        status: u16,
        /// What it means, and what can be done.
        reason: &'static str,
    },
    /// A status that is not explained by anything else, after all tries.
    #[error("{url}: status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// Nobody answers, or the connection breaks, after all tries.
    #[error("{url}: cannot be reached: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// An answer that cannot be right: nothing of it is kept.
    #[error("{url}: the server answered with {what}")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The SAE's files could not be opened, or hold something else than they should.
    #[error("{0}")]
    Sae(#[source] Box<sae_core::Error>),
    /// The model's files could not be opened.
    #[error("{0}")]
    Model(#[source] Box<model_hooks::Error>),
}

impl From<sae_core::Error> for Error {
    fn from(error: sae_core::Error) -> Self {
        Self::Sae(Box::new(error))
    }
}

impl From<model_hooks::Error> for Error {
    fn from(error: model_hooks::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

fn or_near(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        _ => format!("; nearest: {}", near.join(", ")),
    }
}

fn listed(held: &[String]) -> String {
    if held.is_empty() { "nothing".into() } else { held.join(", ") }
}

fn what_it_has(held: Option<&str>, near: &[String], count: usize) -> String {
    match held {
        Some(held) => format!("; of its {count} SAEs, these layers exist: {held}"),
        None if near.is_empty() => format!("; it has {count} others"),
        None => or_near(near),
    }
}
