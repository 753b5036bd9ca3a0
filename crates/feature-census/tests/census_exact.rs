//! The census against a brute-force one over dense activations.

#[path = "census/support.rs"]
mod support;

use feature_census::*;
use support::*;

#[test]
fn equals_a_dense_census_of_fifty_thousand_tokens() {
    let text = Text::synthetic(50_000, 1);
    let options = CensusOptions { together: vec![3, 77], ..options() };
    let census = text.census(&options, 700);
    let brute = Brute::of(&text, &options);
    brute.check(&census);
}

#[test]
fn batches_make_no_difference() {
    let text = Text::synthetic(3_000, 2);
    let options = CensusOptions { top: 3, together: vec![1], ..options() };
    let whole = text.census(&options, usize::MAX);
    Brute::of(&text, &options).check(&whole);
    for batch in [1, 7, 64, 1000] {
        assert_same(&text.census(&options, batch), &whole);
    }
}

#[test]
fn signed_activations_are_ranked_by_magnitude() {
    let text = Text::signed(2_000, 3);
    let options = options();
    let census = text.census(&options, 100);
    Brute::of(&text, &options).check(&census);
    assert!((0..D_SAE as u32).any(|f| census.top(f).unwrap().iter().any(|e| e.activation < 0.0)));
}
