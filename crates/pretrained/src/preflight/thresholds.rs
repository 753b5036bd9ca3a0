use std::fmt;

macro_rules! thresholds {
    ($(#[doc = $doc:literal] $name:ident $value:literal $source:literal;)+) => {
        /// The limits of the measured checks, each with its default's source ([`Thresholds::table`]; also in `docs/preflight.md`).
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Thresholds { $(#[doc = $doc] pub $name: f64,)+ }

        impl Default for Thresholds {
            fn default() -> Self {
                Self { $($name: $value,)+ }
            }
        }

        impl Thresholds {
            /// Every limit: its name, its value, what it rests on.
            #[must_use]
            pub fn table(&self) -> Vec<Threshold> {
                vec![$(Threshold {
                    name: stringify!($name),
                    meaning: $doc.trim(),
                    value: self.$name,
                    source: $source,
                },)+]
            }
        }
    };
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Its field.
    pub name: &'static str,
    /// What is held against it.
    pub meaning: &'static str,
    /// Where it lies.
    pub value: f64,
    /// What it rests on.
    pub source: &'static str,
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {} ({})", self.name, self.value, self.meaning, self.source)
    }
}

thresholds! {
    /// mean cosine of encoder columns and decoder rows, at least
    alignment 0.1 "SAEs start with the decoder as the encoder's transpose and keep near it; columns that do not belong have 0 +- 1/sqrt(d_in)";
    /// share of a row's length along its mean, of a centered residual stream, at most
    centered 0.001 "centering in f32 leaves rounding, 1e-8 here; un-centered streams of the demo's model have 5e-3";
    /// mean norm over sqrt(d_in), of SAEs that expect 1: outside `1/f .. f` fails
    norm_factor 1.25 "the factor is estimated over 1000 batches in SAELens: it does not err by a quarter on other text";
    /// L0 over the expected one: outside `1/f .. f` fails
    l0_fails 2.5 "right pairings below: 0.75 to 1.25; a TopK or JumpReLU taken for a ReLU: 2.6 and more";
    /// L0 over the expected one: outside `1/f .. f` warns
    l0_warns 1.6 "as above";
    /// L0 over d_sae where nothing is expected: above, it fails
    density 0.5 "an untrained or broken ReLU fires on half of its features; the densest published SAEs on a few per cent";
    /// variance explained below the expected one by more than this share of it fails
    variance_fails 0.35 "right pairings below lose up to 12 % of it on far text (source code, documentation)";
    /// variance not explained over that expected: above, and a tenth of the variance below, it fails
    unexplained_fails 3.0 "right pairings below: at most 1.5; another head of the same layer: 4.8";
    /// variance explained below the expected one by more than this share of it warns
    variance_warns 0.15 "as above";
    /// variance explained where nothing is expected: below, it fails
    variance_least 0.2 "the mean alone explains 0; the least in the registry's table that is stated is 0.61 (gpt2-small-res-jb-feature-splitting, 768 features)";
    /// the factor that brings the reconstruction nearest to the input: outside `1/f .. f` warns
    scale 1.3 "L1 shrinks by 5 to 25 % (arXiv 2404.16014); a lost norm factor by more, or it is found by trying";
    /// cosine of b_dec and the mean activation: below, it warns
    mean_cosine 0.0 "b_dec starts as the data's mean or median, or at 0, and learns; one that points away is of other data or sign";
    /// share of the features frequent in training (ten firings due) that never fire: above, it fails
    dead_but_frequent 0.5 "right pairings below: 0";
    /// rank correlation of training frequencies and counts: below, it fails
    frequencies_fail 0.1 "right pairings below, on far text: 0.20 and more; wrong layers and models: -0.1 to 0.1";
    /// rank correlation of training frequencies and counts: below, it warns
    frequencies_warn 0.15 "as above";
    /// the model's loss with the tokens shuffled less that without, in nats: below, it fails
    text 0.3 "right pairings below: 1 nat and more; ids of another tokenizer: 0";
    /// variance explained that a change of the input or another hook point adds: above, it fails
    remedy_fails 0.1 "the tables below: right pairings gain less than 0.06 by any change";
    /// variance explained that a change adds with at most 1.05 times the features: above, it warns
    remedy_warns 0.01 "the tables below: right pairings gain less than 0.001 so; a lost layer_norm, rescale or shift by b_dec 0.013 and more";
    /// variance explained that another hook point adds with at most 1.5 times the features: above, it warns
    place_warns 0.05 "the tables below: no right pairing does so much better elsewhere";
}
