//! Generation past the original context of models whose rotary angles depend on the length of the text (LongRoPE, dynamic scaling):
//! equal to full forward passes on everything before each token.

mod common;

use candle_core::Tensor;
use common::{Golden, Pieces, assert_close, assert_same_bits, engines, folder, tolerance};
use model_hooks::{
    Engine, Error, GenerateOptions, HookPoint, Interest, LanguageModel, LoadOptions, NoTap, PaddingSide, Processing,
    Result, StopReason, Tap, TapContext, TokenBatch, generate, load,
};
use serde_json::Value;
use std::ops::ControlFlow;

/// Kinds of scaling; a model of the first two has an original context of 16 tokens, and YaRN's angles are the same for every length.
const KINDS: [&str; 3] = ["longrope", "dynamic", "yarn"];

fn pieces(kind: &str) -> Pieces {
    let (base, folder_name, name) = match kind {
        "longrope" => ("phi3_partial", "phi3_longrope", "long"),
        _ => ("llama", "rope_scaling", kind),
    };
    let configs = std::fs::read(folder(folder_name).join("configs.json")).unwrap();
    let configs: Value = serde_json::from_slice(&configs).unwrap();
    let case = &configs["cases"][name];
    let changes = if kind == "longrope" { case } else { &case["keys"] }.as_object().unwrap().clone();
    changes.into_iter().fold(Pieces::of(base), |pieces, (key, value)| pieces.with(&key, value))
}

fn model(kind: &str, engine: Engine) -> LanguageModel {
    let written = pieces(kind).write();
    load(written.path(), &LoadOptions::new(Processing::None).engine(engine)).unwrap()
}

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.max_new_tokens = max_new_tokens;
    options
}

fn prompt(len: usize) -> Vec<u32> {
    Golden::open("llama").tokens().rows().next().unwrap()[..len].to_vec()
}

/// Doubles a residual stream, and keeps the offset, the columns and the last logits of every run.
#[derive(Default)]
struct Doubled {
    runs: Vec<(usize, usize)>,
    last: Vec<Tensor>,
}

impl Tap for Doubled {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![("blocks.1.hook_resid_mid".parse()?, Interest::Edit), (HookPoint::Logits, Interest::Watch)])
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        self.runs.push((cx.offset, cx.tokens.pos()));
        self.last.push(x.narrow(1, x.dim(1)? - 1, 1)?.contiguous()?);
        Ok(())
    }

    fn edit(&mut self, _: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        Ok((x * 2.0)?)
    }
}

fn check(what: &str, engine: Engine, found: &Tensor, expected: &Tensor) {
    match engine {
        Engine::Reference => assert_close(what, found, expected, 5e-5),
        _ => assert_same_bits(what, found, expected),
    }
}

#[test]
fn every_token_is_that_of_a_full_forward_pass() {
    for (kind, engine) in KINDS.into_iter().flat_map(|kind| engines().map(move |engine| (kind, engine))) {
        let (model, mut all) = (model(kind, engine), prompt(13));
        let mut tap = Doubled::default();
        let mut go_on = |_| ControlFlow::Continue(());
        let found = generate(model.generator().unwrap(), &[&all], &greedy(8), &mut tap, &mut go_on).unwrap();
        assert_eq!((found.rows[0].ids.len(), &found.rows[0].stopped), (8, &StopReason::MaxNewTokens), "{kind}");
        for (id, logits) in found.rows[0].ids.iter().zip(&tap.last) {
            let tokens = TokenBatch::new(&[&all]).unwrap();
            let full = model.hooked().forward(&tokens, &mut Doubled::default()).unwrap();
            let full = full.narrow(1, all.len() - 1, 1).unwrap().contiguous().unwrap();
            check(&format!("{kind} on {engine}, {} tokens", all.len()), engine, logits, &full);
            all.push(*id);
        }
        let whole = |end: usize| match kind {
            "longrope" => end == 17,
            "dynamic" => end > 16,
            _ => false,
        };
        let step = |end| if whole(end) { (0, end) } else { (end - 1, 1) };
        let expected: Vec<_> = std::iter::once((0, 13)).chain((14..21).map(step)).collect();
        assert_eq!(tap.runs, expected, "{kind}");
    }
}

/// Rows of different lengths, one of which ends before the others pass the original context: the same columns are run again.
#[test]
fn rows_together_go_on_as_a_padded_batch() {
    for kind in KINDS {
        let (model, prompts) = (model(kind, Engine::default()), [prompt(14), prompt(9), prompt(11)]);
        let mut go_on = |_| ControlFlow::Continue(());
        let mut run = |options: &GenerateOptions, tap: &mut dyn Tap| {
            generate(model.generator().unwrap(), &prompts, options, tap, &mut go_on).unwrap()
        };
        let plain = run(&greedy(6), &mut Doubled::default());
        let (mut options, mut tap) = (greedy(6), Doubled::default());
        options.stop_tokens = vec![plain.rows[1].ids[1]];
        let found = run(&options, &mut tap);
        assert_eq!(found.rows[1].stopped, StopReason::Token(plain.rows[1].ids[1]));
        let mut open = [true; 3];
        for (step, logits) in tap.last.iter().enumerate() {
            for (row, generated) in found.rows.iter().enumerate() {
                open[row] = generated.ids.len() > step;
            }
            let so_far = prompts.iter().zip(&found.rows).map(|(prompt, row)| {
                let ids = row.ids.iter().copied().chain(std::iter::repeat(0));
                prompt.iter().copied().chain(ids.take(step)).collect::<Vec<u32>>()
            });
            let tokens = TokenBatch::padded(&so_far.collect::<Vec<_>>(), 0, PaddingSide::Left).unwrap();
            let full = model.hooked().forward(&tokens, &mut Doubled::default()).unwrap();
            for row in (0..3).filter(|row| open[*row]) {
                let full = full.get(row).unwrap().narrow(0, tokens.pos() - 1, 1).unwrap().contiguous().unwrap();
                assert_same_bits(&format!("{kind}, row {row}, step {step}"), &logits.get(row).unwrap(), &full);
            }
        }
    }
}

/// transformers empties its cache for Phi-3 where the text passes the original context; so its tokens are ours.
#[test]
fn longrope_generates_what_transformers_does() {
    let golden: Value =
        serde_json::from_slice(&std::fs::read(folder("phi3_longrope").join("generated.json")).unwrap()).unwrap();
    let ids = |key: &str| -> Vec<u32> { serde_json::from_value(golden[key].clone()).unwrap() };
    for engine in engines().filter(|engine| tolerance(*engine, 1e-4) <= 1e-3) {
        let (model, expected) = (model("longrope", engine), ids("ids"));
        let mut go_on = |_| ControlFlow::Continue(());
        let options = greedy(expected.len());
        let found = generate(model.generator().unwrap(), &[ids("prompt")], &options, &mut NoTap, &mut go_on).unwrap();
        assert_eq!(found.rows[0].ids, expected, "{engine}");
    }
}

/// A run on a cache refuses before anything fires, and also where a long text was cut: its keys stay turned for the long one.
#[test]
fn keys_that_are_turned_for_another_length_are_refused() {
    for (kind, within, across) in [("longrope", [10, 16], [16, 17]), ("dynamic", [10, 16], [16, 17])] {
        let (model, all) = (model(kind, Engine::default()), prompt(24));
        let part = |columns: std::ops::Range<usize>| TokenBatch::new(&[&all[columns]]).unwrap();
        let generator = model.generator().unwrap();
        let mut cache = generator.new_cache();
        assert!(generator.keeps_angles(&cache, 24), "an empty cache holds no keys");
        generator.forward_cached(&part(0..10), &mut cache, &mut NoTap).unwrap();
        assert!(generator.keeps_angles(&cache, 6) && !generator.keeps_angles(&cache, 7));
        generator.forward_cached(&part(within[0]..within[1]), &mut cache, &mut NoTap).unwrap();
        let mut tap = Doubled::default();
        let error = generator.forward_cached(&part(across[0]..across[1]), &mut cache, &mut tap).unwrap_err();
        assert!(matches!(error, Error::CachedAngles { cached: 16, turned_for: 16, pos: 17 }), "{kind}: {error}");
        assert_eq!((cache.columns(), tap.runs.len()), (16, 0));

        cache.truncate(0);
        generator.forward_cached(&part(0..20), &mut cache, &mut NoTap).unwrap();
        cache.truncate(10);
        let error = generator.forward_cached(&part(10..13), &mut cache, &mut NoTap).unwrap_err();
        assert!(matches!(error, Error::CachedAngles { cached: 10, turned_for: 20, pos: 13 }), "{kind}: {error}");
        // The same length as before: the keys are right.
        let found = generator.forward_cached(&part(10..20), &mut cache, &mut NoTap).unwrap();
        let full = model.hooked().forward(&part(0..20), &mut NoTap).unwrap();
        assert_same_bits(kind, &found, &full.narrow(1, 10, 10).unwrap().contiguous().unwrap());
    }
}
