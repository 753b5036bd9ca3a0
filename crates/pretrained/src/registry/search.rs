use super::suggest::model_key;
use super::{Entry, Registry};
use sae_core::formats::SaeFormat;
use std::cmp::Ordering;
use std::sync::Arc;

/// What is sought: everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// A model by any of its names (`gpt2` finds `gpt2-small`), or a part of one.
    pub model: Option<String>,
    /// A part of the name of a release.
    pub release: Option<String>,
    /// A part of the hook point, such as `resid_pre` or `blocks.7.hook_resid_pre`.
    pub hook: Option<String>,
    /// The layer.
    pub layer: Option<usize>,
    /// The number of features.
    pub d_sae: Option<usize>,
    /// The format.
    pub format: Option<SaeFormat>,
    /// Words that must each be part of release, name, hook point, model or repository, in any case of letters.
    pub words: Vec<String>,
}

impl Query {
    /// Words as a person types them. `layer 7` (or `layer7`, `layer=7`) is a layer; `model=`, `hook=`, `release=`, `width=` and `format=` name what
    /// they say; everything else must occur somewhere.
    ///
    /// # Errors
    /// [`sae_core::Error::Parameter`] for a format that is not known or a width that is no number.
    pub fn parse(text: &str) -> crate::Result<Self> {
        let mut query = Self::default();
        let mut words = text.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let lower = word.to_lowercase();
            if let Some(rest) = lower.strip_prefix("layer") {
                let number = rest.trim_start_matches(['=', '_', ':']);
                let next = words.peek().filter(|_| rest.is_empty()).and_then(|next| next.parse().ok());
                if let Some(layer) = next.or_else(|| number.parse().ok()) {
                    query.layer = Some(layer);
                    if next.is_some() {
                        words.next();
                    }
                    continue;
                }
            }
            match word.split_once('=') {
                Some(("model", value)) => query.model = Some(value.into()),
                Some(("hook", value)) => query.hook = Some(value.into()),
                Some(("release", value)) => query.release = Some(value.into()),
                Some(("format" | "dialect", value)) => query.format = Some(value.parse()?),
                Some(("width", value)) => query.d_sae = Some(width(value)?),
                _ => query.words.push(lower),
            }
        }
        Ok(query)
    }

    fn takes(&self, entry: &Entry) -> bool {
        let holds = |whole: &str, part: &str| whole.to_lowercase().contains(&part.to_lowercase());
        let hook = entry.hook.as_deref().unwrap_or_default();
        self.hook.as_ref().is_none_or(|part| hook_holds(hook, part))
            && self.layer.is_none_or(|layer| entry.layer() == Some(layer))
            && self.d_sae.is_none_or(|d_sae| entry.d_sae == Some(d_sae))
            && self.words.iter().all(|word| {
                [&entry.release.name, &entry.sae_id, hook, entry.model(), entry.repo()]
                    .iter()
                    .any(|whole| holds(whole, word))
                    || model_key(entry.model()) == model_key(word)
            })
    }
}

/// Whether a hook point has this part; a number at its edge must be whole, so that `blocks.1` is not part of `blocks.11`.
fn hook_holds(hook: &str, part: &str) -> bool {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    hook.match_indices(part).any(|(at, _)| {
        let (before, after) = (hook[..at].chars().next_back(), hook[at + part.len()..].chars().next());
        !(digit(before) && digit(part.chars().next()) || digit(after) && digit(part.chars().next_back()))
    })
}

/// `24576`, or `16k` for 16384 as names of published SAEs count.
fn width(text: &str) -> crate::Result<usize> {
    let lower = text.to_lowercase();
    let (digits, factor) = match (lower.strip_suffix('k'), lower.strip_suffix('m')) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (lower.as_str(), 1),
    };
    // Names round down: 65k is 65536, 131k is 131072.
    let exact = |n: usize| match n {
        65 | 131 | 262 | 524 if factor == 1 << 10 => (n - n % 64) << 10,
        _ => n * factor,
    };
    digits.parse().ok().filter(|n| *n < 1 << 30).map(exact).ok_or_else(|| {
        sae_core::Error::Parameter {
            name: "width",
            expected: "a number of features such as 24576 or 16k".into(),
            found: format!("`{text}`"),
        }
        .into()
    })
}

pub(super) fn search(registry: &Registry, query: &Query) -> Vec<Entry> {
    let mut found = Vec::new();
    for at in &registry.releases {
        let release = Arc::new(registry.release_at(at));
        let part = |whole: &str, part: &str| whole.to_lowercase().contains(&part.to_lowercase());
        if query.release.as_ref().is_some_and(|name| !part(&release.name, name))
            || query.format.is_some_and(|format| format != release.format)
            || query.model.as_ref().is_some_and(|model| !is_model(registry, &release.model, model))
        {
            continue;
        }
        found.extend(registry.lines_of(at).map(|line| Entry::read(&release, line)).filter(|entry| query.takes(entry)));
    }
    found.sort_by(|a, b| natural(&a.release.name, &b.release.name).then_with(|| natural(&a.sae_id, &b.sae_id)));
    found
}

/// A model that the table has under this name is meant alone; otherwise the name is a part of one.
fn is_model(registry: &Registry, model: &str, sought: &str) -> bool {
    let key = model_key(sought);
    let known = registry.releases.iter().any(|at| {
        let line = registry.line(at.line);
        line.split('\t').nth(4).is_some_and(|name| model_key(name) == key)
    });
    if known { model_key(model) == key } else { model.to_lowercase().contains(&sought.to_lowercase()) }
}

/// The order of names in which numbers count as numbers.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) {
        let (of_a, of_b) = (number(a), number(b));
        let order = if of_a.0.is_empty() || of_b.0.is_empty() {
            (a, b) = (rest_a, rest_b);
            x.cmp(y)
        } else {
            (a, b) = (of_a.1, of_b.1);
            let (x, y) = (trimmed(of_a.0), trimmed(of_b.0));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// The digits at the start of a text, and what follows them.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
    text.split_at_checked(digits).unwrap_or_default()
}

/// Digits without leading zeros, but for the last digit.
fn trimmed(mut digits: &[u8]) -> &[u8] {
    while let [b'0', rest @ ..] = digits
        && !rest.is_empty()
    {
        digits = rest;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_numbers() {
        let mut names = ["blocks.10.x", "blocks.2.x", "blocks.2", "a", "blocks.02.x", "layer_1/w_16k"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "blocks.2", "blocks.2.x", "blocks.02.x", "blocks.10.x", "layer_1/w_16k"]);
    }

    #[test]
    fn words_are_understood() {
        let query = Query::parse("gpt2 layer 7 hook=resid_pre width=16k format=saelens").unwrap();
        assert_eq!((query.layer, query.d_sae, query.format), (Some(7), Some(16384), Some(SaeFormat::SaeLens)));
        assert_eq!((query.words, query.hook.as_deref()), (vec!["gpt2".to_owned()], Some("resid_pre")));
        assert_eq!(Query::parse("layer7").unwrap().layer, Some(7));
        assert_eq!(Query::parse("layer_12").unwrap().layer, Some(12));
        assert_eq!(Query::parse("layer").unwrap().words, ["layer"]);
        for (text, expected) in [("65k", 65536), ("131k", 131072), ("262k", 262144), ("1m", 1 << 20), ("24576", 24576)]
        {
            assert_eq!(width(text).unwrap(), expected, "{text}");
        }
        assert!(Query::parse("width=wide").is_err());
        assert!(Query::parse("dialect=klingon").is_err());
    }

    #[test]
    fn a_part_of_a_hook_point_holds_whole_numbers() {
        assert!(hook_holds("blocks.1.hook_resid_pre", "blocks.1"));
        assert!(!hook_holds("blocks.11.hook_resid_pre", "blocks.1"));
        assert!(hook_holds("blocks.11.hook_resid_pre", "resid"));
    }
}
