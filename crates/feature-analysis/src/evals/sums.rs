//! What is added up: per token, per document, over everything.

use std::ops::{Index, IndexMut};

/// A number that each counted token has; every metric is made of sums of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Term {
    /// 1.
    Token,
    /// 1 where a next token follows.
    Prediction,
    /// Loss of the plain run, where a next token follows; so the others.
    LossPlain,
    LossSae,
    LossZero,
    LossMean,
    /// Divergence of a run's predictions from the plain run's.
    KlSae,
    KlZero,
    KlMean,
    /// `|x|^2`, `|x_hat|^2`, `x . x_hat`, `|x - x_hat|^2`.
    SquareIn,
    SquareOut,
    Dot,
    SquareError,
    /// `cos(x, x_hat)`.
    Cosine,
    /// `|x|`, `|x_hat|`, `|x_hat| / |x|`.
    NormIn,
    NormOut,
    NormRatio,
    /// `1 - |x - x_hat|^2 / |x - mean of the batch|^2`.
    LegacyVariance,
    /// Number of active features, sum of their magnitudes.
    L0,
    L1,
}

pub(super) const TERMS: usize = Term::L1 as usize + 1;

/// One value for each [`Term`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms([f64; TERMS]);

impl Default for Terms {
    fn default() -> Self {
        Self([0.0; TERMS])
    }
}

impl Index<Term> for Terms {
    type Output = f64;

    fn index(&self, term: Term) -> &f64 {
        &self.0[term as usize]
    }
}

impl IndexMut<Term> for Terms {
    fn index_mut(&mut self, term: Term) -> &mut f64 {
        &mut self.0[term as usize]
    }
}

impl Terms {
    /// The first term that is not finite.
    pub(super) fn not_finite(&self) -> Option<f64> {
        self.0.into_iter().find(|v| !v.is_finite())
    }
}

/// Sums over tokens: of the terms, and of the vectors `x` and `x - x_hat`, which the variances need. In f64.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sums {
    pub(super) terms: Terms,
    pub(super) x: Vec<f64>,
    pub(super) error: Vec<f64>,
}

impl Sums {
    pub(super) fn new(d_out: usize) -> Self {
        Self { terms: Terms::default(), x: vec![0.0; d_out], error: vec![0.0; d_out] }
    }

    /// Adds a token.
    pub(super) fn add_token(&mut self, terms: &Terms, x: &[f32], x_hat: &[f32]) {
        self.terms.0.iter_mut().zip(&terms.0).for_each(|(sum, term)| *sum += term);
        let sums = self.x.iter_mut().zip(&mut self.error);
        for ((sum, error), (&x, &x_hat)) in sums.zip(x.iter().zip(x_hat)) {
            let x = f64::from(x);
            *sum += x;
            *error += x - f64::from(x_hat);
        }
    }

    /// Adds `times` times what another has.
    pub(super) fn add(&mut self, other: &Self, times: f64) {
        let add = |sums: &mut [f64], more: &[f64]| sums.iter_mut().zip(more).for_each(|(sum, v)| *sum += times * v);
        add(&mut self.terms.0, &other.terms.0);
        add(&mut self.x, &other.x);
        add(&mut self.error, &other.error);
    }

    /// Back to nothing.
    pub(super) fn clear(&mut self) {
        self.terms = Terms::default();
        self.x.fill(0.0);
        self.error.fill(0.0);
    }

    /// The mean of a term over tokens.
    pub(super) fn mean(&self, term: Term) -> f64 {
        self.terms[term] / self.terms[Term::Token]
    }

    /// The mean of a loss over predictions.
    pub(super) fn loss(&self, term: Term) -> f64 {
        self.terms[term] / self.terms[Term::Prediction]
    }

    /// `sum |x - mean|^2` over all tokens, from `sum |x|^2` and the vector `sum x`.
    fn centered(&self, squares: Term, sum: &[f64]) -> f64 {
        let of_mean = sum.iter().map(|v| v * v).sum::<f64>() / self.terms[Term::Token];
        self.terms[squares] - of_mean
    }

    /// `sum |x - mean x|^2`.
    pub(super) fn variance_in(&self) -> f64 {
        self.centered(Term::SquareIn, &self.x)
    }

    /// `sum |e - mean e|^2` of the error `e = x - x_hat`.
    pub(super) fn variance_of_error(&self) -> f64 {
        self.centered(Term::SquareError, &self.error)
    }
}

/// Running sums over the tokens of one document, or of one row where the document is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum UnitKey {
    Document(activation_store::DocId),
    Row(u64),
}

/// The sums of every unit, in the order in which the units first had a counted token.
#[derive(Clone, Debug)]
pub(super) struct Units {
    d_out: usize,
    places: std::collections::HashMap<UnitKey, usize>,
    pub(super) sums: Vec<Sums>,
    pub(super) rows_among: usize,
}

impl Units {
    pub(super) fn new(d_out: usize) -> Self {
        Self { d_out, places: Default::default(), sums: Vec::new(), rows_among: 0 }
    }

    /// The sums of a unit.
    pub(super) fn of(&mut self, key: UnitKey) -> &mut Sums {
        let (next, d_out) = (self.sums.len(), self.d_out);
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.sums.push(Sums::new(d_out));
            self.rows_among += usize::from(matches!(key, UnitKey::Row(_)));
        }
        &mut self.sums[place]
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> u64 {
        let each = size_of::<Sums>() + size_of::<(UnitKey, usize)>() + 2 * self.d_out * size_of::<f64>();
        self.sums.len() as u64 * each as u64
    }

    /// The sums of all, added in order.
    pub(super) fn total(&self) -> Sums {
        let mut total = Sums::new(self.d_out);
        self.sums.iter().for_each(|unit| total.add(unit, 1.0));
        total
    }
}

/// Of which unit each token of a row is: its document; an inserted token goes with the document that follows it in the row, at the
/// row's end with the one before it; a row that no document is known of is a unit of its own.
pub(super) fn units_of_row(row: &activation_store::TokenRow) -> Vec<UnitKey> {
    let doc = |i: usize| row.origin.get(i).and_then(|origin| origin.as_ref()).map(|origin| origin.doc);
    let n = row.tokens.len();
    let mut keys: Vec<Option<UnitKey>> = vec![None; n];
    let mut following = None;
    for i in (0..n).rev() {
        following = doc(i).or(following);
        keys[i] = following.map(UnitKey::Document);
    }
    let mut last = UnitKey::Row(row.row);
    let key = |key: Option<UnitKey>| {
        last = key.unwrap_or(last);
        last
    };
    keys.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use activation_store::{DocId, Origin, TokenRow};

    #[test]
    fn inserted_tokens_go_with_the_document_that_follows() {
        let doc = |ordinal| DocId { file: 0, ordinal };
        let row = |docs: &[Option<u64>]| TokenRow {
            row: 7,
            tokens: vec![0; docs.len()],
            origin: docs.iter().map(|d| d.map(|d| Origin { doc: doc(d), span: 0..1 })).collect(),
        };
        let keys = units_of_row(&row(&[None, Some(1), Some(1), None, Some(2), None]));
        let of = |d| UnitKey::Document(doc(d));
        assert_eq!(keys, [of(1), of(1), of(1), of(2), of(2), of(2)]);
        assert_eq!(units_of_row(&row(&[None, None])), [UnitKey::Row(7); 2]);
    }

    #[test]
    fn variances_from_sums_are_those_of_the_definition() {
        let xs = [[1f32, 2.0], [3.0, 7.0], [-2.0, 0.5]];
        let mut sums = Sums::new(2);
        for x in xs {
            let mut terms = Terms::default();
            terms[Term::Token] = 1.0;
            terms[Term::SquareIn] = x.iter().map(|&v| f64::from(v).powi(2)).sum();
            sums.add_token(&terms, &x, &[0.0, 0.0]);
        }
        let mean = [2.0 / 3.0, 9.5 / 3.0];
        let direct: f64 = xs.iter().map(|x| (0..2).map(|i| (f64::from(x[i]) - mean[i]).powi(2)).sum::<f64>()).sum();
        assert!((sums.variance_in() - direct).abs() < 1e-12);
        assert_eq!(sums.x, sums.error);
    }
}
