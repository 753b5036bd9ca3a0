//! Runs behind a cache of keys and values: new columns have the values that they have in an uncached run on all columns.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{Golden, MODELS, assert_close, assert_same_bits, engines, model, model_on, tolerance, values};
use model_hooks::{
    Capture, Edit, Engine, Error, Generate, HookPoint, Indices, Interest, KvCache, LanguageModel, NoTap, PaddingSide,
    Precision, Processing, Result, Site, Tap, TapContext, TokenBatch, edit_at,
};
use std::ops::Range;

const TOLERANCE: f64 = 1e-5;
/// candle's products round differently for another number of rows: 2e-5 of the rms measured, at the largest entries of an MLP.
const REFERENCE: f64 = 5e-5;

fn every_point(model: &LanguageModel) -> Capture {
    Capture::new(model.hooked().hook_points().iter().copied())
}

fn generator(model: &LanguageModel) -> &dyn Generate {
    model.generator().unwrap()
}

/// Some columns of every row, as a batch of their own with the padding that lies in them.
fn part(rows: &[Vec<u32>], columns: Range<usize>) -> TokenBatch {
    let (width, pad) = (rows.iter().map(Vec::len).max().unwrap(), 3);
    let rows: Vec<Vec<u32>> = rows
        .iter()
        .map(|row| {
            let start = columns.start.max(width - row.len());
            row[start + row.len() - width..columns.end + row.len() - width].to_vec()
        })
        .collect();
    TokenBatch::padded(&rows, pad, PaddingSide::Left).unwrap()
}

/// What an uncached run has at these columns: queries of these, keys of all up to them.
fn cut(point: HookPoint, x: &Tensor, columns: &Range<usize>) -> Tensor {
    let x = x.narrow(point.pos_axis(), columns.start, columns.len()).unwrap();
    match point.site() {
        Some(Site::AttnScores | Site::Pattern) => x.narrow(3, 0, columns.end).unwrap(),
        _ => x,
    }
    .contiguous()
    .unwrap()
}

/// `max |a - b|` over finite entries, in parts of the rms of `scale`: few columns may all be small.
fn error(a: &Tensor, b: &Tensor, scale: &Tensor) -> f64 {
    let rms = |x: &Tensor| {
        let finite: Vec<f64> = values(x).into_iter().filter(|x| x.is_finite()).map(f64::from).collect();
        (finite.iter().map(|x| x * x).sum::<f64>() / finite.len() as f64).sqrt()
    };
    common::error(a, b) * rms(b) / rms(scale)
}

/// Runs `rows` at once and in parts, and compares every hook point of every part.
fn check(what: &str, model: &LanguageModel, rows: &[Vec<u32>], parts: &[Range<usize>]) {
    let mut whole = every_point(model);
    let all = part(rows, 0..rows.iter().map(Vec::len).max().unwrap());
    let logits = model.hooked().forward(&all, &mut whole).unwrap();
    let (mut cache, mut plain) = (generator(model).new_cache(), generator(model).new_cache());
    for columns in parts {
        let (mut capture, tokens) = (every_point(model), part(rows, columns.clone()));
        let found = generator(model).forward_cached(&tokens, &mut cache, &mut capture).unwrap();
        let same = |what: &str, a: &Tensor, whole: &Tensor, point| {
            let b = cut(point, whole, columns);
            match model.engine() {
                Engine::Reference => {
                    let found = error(a, &b, whole);
                    assert!(found <= REFERENCE, "{what}: {found:.2e} of the rms");
                }
                // Sums have the same order, whatever the number of queries and wherever keys lie.
                Engine::Kernels(_) => assert_same_bits(what, a, &b),
            }
        };
        same(what, &found, &logits, HookPoint::Logits);
        for (point, x) in capture.iter() {
            same(&format!("{what}, {columns:?}, {point}"), x, whole.get(point).unwrap(), point);
        }
        // Watching changes nothing here either.
        let unwatched = generator(model).forward_cached(&tokens, &mut plain, &mut NoTap).unwrap();
        assert_same_bits(what, &unwatched, &found);
        assert_eq!((cache.columns(), cache.batch()), (columns.end, rows.len()));
    }
}

#[test]
fn cached_runs_equal_the_uncached_run_at_every_point() {
    for engine in engines() {
        for name in MODELS {
            let model = model_on(name, Processing::TransformerLens, engine);
            let rows: Vec<Vec<u32>> = Golden::open(name).tokens().rows().map(<[u32]>::to_vec).collect();
            let len = rows[0].len();
            check(&format!("{name}, {engine}"), &model, &rows, &[0..7, 7..8, 8..9, 9..13, 13..len]);
            // One by one, from the first token on.
            let steps: Vec<_> = (0..12).map(|i| i..i + 1).collect();
            check(
                &format!("{name}, {engine}"),
                &model,
                &rows[..1].iter().map(|r| r[..12].to_vec()).collect::<Vec<_>>(),
                &steps,
            );
            // Rows of different lengths, padded on the left.
            let ragged = [rows[0].clone(), rows[rows.len() - 1][..19].to_vec(), rows[0][3..20].to_vec()];
            check(&format!("{name}, {engine}, ragged"), &model, &ragged, &[0..9, 9..10, 10..len - 1, len - 1..len]);
        }
    }
}

/// Past the first room of the cache, so that rows move.
#[test]
fn a_cache_grows_and_keeps_its_rows() {
    for engine in engines() {
        let model = model_on("llama", Processing::None, engine);
        let row = |seed: u32| (0..100u32).map(|i| (i * 37 + seed) % 384).collect::<Vec<_>>();
        let parts = [0..30, 30..31, 31..32, 32..33, 33..64, 64..65, 65..100];
        check(&engine.to_string(), &model, &[row(1), row(5), row(9)[..80].to_vec()], &parts);
        // As much memory as was asked for, and no more on the way.
        let mut cache = generator(&model).new_cache();
        cache.reserve(64);
        let run = |cache: &mut KvCache, columns| {
            generator(&model).forward_cached(&part(&[row(1)], columns), cache, &mut NoTap).unwrap();
        };
        run(&mut cache, 0..30);
        let (bytes, shape) = (cache.bytes(), model.shape());
        let width = |d_head: usize| 4 * shape.n_layers * shape.n_kv_heads * d_head * 64;
        let expected = match engine {
            Engine::Reference => 2 * width(shape.d_head),
            // Columns of values come in panels of 32.
            Engine::Kernels(_) => width(shape.d_head) + width(shape.d_head.next_multiple_of(32)),
        };
        let halves = matches!(engine, Engine::Kernels(arithmetic) if arithmetic.precision() == Precision::Bf16);
        assert!(bytes == expected || (halves && bytes == expected / 2) || is_amx(engine), "{engine}: {bytes}");
        (30..64).for_each(|i| run(&mut cache, i..i + 1));
        assert_eq!(cache.bytes(), bytes);
        run(&mut cache, 64..65);
        assert_eq!(cache.bytes(), 2 * bytes, "doubled");
    }
}

/// Whose packed heads of less than 32 entries are padded.
fn is_amx(engine: Engine) -> bool {
    matches!(engine, Engine::Kernels(arithmetic) if arithmetic.kernel_name().starts_with("amx"))
}

/// Keys are held as the engine reads them.
#[test]
fn a_cache_of_another_engine_is_refused() {
    let tokens = TokenBatch::new(&[vec![1u32, 2, 3]]).unwrap();
    let all: Vec<_> = engines().collect();
    for (made_for, runs_on) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b) {
        let [other, model] = [made_for, runs_on].map(|engine| model_on("gpt2", Processing::None, engine));
        let mut cache = generator(&other).new_cache();
        let error = generator(&model).forward_cached(&tokens, &mut cache, &mut NoTap).unwrap_err();
        assert!(matches!(error, Error::CacheOfOtherEngine { .. }), "{error}");
    }
}

#[test]
fn a_branch_and_a_cut_back_cache_go_on_as_if_nothing_else_had_run() {
    for engine in engines() {
        let model = model_on("gpt2", Processing::None, engine);
        let tokens = Golden::open("gpt2").tokens();
        let rows: Vec<Vec<u32>> = tokens.rows().map(<[u32]>::to_vec).collect();
        let run = |cache: &mut KvCache, columns| {
            generator(&model).forward_cached(&part(&rows, columns), cache, &mut NoTap).unwrap()
        };
        let mut cache = generator(&model).new_cache();
        run(&mut cache, 0..10);
        let mut branch = cache.clone();
        let right = run(&mut cache, 10..15);
        let other = TokenBatch::new(&vec![vec![9u32; 3]; rows.len()]).unwrap();
        generator(&model).forward_cached(&other, &mut branch, &mut NoTap).unwrap();
        assert_eq!((branch.columns(), cache.columns()), (13, 15));
        branch.truncate(10);
        assert_same_bits("cut back", &run(&mut branch, 10..15), &right);
        branch.truncate(0);
        assert!(branch.is_empty() && branch.batch() == 0);
        let alone = TokenBatch::new(&[&rows[0][..10]]).unwrap();
        generator(&model).forward_cached(&alone, &mut branch, &mut NoTap).unwrap();
        assert_eq!((branch.batch(), branch.token_range(0), branch.token_range(1)), (1, 0..10, 0..0));
    }
}

/// Fails at a point of a layer in the middle.
struct Fails(HookPoint);

impl Tap for Fails {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![(self.0, Interest::Watch)])
    }

    fn watch(&mut self, cx: &TapContext<'_>, _: &Tensor) -> Result<()> {
        assert_eq!(cx.offset, 12);
        Err(Error::Tap { point: cx.at, source: "no more".into() })
    }

    fn edit(&mut self, _: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

#[test]
fn a_failed_step_leaves_the_cache_as_it_was() {
    for engine in engines() {
        let model = model_on("llama", Processing::None, engine);
        let rows: Vec<Vec<u32>> = Golden::open("llama").tokens().rows().map(<[u32]>::to_vec).collect();
        let run = |cache: &mut KvCache, columns, tap: &mut dyn Tap| {
            generator(&model).forward_cached(&part(&rows, columns), cache, tap)
        };
        let mut cache = generator(&model).new_cache();
        run(&mut cache, 0..12, &mut NoTap).unwrap();
        let right = run(&mut cache.clone(), 12..15, &mut NoTap).unwrap();
        for point in ["blocks.1.hook_mlp_out", "blocks.0.attn.hook_pattern", "logits", "blocks.9.hook_mlp_out"] {
            let point = point.parse().unwrap();
            assert!(run(&mut cache, 12..15, &mut Fails(point)).is_err());
            assert_eq!((cache.columns(), cache.token_range(0)), (12, 0..12));
        }
        assert_same_bits("after failures", &run(&mut cache, 12..15, &mut NoTap).unwrap(), &right);
    }
}

/// An edit of a step acts on what that step computes and caches, as it does in an uncached run at these columns.
#[test]
fn edits_of_keys_and_values_are_cached() {
    for engine in engines() {
        for point in
            ["blocks.0.attn.hook_k", "blocks.0.attn.hook_v", "blocks.1.attn.hook_pattern", "blocks.0.hook_resid_pre"]
        {
            let (model, point) = (model_on("gpt2", Processing::None, engine), point.parse().unwrap());
            let rows: Vec<Vec<u32>> = Golden::open("gpt2").tokens().rows().map(<[u32]>::to_vec).collect();
            let mut double = edit_at(point, |_, x| Ok((x * 2.0)?));
            let whole = model.hooked().forward(&part(&rows, 0..15), &mut double).unwrap();
            let mut cache = generator(&model).new_cache();
            for columns in [0..8, 8..9, 9..15] {
                let tokens = part(&rows, columns.clone());
                let found = generator(&model).forward_cached(&tokens, &mut cache, &mut double).unwrap();
                let expected = cut(HookPoint::Logits, &whole, &columns);
                assert_close(&format!("{point}, {engine}"), &found, &expected, tolerance(engine, TOLERANCE));
            }
        }
    }
}

#[test]
fn what_a_cache_cannot_take_is_an_error_and_changes_nothing() {
    let model = model("gpt2", Processing::None);
    let mut cache = generator(&model).new_cache();
    let forward = |tokens: TokenBatch, cache: &mut KvCache| {
        let before = (cache.columns(), cache.batch());
        let result = generator(&model).forward_cached(&tokens, cache, &mut NoTap).map(drop);
        assert!(result.is_ok() || before == (cache.columns(), cache.batch()));
        result
    };
    let batch = |rows: &[Vec<u32>]| TokenBatch::new(rows).unwrap();
    let padded = |rows: &[Vec<u32>], side| TokenBatch::padded(rows, 0, side).unwrap();
    // More positions than the context, at once and step by step; padding does not count.
    assert!(matches!(
        forward(batch(&[vec![1; 257]]), &mut cache),
        Err(Error::ContextExceeded { pos: 257, n_ctx: 256 })
    ));
    forward(padded(&[vec![1; 200], vec![2]], PaddingSide::Left), &mut cache).unwrap();
    forward(batch(&[vec![1; 56], vec![2; 56]]), &mut cache).unwrap();
    assert_eq!((cache.token_range(0), cache.token_range(1)), (0..256, 199..256));
    let full = forward(batch(&[vec![1], vec![2]]), &mut cache).unwrap_err();
    assert!(matches!(full, Error::ContextExceeded { pos: 257, n_ctx: 256 }), "{full}");
    // Another number of rows.
    let rows = forward(batch(&[vec![1]]), &mut cache).unwrap_err();
    assert!(matches!(rows, Error::CacheRows { expected: 2, found: 1 }), "{rows}");
    // Padding between tokens: after a batch that was padded on the right, or in one that is padded on the left.
    let mut cache = generator(&model).new_cache();
    forward(padded(&[vec![1; 4], vec![2; 2]], PaddingSide::Right), &mut cache).unwrap();
    let gap = forward(batch(&[vec![1], vec![2]]), &mut cache).unwrap_err();
    assert!(matches!(gap, Error::PaddingInside { row: 1, column: 2 }), "{gap}");
    cache.truncate(2);
    forward(batch(&[vec![1], vec![2]]), &mut cache).unwrap();
    let gap = forward(padded(&[vec![1; 4], vec![2; 2]], PaddingSide::Left), &mut cache).unwrap_err();
    assert!(matches!(gap, Error::PaddingInside { row: 1, column: 3 }), "{gap}");
    // A token that does not exist, a cache of another model.
    assert!(matches!(forward(batch(&[vec![1], vec![384]]), &mut cache), Err(Error::TokenOutOfVocabulary { .. })));
    let llama = model_on("llama", Processing::None, Engine::Reference);
    let mut other = generator(&llama).new_cache();
    let error = forward(batch(&[vec![1]]), &mut other).unwrap_err();
    assert!(matches!(error, Error::CacheOfOtherModel { .. }), "{error}");
}

#[test]
fn gradients_do_not_pass_a_cache_silently() {
    let model = model_on("gpt2", Processing::None, Engine::Reference);
    let tokens = TokenBatch::new(&[vec![1u32, 2, 3]]).unwrap();
    let direction = Var::zeros(64, DType::F32, &Device::Cpu).unwrap();
    let add = |point: &str| edit_at(point.parse().unwrap(), |_, x| Ok(x.broadcast_add(direction.as_tensor())?));
    let mut cache = generator(&model).new_cache();
    let error = generator(&model).forward_cached(&tokens, &mut cache, &mut add("blocks.1.hook_resid_pre")).unwrap_err();
    assert!(matches!(error, Error::GradientsThroughCache { .. }), "{error}");
    assert!(cache.is_empty());
    // Behind the last attention nothing is cached.
    let logits = generator(&model).forward_cached(&tokens, &mut cache, &mut add("blocks.2.hook_mlp_out")).unwrap();
    assert!(logits.track_op());
}

/// Positions are those of the whole sequence, whichever step they fall into.
#[test]
fn an_edit_at_positions_is_the_same_in_steps_and_at_once() {
    let model = model("llama", Processing::None);
    let golden = Golden::open("llama");
    let row: Vec<u32> = golden.tokens().ids()[..12].to_vec();
    let point: HookPoint = "blocks.1.hook_resid_post".parse().unwrap();
    for positions in [Indices::from(5), Indices::from(1..), Indices::from(0..1), Indices::from([7, 2, 10])] {
        let edit = || Edit::scale(point, 0.5).positions(positions.clone());
        let whole = TokenBatch::new(std::slice::from_ref(&row)).unwrap();
        let expected = model.hooked().forward(&whole, &mut edit()).unwrap();
        let mut cache = generator(&model).new_cache();
        // The first run has every position of its own that is named.
        for columns in [0..8, 8..9, 9..12] {
            let tokens = TokenBatch::new(&[&row[columns.clone()]]).unwrap();
            let mut tap = match columns.start {
                0 => Edit::scale(point, 0.5).positions(named_below(&positions, columns.end)),
                _ => edit(),
            };
            let logits = generator(&model).forward_cached(&tokens, &mut cache, &mut tap).unwrap();
            assert_same_bits(&format!("{positions:?}"), &logits, &cut(HookPoint::Logits, &expected, &columns));
        }
    }
    // A first run refuses positions that it does not have.
    let mut cache = generator(&model).new_cache();
    let tokens = TokenBatch::new(&[&row[..3]]).unwrap();
    let refused = generator(&model).forward_cached(&tokens, &mut cache, &mut Edit::zero(point).positions(5));
    assert!(matches!(refused, Err(Error::IndexOutOfRange { index: 5, .. })));
    let mut capture = Capture::new([point]).positions(1..2);
    generator(&model).forward_cached(&tokens, &mut cache, &mut capture).unwrap();
    let kept = capture.get(point).unwrap().clone();
    generator(&model).forward_cached(&tokens, &mut cache, &mut capture).unwrap();
    assert_same_bits("a step without the position", capture.get(point).unwrap(), &kept);
}

/// Those of the positions that a run of so many columns has.
fn named_below(positions: &Indices, columns: usize) -> Indices {
    match positions {
        list if *list == Indices::from([7, 2, 10]) => {
            Indices::from(vec![7, 2].into_iter().filter(|p| *p < columns).collect::<Vec<_>>())
        }
        other => other.clone(),
    }
}
