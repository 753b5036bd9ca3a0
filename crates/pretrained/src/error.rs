use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

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
    #[error(transparent)]
    Sae(#[from] sae_core::Error),
    /// The model's files could not be opened.
    #[error(transparent)]
    Model(#[from] model_hooks::Error),
}

fn or_near(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        _ => format!("; nearest: {}", near.join(", ")),
    }
}

fn what_it_has(held: Option<&str>, near: &[String], count: usize) -> String {
    match held {
        Some(held) => format!("; of its {count} SAEs, these layers exist: {held}"),
        None if near.is_empty() => format!("; it has {count} others"),
        None => or_near(near),
    }
}
