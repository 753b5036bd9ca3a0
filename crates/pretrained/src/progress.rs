use std::time::Duration;

/// What a download tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownloadEvent<'a> {
    /// A piece of a file has arrived (the first report comes before the first piece).
    Bytes {
        /// The file, as the repository names it.
        file: &'a str,
        /// Which of the files it is, from 1.
        number: usize,
        /// How many files.
        of: usize,
        /// Bytes that are here, those of an earlier try included.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// Something failed and is tried again after a wait.
    Retrying {
        /// What was asked for.
        url: &'a str,
        /// What went wrong.
        reason: &'a str,
        /// How long.
        wait: Duration,
    },
}
