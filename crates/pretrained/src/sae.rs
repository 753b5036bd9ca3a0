//! SAEs by name.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use crate::cache::Kind;
use crate::hub_client::is_local;
use crate::session::Session;
use crate::{Entry, Error, Hub, Registry, Result, names};
use sae_core::Dictionary;
use sae_core::LoadOptions;
use sae_core::formats::{self, HubPath, OpenOptions, RequiredFiles, SaeFormat};
use std::path::{Path, PathBuf};

/// A published SAE, opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PretrainedSae {
    /// The SAE.
    pub dictionary: Dictionary,
    /// What the table says of it, if it came from the table.
    pub entry: Option<Entry>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// The commit of its repository; `None` for a local path.
    pub revision: Option<String>,
}

/// As [`PretrainedSae`], on disk and not opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadedSae {
    /// What [`sae_core::formats::open`] takes.
    pub path: PathBuf,
    /// How it takes it.
    pub options: OpenOptions,
    /// What the table says of it, if it came from the table.
    pub entry: Option<Entry>,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// The commit of its repository; `None` for a local path.
    pub revision: Option<String>,
}

impl Hub {
    /// Opens an SAE: a release of the table and its name there, or a repository `owner/name` of the hub and a folder or file in it, or a
    /// local folder and a folder or file in it (`""` for itself).
    ///
    /// A repository's folder or file that the table lists is opened as the table says, by whichever way it is named: the repository's and
    /// its own name, or the local path of its snapshot in a cache. Only the table has the norm factor of some.
    ///
    /// # Errors
    /// [`Error::UnknownSae`], [`Error::UnknownName`] with names that are like it, everything that a download can meet, and [`Error::Sae`].
    pub fn sae(&self, release: &str, sae_id: &str) -> Result<PretrainedSae> {
        self.fetch_sae(release, sae_id)?.open()
    }

    /// Brings the files of an SAE here, as [`sae`](Self::sae) would, without opening it.
    ///
    /// # Errors
    /// As [`sae`](Self::sae).
    pub fn fetch_sae(&self, release: &str, sae_id: &str) -> Result<DownloadedSae> {
        let load = LoadOptions { engine: self.engine, ..LoadOptions::default() };
        match self.find(release, sae_id) {
            Ok(entry) => self.of_the_table(entry, load),
            Err(Error::UnknownRelease { .. }) if is_local(release) => {
                let path = match sae_id {
                    "" => Path::new(release).to_path_buf(),
                    _ => Path::new(release).join(sae_id),
                };
                if let Some(entry) = in_a_cache(&path).and_then(|(repo, inside)| self.listed(&repo, &inside)) {
                    let options = OpenOptions { load, ..entry.open_options() };
                    return Ok(DownloadedSae { path, options, entry: Some(entry), files: Vec::new(), revision: None });
                }
                let options = OpenOptions { format: self.format, load, ..OpenOptions::default() };
                Ok(DownloadedSae { path, options, entry: None, files: Vec::new(), revision: None })
            }
            Err(Error::UnknownRelease { .. }) if release.contains('/') => self.of_a_repository(release, sae_id, load),
            Err(Error::UnknownRelease { .. }) => Err(self.unknown(release)),
            Err(error) => Err(error),
        }
    }

    fn of_the_table(&self, entry: Entry, load: LoadOptions) -> Result<DownloadedSae> {
        let files = entry.format().files(&entry.path)?;
        let session = self.session(entry.repo(), &files)?;
        let paths = session.get(&files.required, &files.optional)?;
        let mut options = OpenOptions { load, ..entry.open_options() };
        // One folder with all layers: the table's path is the number of the layer.
        let path = match (entry.format(), entry.path.parse()) {
            (SaeFormat::Clt | SaeFormat::Slt, Ok(layer)) => {
                options.layer = Some(layer);
                session.folder()?
            }
            _ => session.folder()?.join(&entry.path),
        };
        Ok(DownloadedSae { path, options, entry: Some(entry), files: paths, revision: Some(session.commit) })
    }

    fn of_a_repository(&self, repo: &str, path: &str, load: LoadOptions) -> Result<DownloadedSae> {
        let path = path.trim_matches('/');
        if !path.is_empty() {
            names::file(path)?;
        }
        if let Some(entry) = self.listed(repo, path) {
            return self.of_the_table(entry, load);
        }
        let session = match self.format {
            Some(format) => self.session(repo, &format.files(path)?)?,
            None => Session::open(self, Kind::Model, repo, self.revision_or_main())?,
        };
        let files = match self.format {
            Some(format) => format.files(path)?,
            None => files_of_any(&session, repo, path)?,
        };
        let paths = session.get(&files.required, &files.optional)?;
        let origin = Some(HubPath { repo: repo.into(), path: path.into() });
        let options = OpenOptions { format: self.format, origin, load, ..OpenOptions::default() };
        let at = session.folder()?;
        let at = if path.is_empty() { at } else { at.join(path) };
        Ok(DownloadedSae { path: at, options, entry: None, files: paths, revision: Some(session.commit) })
    }

    /// The table's entry of a folder or file, unless another format was asked for.
    fn listed(&self, repo: &str, path: &str) -> Option<Entry> {
        let own = self.tables.iter().find_map(|table| table.find_path(repo, path));
        let entry = own.or_else(|| Registry::built_in().find_path(repo, path))?;
        self.format.is_none_or(|format| format == entry.format()).then_some(entry)
    }

    fn session(&self, repo: &str, files: &RequiredFiles) -> Result<Session<'_>> {
        let revision = self.revision_or_main();
        match Session::pinned(self, Kind::Model, repo, revision, &files.required, &files.optional)? {
            Some(session) => Ok(session),
            None => Session::open(self, Kind::Model, repo, revision),
        }
    }
}

impl DownloadedSae {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Sae`].
    pub fn open(self) -> Result<PretrainedSae> {
        let dictionary = formats::open(&self.path, &self.options)?;
        Ok(PretrainedSae { dictionary, entry: self.entry, files: self.files, revision: self.revision })
    }
}

/// Repository and path in it of a file in a cache of Python's layout: `models--OWNER--NAME/snapshots/COMMIT/PATH`.
fn in_a_cache(path: &Path) -> Option<(String, String)> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    let at = parts.iter().rposition(|part| *part == "snapshots")?;
    let (owner, name) = parts.get(at.checked_sub(1)?)?.strip_prefix("models--")?.split_once("--")?;
    let inside = parts.get(at + 2..).filter(|inside| !inside.is_empty())?;
    Some((format!("{owner}/{name}"), inside.join("/")))
}

/// The files of every format that a folder could be in; which one it is, the files will tell.
fn files_of_any(session: &Session<'_>, repo: &str, path: &str) -> Result<RequiredFiles> {
    let mut all = RequiredFiles::default();
    for files in SaeFormat::ALL.iter().filter_map(|format| format.files(path).ok()) {
        let trimmed = |names: Vec<String>| names.into_iter().map(|name| name.trim_start_matches('/').to_owned());
        let required: Vec<String> = trimmed(files.required).collect();
        if required.is_empty() || !required.iter().all(|file| session.has(file)) {
            continue;
        }
        all.required.extend(required);
        all.optional.extend(trimmed(files.optional));
    }
    all.required.sort();
    all.required.dedup();
    all.optional.sort();
    all.optional.dedup();
    match all.required.is_empty() {
        false => Ok(all),
        true => {
            Err(Error::NoSae { repo: repo.into(), path: path.into(), folders: folders_of_saes(session.files(), path) })
        }
    }
}

/// Folders of a repository in which files lie that could be an SAE's, those like `path` first.
fn folders_of_saes(files: &[String], path: &str) -> Vec<String> {
    let weights = [".safetensors", ".npz", ".pt", ".pth"];
    let mut folders: Vec<&str> = files
        .iter()
        .filter(|file| weights.iter().any(|ending| file.ends_with(ending)))
        .map(|file| file.rsplit_once('/').map_or(".", |(folder, _)| folder))
        .collect();
    folders.dedup();
    let near = crate::registry::near(path, folders.iter().copied(), 5);
    if near.is_empty() { folders.iter().take(5).map(|&folder| folder.into()).collect() } else { near }
}
