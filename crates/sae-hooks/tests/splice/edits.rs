//! Edits of features and of the tensors around them.

use super::support::*;
use candle_core::Tensor;
use model_hooks::{Edit, Engine, HookPoint, LanguageModel, TokenBatch};
use proptest::prelude::*;
use sae_core::{SparseCoder, SparseFeatures};
use sae_hooks::{FeatureEdit, HookedSae, SaeHookPoint, SaeSite, Splice};
use std::sync::LazyLock;

static MODEL: LazyLock<LanguageModel> = LazyLock::new(|| model_on("gpt2", Engine::Reference));

fn hook() -> HookPoint {
    at("blocks.0.hook_resid_pre")
}

/// The value of the identity dictionary's output: its features are the columns of the value, so that the oracle is plain arithmetic.
fn edited(tokens: &TokenBatch, edits: Vec<FeatureEdit>) -> Vec<f32> {
    let model = MODEL.hooked();
    let splice = Splice::new(model).sae(hook(), Identity(model.shape().d_model)).unwrap();
    let splice = splice.capture([SaeHookPoint::new(hook(), SaeSite::Output)]).unwrap();
    let mut splice = edits.into_iter().try_fold(splice, |splice, edit| splice.edit(hook(), edit)).unwrap();
    model.forward_until(tokens, hook(), &mut splice).unwrap();
    flat(&splice.captured().tensor(SaeHookPoint::new(hook(), SaeSite::Output)).unwrap())
}

#[derive(Clone, Debug)]
enum Kind {
    Ablate,
    KeepOnly,
    Clamp(f32),
    Scale(f32),
    Add(f32),
}

/// Kind, features, first position, end.
type Change = (Kind, Vec<u32>, usize, Option<usize>);

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![Just(0f32), -3f32..3.0];
    let kind = prop_oneof![
        Just(Kind::Ablate),
        Just(Kind::KeepOnly),
        value.clone().prop_map(Kind::Clamp),
        value.clone().prop_map(Kind::Scale),
        value.prop_map(Kind::Add),
    ];
    (kind, proptest::collection::vec(0u32..64, 0..20), 0usize..11, proptest::option::of(0usize..=10))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn edits_are_arithmetic_on_features(changes in proptest::collection::vec(change(), 0..4)) {
        let tokens = tokens(MODEL.hooked());
        let mut expected = flat(&value(MODEL.hooked(), &tokens, hook()));
        let mut edits = Vec::new();
        for (kind, features, start, end) in changes {
            for (i, x) in expected.iter_mut().enumerate() {
                let (position, named) = (i / 64 % 10, features.contains(&((i % 64) as u32)));
                if position < start || end.is_some_and(|end| position >= end) {
                    continue;
                }
                match kind {
                    Kind::Ablate if named => *x = 0.0,
                    Kind::KeepOnly if !named => *x = 0.0,
                    Kind::Clamp(to) if named => *x = to,
                    Kind::Scale(factor) if named => *x *= factor,
                    Kind::Add(more) if named => *x += more,
                    _ => {}
                }
            }
            let edit = match kind {
                Kind::Ablate => FeatureEdit::ablate(features),
                Kind::KeepOnly => FeatureEdit::keep_only(features),
                Kind::Clamp(to) => FeatureEdit::clamp(features, to),
                Kind::Scale(factor) => FeatureEdit::scale(features, factor),
                Kind::Add(more) => FeatureEdit::add(features, more),
            };
            edits.push(match end {
                Some(end) => edit.positions(start..end),
                None => edit.positions(start..),
            });
        }
        prop_assert_eq!(edited(&tokens, edits), expected);
    }
}

#[test]
fn positions_that_are_not_there_are_refused() {
    let model = MODEL.hooked();
    let edit = |edit| Splice::new(model).sae(hook(), Identity(64)).unwrap().edit(hook(), edit).unwrap();
    let error = model.forward(&tokens(model), &mut edit(FeatureEdit::ablate([1]).positions(8..=10))).unwrap_err();
    assert!(error.to_string().contains("blocks.0.hook_resid_pre"), "{error}");
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("ends at position 11, but there are 10"), "{reason}");
    model.forward(&tokens(model), &mut edit(FeatureEdit::ablate([1]).positions(8..=9))).unwrap();
    model.forward(&tokens(model), &mut edit(FeatureEdit::ablate([1]).positions(100..))).unwrap();
}

/// Steering by a feature is adding its decoder row.
#[test]
fn adding_to_a_feature_adds_its_direction() {
    each(|name, model, tokens, tolerance| {
        let sae = sae(model.engine(), 20, model.shape().d_model, 96);
        let splice = Splice::new(model).with(HookedSae::new(hook(), &sae).error_term(true)).unwrap();
        let mut splice = splice.edit(hook(), FeatureEdit::add([30], 4.0).positions(2..5)).unwrap();
        let row = (sae.decoder_rows(&[30]).unwrap() * 4.0).unwrap();
        let by_hand = model.forward(tokens, &mut Edit::add(hook(), row).positions(2..5)).unwrap();
        assert_close(name, &model.forward(tokens, &mut splice).unwrap(), &by_hand, tolerance);
    });
}

#[test]
fn closures_see_the_features_and_what_earlier_edits_made_of_them() {
    let (model, tokens) = (MODEL.hooked(), tokens(MODEL.hooked()));
    let mut seen = Vec::new();
    let mut splice = Splice::new(model)
        .sae(hook(), Identity(64))
        .unwrap()
        .edit(hook(), FeatureEdit::clamp([5], 9.0).positions(..1))
        .unwrap()
        .edit_codes(hook(), |cx, codes| {
            seen.push((cx.at, codes.features.get(0, 5), codes.features.get(10, 5), codes.features.rows()));
            let nothing = SparseFeatures::new(vec![0; codes.features.rows() + 1], vec![], vec![], 64)?;
            Ok(codes.with_features(nothing)?)
        })
        .unwrap()
        .edit(hook(), FeatureEdit::add([1], 1.0))
        .unwrap()
        .capture([SaeHookPoint::new(hook(), SaeSite::ActsPost)])
        .unwrap();
    model.forward_until(&tokens, hook(), &mut splice).unwrap();
    let codes = splice.captured().codes(hook()).unwrap().clone();
    assert!(codes.features.iter().all(|row| row == (&[1][..], &[1.0][..])));
    drop(splice);
    assert_eq!(seen, [(hook(), 9.0, 9.0, 20)]);
}

/// The error is that of the untouched input, whatever is edited.
#[test]
fn the_error_knows_nothing_of_edits() {
    each(|name, model, tokens, _| {
        let sae = sae(model.engine(), 21, model.shape().d_model, 96);
        let x = value(model, tokens, hook());
        let untouched = sae.forward(&x).unwrap().error.unwrap();
        let point = |site| SaeHookPoint::new(hook(), site);
        let with = || {
            let splice = Splice::new(model).with(HookedSae::new(hook(), &sae).error_term(true)).unwrap();
            let points = splice.sae_points();
            splice.capture(points).unwrap()
        };
        let run = |mut splice: Splice<'_>| {
            model.forward_until(tokens, hook(), &mut splice).unwrap();
            splice.into_captured()
        };
        let half = |_: &model_hooks::TapContext<'_>, x: Tensor| Ok((x * 0.5)?);
        // Another input: other features, the same error.
        let kept = run(with().edit_tensor(point(SaeSite::Input), half).unwrap());
        assert_close(name, &kept.tensor(point(SaeSite::Error)).unwrap(), &untouched, 0.0);
        let halved = sae.forward(&(&x * 0.5).unwrap()).unwrap();
        assert_eq!(kept.codes(hook()).unwrap(), &halved.codes);
        let sum = (&halved.x_hat + &untouched).unwrap();
        assert_close(name, &kept.tensor(point(SaeSite::Output)).unwrap(), &sum, 1e-6);
        // Another reconstruction.
        let kept = run(with().edit_tensor(point(SaeSite::Recons), half).unwrap());
        assert_close(name, &kept.tensor(point(SaeSite::Error)).unwrap(), &untouched, 0.0);
        // Other features.
        let kept = run(with().edit(hook(), FeatureEdit::scale(0..96, 3.0)).unwrap());
        assert_close(name, &kept.tensor(point(SaeSite::Error)).unwrap(), &untouched, 0.0);
        // An edited error, and an edited output.
        let kept = run(with().edit_tensor(point(SaeSite::Error), half).unwrap());
        let sum = (&x - (&untouched * 0.5).unwrap()).unwrap();
        assert_close(name, &kept.tensor(point(SaeSite::Output)).unwrap(), &sum, 1e-6);
        let kept = run(with().edit_tensor(point(SaeSite::Output), half).unwrap());
        assert_close(name, &kept.tensor(point(SaeSite::Output)).unwrap(), &(&x * 0.5).unwrap(), 1e-6);
    });
}
