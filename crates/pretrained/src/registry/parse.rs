use super::{Registry, ReleaseAt};
use crate::{Error, Result, names};
use flate2::read::MultiGzDecoder;
use sae_core::formats::SaeFormat;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::io::Read;

const MAGIC: &str = "#saescope-registry";
/// Above this a table is refused; the largest known has 1.6 MB, 13 times its gzip file.
pub(super) const MOST_BYTES: u64 = 64 << 20;
/// What a small gzip file may unpack to in any case, and what each of its bytes may.
const UNPACKED_FREE: u64 = 1 << 20;
const UNPACKED_EACH: u64 = 40;
const OF_RELEASE: [&str; 7] = ["#>", "release", "repo", "dialect", "model", "saes", "config_overrides"];
const OF_SAE: [&str; 11] = [
    "#",
    "sae_id",
    "path",
    "hook",
    "hook_out",
    "d_in",
    "d_sae",
    "l0",
    "variance_explained",
    "norm_scaling_factor",
    "neuronpedia",
];

pub(super) fn read(bytes: &[u8]) -> Result<Registry> {
    let text = text(bytes)?;
    let mut table = Table::default();
    let mut start = 0;
    for (i, line) in text.split('\n').enumerate() {
        table.line(&text, i, start, line.strip_suffix('\r').unwrap_or(line))?;
        start += line.len() + 1;
    }
    table.complete(&text, text.lines().count())?;
    let (mut releases, mut lines) = (table.releases, table.lines);
    releases.shrink_to_fit();
    lines.shrink_to_fit();
    Ok(Registry { releases, lines, text })
}

fn wrong(line: usize, what: impl Into<String>) -> Error {
    Error::Table { line: line + 1, what: what.into() }
}

/// Unpacked if need be, in bounded memory.
fn text(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    let packed = bytes.starts_with(&[0x1f, 0x8b]);
    let most = if packed { MOST_BYTES.min(UNPACKED_FREE + UNPACKED_EACH * bytes.len() as u64) } else { MOST_BYTES };
    let read = match packed {
        true => MultiGzDecoder::new(bytes).take(most + 1).read_to_string(&mut text),
        false => bytes.take(most + 1).read_to_string(&mut text),
    };
    match read {
        Ok(length) if length as u64 > most => Err(wrong(0, format!("more than {most} bytes of text"))),
        Ok(_) => {
            text.shrink_to_fit();
            Ok(text)
        }
        Err(error) => Err(wrong(text.lines().count(), format!("not readable as UTF-8 text, gzipped or not: {error}"))),
    }
}

#[derive(Default)]
struct Table {
    releases: Vec<ReleaseAt>,
    lines: Vec<u32>,
    names: HashSet<String>,
    /// Its name, how many SAEs it announced, and where.
    open: Option<(String, usize, usize)>,
}

impl Table {
    fn line(&mut self, text: &str, i: usize, start: usize, line: &str) -> Result<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.first().copied().unwrap_or_default() {
            _ if i == 0 => first(&fields),
            "" if fields.len() == 1 => Ok(()),
            "#>" if fields == OF_RELEASE => Ok(()),
            "#" if fields == OF_SAE => Ok(()),
            "#>" | "#" => Err(wrong(i, "names other columns than format 1 has")),
            comment if comment.starts_with('#') => Ok(()),
            ">" => self.release(text, i, start, &fields),
            _ => self.sae(i, start, &fields),
        }
    }

    fn release(&mut self, text: &str, i: usize, start: usize, fields: &[&str]) -> Result<()> {
        self.complete(text, i)?;
        let &[_, name, repo, format, model, saes, ref overrides @ ..] = fields else {
            return Err(wrong(i, format!("{} fields, expected 6 or 7 of a release", fields.len())));
        };
        if name.is_empty() || model.is_empty() || overrides.len() > 1 {
            return Err(wrong(i, "expected `>`, release, repo, dialect, model, saes and perhaps config_overrides"));
        }
        names::repo(repo).map_err(|error| wrong(i, error.to_string()))?;
        format.parse::<SaeFormat>().map_err(|error| wrong(i, error.to_string()))?;
        let count = saes.parse().map_err(|_| wrong(i, format!("saes is `{saes}`, expected a number")))?;
        if let Some(json) = overrides.first().filter(|json| !json.is_empty()) {
            serde_json::from_str::<Map<String, Value>>(json)
                .map_err(|error| wrong(i, format!("config_overrides is not a JSON object: {error}")))?;
        }
        if !self.names.insert(name.into()) {
            return Err(wrong(i, format!("release `{name}` is there twice")));
        }
        self.open = Some((name.into(), count, i));
        self.releases.push(ReleaseAt { line: start as u32, first: self.lines.len() as u32, count: 0 });
        Ok(())
    }

    fn sae(&mut self, i: usize, start: usize, fields: &[&str]) -> Result<()> {
        let Some(release) = self.releases.last_mut() else {
            return Err(wrong(i, "an SAE before the first release"));
        };
        if fields.len() > OF_SAE.len() - 1 {
            return Err(wrong(i, format!("{} fields, at most {} are known", fields.len(), OF_SAE.len() - 1)));
        }
        let id = fields.first().copied().unwrap_or_default();
        let path = fields.get(1).copied().unwrap_or("=");
        if id.is_empty() || path.is_empty() {
            return Err(wrong(i, "an empty sae_id or path"));
        }
        names::file(if path == "=" { id } else { path }).map_err(|error| wrong(i, error.to_string()))?;
        for (name, text) in OF_SAE.iter().skip(1).zip(fields).filter(|(_, text)| !text.is_empty()) {
            let good = match *name {
                "d_in" | "d_sae" => text.parse::<usize>().is_ok_and(|n| n > 0 && n < 1 << 32),
                "l0" => text.parse::<f64>().is_ok_and(|x| x.is_finite() && x >= 0.0),
                "variance_explained" => text.parse::<f64>().is_ok_and(f64::is_finite),
                "norm_scaling_factor" => text.parse::<f32>().is_ok_and(|x| x.is_finite() && x > 0.0),
                _ => true,
            };
            if !good {
                return Err(wrong(i, format!("{name} is `{text}`, expected a number that can be one")));
            }
        }
        release.count += 1;
        self.lines.push(start as u32);
        Ok(())
    }

    /// The release that was being read has as many SAEs as it announced, each once.
    fn complete(&mut self, text: &str, i: usize) -> Result<()> {
        let (Some((name, announced, at)), Some(release)) = (self.open.take(), self.releases.last()) else {
            return if i > 0 { Ok(()) } else { Err(wrong(0, "empty")) };
        };
        let lines = self.lines.get(release.first as usize..).unwrap_or_default();
        if let Some((id, start)) = twice(text, lines) {
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            return Err(wrong(line, format!("SAE `{id}` is in its release twice")));
        }
        if release.count as usize == announced {
            return Ok(());
        }
        Err(wrong(at, format!("release `{name}` announces {announced} SAEs, {} lines follow", release.count)))
    }
}

/// A name that two lines have, and where the later of them starts. Sorted, because a set of short names takes many times their bytes.
fn twice<'a>(text: &'a str, lines: &[u32]) -> Option<(&'a str, usize)> {
    let name = |start: u32| {
        let rest = text.get(start as usize..).unwrap_or_default();
        rest.split(['\t', '\r', '\n']).next().unwrap_or_default()
    };
    let mut sorted = lines.to_vec();
    sorted.sort_unstable_by(|a, b| name(*a).cmp(name(*b)).then(a.cmp(b)));
    let mut pairs = sorted.array_windows();
    let [_, later] = pairs.find(|[one, other]| name(*one) == name(*other))?;
    Some((name(*later), *later as usize))
}

fn first(fields: &[&str]) -> Result<()> {
    match fields {
        [MAGIC, "1", ..] => Ok(()),
        [MAGIC, other, ..] => Err(wrong(0, format!("format `{other}`, this version reads format 1"))),
        _ => Err(wrong(0, format!("does not begin with `{MAGIC}` and the format's number"))),
    }
}
