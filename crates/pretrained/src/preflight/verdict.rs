use super::{Finding, Measurements, Severity};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What a preflight found: the worst level of its reasons, and the reasons, worst first.
///
/// `Display` is a line, and one more for each warning and failure; `{:#}` shows the notes as well.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PreflightReport {
    /// Pass, Warn or Fail; a note does not make a pass worse.
    pub level: Severity,
    /// The findings, worst first.
    pub reasons: Vec<Finding>,
    /// What was measured, if it came to that.
    pub measured: Option<Measurements>,
    /// How long it took.
    pub seconds: f64,
}

impl PreflightReport {
    pub(super) fn new(mut reasons: Vec<Finding>, measured: Option<Measurements>, took: Duration) -> Self {
        // A check that failed has nothing to add as a warning.
        let failed: Vec<_> = reasons.iter().filter(|r| r.level == Severity::Fail).map(|r| r.check).collect();
        reasons.retain(|r| r.level == Severity::Fail || !failed.contains(&r.check));
        reasons.sort_by_key(|reason| (std::cmp::Reverse(reason.level), reason.check));
        let worst = reasons.first().map_or(Severity::Pass, |reason| reason.level);
        let level = if worst == Severity::Note { Severity::Pass } else { worst };
        Self { level, reasons, measured, seconds: took.as_secs_f64() }
    }

    /// Nothing is in the way.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        self.level == Severity::Pass
    }

    /// The results would not be those of this SAE.
    #[must_use]
    pub fn is_fail(&self) -> bool {
        self.level == Severity::Fail
    }

    /// The findings of one check.
    pub fn of(&self, check: super::Check) -> impl Iterator<Item = &Finding> {
        self.reasons.iter().filter(move |reason| reason.check == check)
    }

    /// As JSON: `level`, `reasons`, `measured`, `seconds`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl fmt::Display for PreflightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "preflight {}", self.level)?;
        match &self.measured {
            Some(m) => write!(
                f,
                ": {} tokens, L0 {:.1}, variance explained {:.3}, cosine {:.3} ({:.1} s)",
                m.tokens, m.l0, m.variance_explained, m.cosine, self.seconds
            )?,
            None => write!(f, ": nothing measured ({:.1} s)", self.seconds)?,
        }
        let shown = |reason: &&Finding| f.alternate() || reason.level > Severity::Note;
        self.reasons
            .iter()
            .filter(shown)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|reason| write!(f, "\n  {reason}"))
    }
}
