//! Published SAEs: search the table, look at a release, bring files here.
//!
//! ```sh
//! cargo run --release --example pretrained -- search gpt2 layer 7
//! cargo run --release --example pretrained -- show gpt2-small-res-jb
//! cargo run --release --example pretrained -- show gpt2-small-res-jb blocks.7.hook_resid_pre
//! cargo run --release --example pretrained -- fetch gpt2-small-res-jb blocks.7.hook_resid_pre
//! cargo run --release --example pretrained -- fetch-model gpt2
//! ```

mod common;

use clap::{Args, Parser, Subcommand};
use common::Outcome;
use common::out::{print_line, print_note};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use saescope::pretrained::{CAN_DOWNLOAD, Cache, DownloadEvent, Entry, Hub, Query, Registry};
use saescope::sae_core::SparseCoder;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

#[derive(Parser)]
#[command(about = "Published SAEs by name: search, show, fetch")]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// SAEs in which every word occurs; `layer 7`, model=, hook=, release=, width= and format= are understood
    Search {
        /// Words such as: gpt2 layer 7 hook=resid_pre width=24k
        words: Vec<String>,
        /// Show at most so many
        #[arg(long, default_value_t = 40)]
        most: usize,
    },
    /// A release, or one SAE of it
    Show {
        /// Release of the table
        release: String,
        /// Its name there
        sae_id: Option<String>,
    },
    /// Bring an SAE here and open it
    Fetch {
        /// Release of the table, repository OWNER/NAME or local folder
        release: String,
        /// SAE of the release, or a folder or file in the repository
        #[arg(default_value = "")]
        sae_id: String,
        #[command(flatten)]
        from: From,
    },
    /// Bring a model here
    FetchModel {
        /// Name such as gpt2, or repository OWNER/NAME
        name: String,
        #[command(flatten)]
        from: From,
    },
}

#[derive(Args)]
struct From {
    /// Folder of downloads [default: that of Python's tools: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Use what is in the cache and nothing else
    #[arg(long)]
    offline: bool,
    /// Branch, tag or commit [default: main]
    #[arg(long)]
    revision: Option<String>,
}

impl From {
    fn pretrained(self) -> Outcome<Hub> {
        let mut from = Hub::from_env()?.progress(shown());
        if let Some(cache) = self.cache {
            from = from.cache(Cache::new(cache));
        }
        if let Some(revision) = self.revision {
            from = from.revision(revision);
        }
        Ok(if self.offline { from.offline(true) } else { from })
    }
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(Flags::parse().command))
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Search { words, most } => search(&words.join(" "), most),
        Command::Show { release, sae_id: None } => show_release(&release),
        Command::Show { release, sae_id: Some(sae_id) } => {
            show(&Registry::built_in().find(&release, &sae_id)?);
            Ok(())
        }
        Command::Fetch { release, sae_id, from } => fetch(&release, &sae_id, &from.pretrained()?),
        Command::FetchModel { name, from } => {
            let model = from.pretrained()?.model(&name)?;
            print_line(format_args!(
                "{} at {}",
                model.path.display(),
                model.revision.as_deref().unwrap_or("a local path")
            ));
            Ok(())
        }
    }
}

fn search(text: &str, most: usize) -> Outcome {
    let found = Registry::built_in().search(&Query::parse(text)?);
    if found.is_empty() {
        print_line(format_args!("nothing has all of: {text}"));
        // A mistyped name of a release is the likeliest reason.
        if let Some(Err(error)) = text.split_whitespace().next().map(|word| Registry::built_in().release(word)) {
            print_line(error);
        }
        return Ok(());
    }
    table(&found[..found.len().min(most)], true);
    if found.len() > most {
        print_line(format_args!(
            "... and {} more of {} (--most N shows more; more words show fewer)",
            found.len() - most,
            found.len()
        ));
    }
    Ok(())
}

fn show_release(name: &str) -> Outcome {
    let registry = Registry::built_in();
    let release = registry.release(name)?;
    print_line(format_args!(
        "{}: {} SAEs of {}, https://huggingface.co/{}",
        release.name, release.saes, release.model, release.repo
    ));
    print_line(format_args!("files: {}", release.format));
    for (key, value) in &release.config_overrides {
        print_line(format_args!("put over the files' configuration: {key} = {value}"));
    }
    print_line("");
    table(
        &registry
            .search(&Query { release: Some(name.into()), ..Query::default() })
            .into_iter()
            .filter(|entry| entry.release.name == name)
            .collect::<Vec<_>>(),
        false,
    );
    Ok(())
}

/// One line per SAE, columns as wide as they need be; columns in which nothing is known are left out.
fn table(entries: &[Entry], with_release: bool) {
    let dash = || "–".to_owned();
    let mut columns: Vec<(&str, bool, Vec<String>)> = Vec::new();
    let mut column = |name, right, cells: Vec<String>| {
        if cells.iter().any(|cell| *cell != dash()) {
            columns.push((name, right, cells));
        }
    };
    let each = |cell: &dyn Fn(&Entry) -> Option<String>| -> Vec<String> {
        entries.iter().map(|entry| cell(entry).unwrap_or_else(dash)).collect()
    };
    if with_release {
        column("release", false, each(&|e| Some(e.release.name.clone())));
    }
    column("SAE", false, each(&|e| Some(e.sae_id.clone())));
    if with_release {
        column("model", false, each(&|e| Some(e.model().into())));
    }
    column("hook", false, each(&|e| e.hook.clone().filter(|hook| *hook != e.sae_id)));
    column("features", true, each(&|e| e.d_sae.map(|n| n.to_string())));
    column("L0", true, each(&|e| e.l0.map(|l0| format!("{l0:.0}"))));
    column("explained", true, each(&|e| e.variance_explained.map(|share| format!("{:.1}%", 100.0 * share))));
    let widths: Vec<usize> = columns
        .iter()
        .map(|(name, _, cells)| {
            cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0).max(name.chars().count())
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).zip(&columns).map(|((cell, width), (_, right, _))| {
            if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        print_line(format_args!("{}", padded.collect::<Vec<_>>().join("  ").trim_end()));
    };
    line(columns.iter().map(|(name, ..)| *name).collect());
    print_line(format_args!("{}", widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("  ")));
    for row in 0..entries.len() {
        line(columns.iter().map(|(_, _, cells)| cells[row].as_str()).collect());
    }
}

fn show(entry: &Entry) {
    let line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            print_line(format_args!("{name:<29} {value}"));
        }
    };
    line("release", Some(entry.release.name.clone()));
    line("SAE", Some(entry.sae_id.clone()));
    line("model", Some(entry.model().into()));
    line("hook", entry.hook.clone());
    line("writes at", entry.hook_out.clone());
    line("width of its input", entry.d_in.map(|n| n.to_string()));
    line("features", entry.d_sae.map(|n| n.to_string()));
    line("expected L0", entry.l0.map(|x| x.to_string()));
    line("expected explained", entry.variance_explained.map(|x| format!("{:.1}% of the variance", 100.0 * x)));
    line("scaled inputs by", entry.norm_scaling_factor.map(|x| x.to_string()));
    line("files", Some(format!("https://huggingface.co/{}, {}", entry.repo(), entry.path)));
    line("format", Some(entry.format().to_string()));
    line("Neuronpedia", entry.neuronpedia.as_ref().map(|id| format!("https://neuronpedia.org/{id}")));
    for (key, value) in &entry.release.config_overrides {
        line(key, Some(value.to_string()));
    }
}

fn fetch(release: &str, sae_id: &str, from: &Hub) -> Outcome {
    if !CAN_DOWNLOAD {
        print_note("this build does not download (feature `hub` is off); the cache is used");
    }
    let fetched = from.fetch_sae(release, sae_id)?;
    for file in &fetched.files {
        print_line(format_args!("{} ({})", file.display(), HumanBytes(std::fs::metadata(file)?.len())));
    }
    let published = fetched.open()?;
    if let Some(commit) = &published.revision {
        print_line(format_args!("commit {commit}"));
    }
    let sae = &published.dictionary;
    let hook = sae.metadata().hook_name.as_deref().unwrap_or("a hook point that is not named");
    print_line(format_args!("opened: {} -> {} features at {hook}", sae.d_in(), sae.d_sae()));
    Ok(())
}

/// A bar for each file, and a line for each wait, on standard error.
fn shown() -> impl Fn(&DownloadEvent<'_>) + Send + Sync {
    let style = ProgressStyle::with_template(
        "{prefix} {percent:>3}%|{bar:30}| {bytes} of {total_bytes} [{bytes_per_sec}, {eta}] {msg}",
    );
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let current = Mutex::new(None::<(String, ProgressBar)>);
    move |progress| match progress {
        DownloadEvent::Bytes { file, number, of, done, total } => {
            let mut current = current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if current.as_ref().is_none_or(|(name, _)| name != file) {
                let bar = ProgressBar::new(*total).with_style(style.clone()).with_prefix(format!("[{number}/{of}]"));
                bar.set_message(file.rsplit('/').next().unwrap_or(file).to_owned());
                *current = Some(((*file).to_owned(), bar));
            }
            if let Some((_, bar)) = current.as_ref() {
                bar.set_position(*done);
                if done == total {
                    bar.finish();
                }
            }
        }
        DownloadEvent::Retrying { reason, wait, .. } => print_note(format_args!("{reason}; again in {:.0?}", wait)),
        _ => {}
    }
}
