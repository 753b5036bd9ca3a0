//! What cannot be evaluated is refused in words.

use crate::laws::demo;
use crate::toy::{Map, at, on_toy, plain, row_of, rows, toy};
use activation_store::TokenFilter;
use feature_analysis::Error;
use feature_analysis::evals::{Bootstrap, EvalError, EvalOptions, evaluate};
use model_hooks::HookPoint;
use sae_hooks::CoderHooks;

fn identity() -> Map<impl Fn(&[f32]) -> Vec<f32>> {
    Map(2, |x: &[f32]| x.to_vec())
}

#[test]
fn nothing_to_count() {
    let model = toy(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let refused =
        |rows: &[_], options: EvalOptions| on_toy(&model, &identity(), rows, &options).unwrap_err().to_string();
    assert_eq!(refused(&[], plain()), "no token counts: 0 rows with 0 tokens, 0 of them excluded");
    let all = EvalOptions { filter: TokenFilter::everything().with_ids([0, 1]), ..plain() };
    assert_eq!(refused(&rows(&[&[0, 1, 0]]), all), "no token counts: 1 rows with 3 tokens, 3 of them excluded");
    let message = refused(&rows(&[&[0], &[1]]), plain());
    assert_eq!(message, "no counted token is followed by another, so there is no loss: 2 rows, 2 counted tokens");
    // Without losses there is something to say of them.
    let options = EvalOptions { downstream: false, ..plain() };
    let found = on_toy(&model, &identity(), &rows(&[&[0], &[1]]), &options).unwrap();
    assert_eq!(found.value("l0"), Some(1.0));
    // A key that no metric has, and a metric that was not asked for, are not numbers that cannot be computed.
    assert_eq!((found.value("typo"), found.value("ce_loss_with_sae")), (None, None));
}

#[test]
fn values_that_are_not_finite() {
    let model = toy(&[&[1.0, 0.0], &[0.0, f32::NAN], &[f32::MAX, f32::MAX]]);
    let rows = [row_of(5, 0, &[0, 0, 0]), row_of(8, 1, &[0, 0, 1])];
    let message =
        on_toy(&model, &identity(), &rows, &EvalOptions { mean_ablation: false, ..plain() }).unwrap_err().to_string();
    assert_eq!(message, "the activation that goes in at row 8, position 2 is NaN; every value must be finite");
    assert!(on_toy(&model, &identity(), &rows, &plain()).unwrap_err().to_string().contains("row 8, position 2"));
    let wrong = Map(2, |x: &[f32]| if x[0] == 0.0 { vec![f32::INFINITY; 2] } else { x.to_vec() });
    let model = toy(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let message = on_toy(&model, &wrong, &rows, &plain()).unwrap_err().to_string();
    assert_eq!(message, "the reconstruction at row 8, position 2 is inf; every value must be finite");
    // Logits beyond f32: [MAX, MAX, inf].
    let model = toy(&[&[1.0, 0.0], &[f32::MAX, f32::MAX]]);
    let options = EvalOptions { mean_ablation: false, ..plain() };
    let message = on_toy(&model, &identity(), &rows, &options).map(|_| ()).unwrap_err().to_string();
    assert!(message.starts_with("a loss, divergence or norm at row 8, position 2 is "), "{message}");
}

#[test]
fn a_coder_that_does_not_fit() {
    let model = demo();
    let rows = rows(&[&[3, 4, 5]]);
    let point = |name: &str| name.parse::<HookPoint>().unwrap();
    let refused = |hooks| at(&model, &identity(), hooks, &rows, &plain()).unwrap_err().to_string();
    let message = refused(CoderHooks::sae(point("blocks.1.hook_resid_pre")));
    assert_eq!(message, "the d_in of the SAE is 2, but `blocks.1.hook_resid_pre` has width 256");
    let wide = Map(256, |x: &[f32]| x.to_vec());
    let refused = |hooks| at(&model, &wide, hooks, &rows, &plain()).unwrap_err().to_string();
    let message = refused(CoderHooks::transcoder(point("blocks.1.hook_resid_mid"), point("blocks.1.mlp.hook_post")));
    assert_eq!(message, "the d_out of the SAE is 256, but `blocks.1.mlp.hook_post` has width 1024");
    let message = refused(CoderHooks::transcoder(point("blocks.1.hook_mlp_out"), point("blocks.1.hook_resid_mid")));
    assert_eq!(
        message,
        "the output hook `blocks.1.hook_resid_mid` comes before the input hook `blocks.1.hook_mlp_out`"
    );
    let message = refused(CoderHooks::sae(point("blocks.9.hook_resid_pre")));
    assert!(message.contains("blocks.9.hook_resid_pre"), "{message}");
}

#[test]
fn options_that_make_no_sense() {
    let model = toy(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let refused = |options| on_toy(&model, &identity(), &rows(&[&[0, 1]]), &options).unwrap_err().to_string();
    assert_eq!(refused(EvalOptions { rows: Some(0), ..plain() }), "option `rows` is 0, expected at least 1");
    assert!(refused(EvalOptions { batch_size_prompts: 0, ..plain() }).contains("batch_size_prompts"));
    assert!(refused(EvalOptions { forward_rows: Some(0), ..plain() }).contains("forward_rows"));
    for level in [0.0, 1.0, f64::NAN] {
        let bootstrap = Bootstrap { level, ..Bootstrap::default() };
        assert!(refused(EvalOptions { bootstrap, ..plain() }).contains("`level`"));
    }
    // Special tokens of a model without a tokenizer.
    assert!(refused(EvalOptions { filter: TokenFilter::structural(), ..plain() }).contains("tokenizer"));
}

/// All rows of a text that does not end: an error as soon as more is held than was allowed, with the mean and without.
#[test]
fn what_is_held_is_bounded() {
    let model = toy(&[&[1.0, 0.0], &[0.0, 1.0]]);
    let refused = |mean_ablation: bool| {
        let options = EvalOptions { rows: None, mean_ablation, held_bytes: 100_000, ..plain() };
        let mut read = 0_u64;
        // Each row is a document of its own.
        let mut endless = (0..).map(|i| Ok(row_of(i, i, &[0, 1, 0, 1]))).inspect(|_| read += 1);
        let hooks = CoderHooks::sae(HookPoint::Embed);
        let error = evaluate(&model, &identity(), hooks, &mut endless, &options, &mut |_| ()).unwrap_err();
        let Error::Eval(EvalError::Held { rows, bytes, allowed: 100_000, .. }) = error else { panic!("{error}") };
        assert!(bytes > 100_000 && rows <= read && read < 1000, "{bytes} bytes, {rows} rows, {read} read");
        error.to_string()
    };
    assert!(refused(true).contains("rows of tokens for mean ablation"));
    assert!(refused(false).contains("the sums of documents"));
    // A bound that what there is does not reach changes nothing.
    let some = rows(&[&[0, 1, 0], &[1, 1, 0]]);
    let within = on_toy(&model, &identity(), &some, &EvalOptions { rows: None, ..plain() }).unwrap();
    let tight =
        on_toy(&model, &identity(), &some, &EvalOptions { rows: None, held_bytes: 100_000, ..plain() }).unwrap();
    assert_eq!(within.to_json(), tight.to_json());
}
