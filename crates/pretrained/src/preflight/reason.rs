use serde::Serialize;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing was found.
    Pass,
    /// Worth knowing; the verdict stays as it is.
    Note,
    /// May be meant, may be wrong: look before going on.
    Warn,
    /// The results would not be those of this SAE.
    Fail,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

macro_rules! checks {
    ($($(#[$doc:meta])* $check:ident $name:literal $measured:literal;)+) => {
        /// What was checked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Check { $($(#[$doc])* $check,)+ }

        impl Check {
            /// All of them, in the order of the enum.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$check),+];

            /// In words.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$check => $name,)+ }
            }

            /// Whether it needs activations.
            #[must_use]
            pub fn is_measured(self) -> bool {
                match self { $(Self::$check => $measured,)+ }
            }
        }
    };
}

checks! {
    /// The model's name against the one in the metadata.
    ModelName "model name" false;
    /// The hook point is one of the model's.
    Hook "hook point" false;
    /// The single head is one of the hook point's.
    Head "head" false;
    /// The width of the hook point against `d_in` (and that of a transcoder's output against `d_out`).
    Width "width" false;
    /// The hook point that a transcoder writes.
    OutputHook "output hook point" false;
    /// The processing of the model's weights against `model_from_pretrained_kwargs`.
    Processing "weight processing" false;
    /// The precision of the model against what the activation function bears.
    Precision "precision" false;
    /// The first tokens of rows against `prepend_bos`.
    Bos "BOS" false;
    /// The length of rows against `context_size` and `n_ctx`.
    Context "context size" false;
    /// The positions of `seqpos_slice`.
    Positions "positions" false;
    /// Token ids against the vocabulary.
    Vocabulary "token ids" false;
    /// Whether each feature's decoder row looks along its encoder column.
    DecoderAlignment "decoder against encoder" false;
    /// Activations and codes are finite.
    Finite "finite values" true;
    /// The residual's mean over `d_model` against what the SAE expects.
    Centering "centering" true;
    /// The mean norm against `sqrt(d_in)`, of SAEs that expect it.
    Norm "norm of the input" true;
    /// Features that fire on a token.
    L0 "L0" true;
    /// Share of the variance that the reconstruction keeps.
    VarianceExplained "variance explained" true;
    /// Length of the reconstruction: the factor that would bring it nearest to the input.
    Scale "scale of the reconstruction" true;
    /// `b_dec` against the mean activation.
    MeanActivation "b_dec against the mean" true;
    /// Share of features that never fire.
    Dead "silent features" true;
    /// How often features fire, against their frequencies in training.
    Frequencies "frequencies of features" true;
    /// The model's loss on the tokens against that on the same tokens shuffled.
    Text "tokens as text" true;
    /// A change of the input under which the SAE does much better: the cause, found by trying.
    Remedy "what would help" true;
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Severity,
    /// What was checked.
    pub check: Check,
    /// What should have been found.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to change, in one sentence.
    pub change: String,
}

impl Finding {
    pub(super) fn new(
        level: Severity,
        check: Check,
        expected: impl Into<String>,
        found: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self { level, check, expected: expected.into(), found: found.into(), change: change.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4}  {}: {}; expected {}. {}", self.level, self.check, self.found, self.expected, self.change)
    }
}
