//! Generation: transformers' greedy ids, taps at every step, why rows end, text as it comes.

mod common;
#[path = "common/say.rs"]
mod say;

use candle_core::Tensor;
use common::{MODELS, RAGGED, RaggedGolden, assert_close, engines, folder, model, model_on, tolerance, values};
use model_hooks::{
    Capture, Error, GenerateOptions, GenerationOutput, HookPoint, Interest, LanguageModel, LoadOptions, NoTap,
    Processing, Result, Sampling, SamplingOptions, StopReason, Tap, TapContext, TokenBatch, edit_at, generate, load,
};
use say::say;
use std::ops::{ControlFlow, Range};

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.max_new_tokens = max_new_tokens;
    options
}

fn random(max_new_tokens: usize, random: SamplingOptions) -> GenerateOptions {
    let mut options = greedy(max_new_tokens);
    options.sampling = Sampling::Random(random);
    options
}

fn run(model: &LanguageModel, prompts: &[Vec<u32>], options: &GenerateOptions, tap: &mut dyn Tap) -> GenerationOutput {
    generate(model.generator().unwrap(), prompts, options, tap, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn ids(generation: &GenerationOutput) -> Vec<Vec<u32>> {
    generation.rows.iter().map(|row| row.ids.clone()).collect()
}

#[test]
fn greedy_ids_are_those_of_transformers() {
    let mut checked = 0;
    for name in RAGGED.into_iter().filter(|name| MODELS.contains(name)) {
        let golden = RaggedGolden::open(name);
        for engine in engines().filter(|engine| tolerance(*engine, 1e-4) <= 1e-3) {
            let model = model_on(name, Processing::None, engine);
            let mut last = Capture::new([HookPoint::Logits]);
            let together = run(&model, &golden.rows, &greedy(12), &mut last);
            assert_eq!(ids(&together), golden.generated, "{name}, {engine}");
            assert!(together.rows.iter().all(|row| row.stopped == StopReason::MaxNewTokens));
            for (row, prompt) in golden.rows.iter().enumerate() {
                let alone = run(&model, std::slice::from_ref(prompt), &greedy(12), &mut NoTap);
                assert_eq!(alone.rows[0], together.rows[row], "{name}, {engine}");
                let found = last.get(HookPoint::Logits).unwrap().get(row).unwrap().get(0).unwrap();
                let expected = golden.tensor(&format!("row{row}.last_logits"));
                assert_close(name, &found, &expected.flatten_all().unwrap(), tolerance(engine, 1e-4));
                checked += 1;
            }
        }
    }
    assert!(checked > 0);
}

/// Writes down each run: its offset, its columns, and which rows have tokens in it.
#[derive(Default)]
struct Log(Vec<(usize, usize, Vec<Range<usize>>)>);

impl Tap for Log {
    fn points(&self, _: &[HookPoint]) -> Result<Vec<(HookPoint, Interest)>> {
        Ok(vec![("blocks.1.hook_resid_mid".parse()?, Interest::Watch)])
    }

    fn watch(&mut self, cx: &TapContext<'_>, x: &Tensor) -> Result<()> {
        assert_eq!((x.dims()[0], x.dims()[1]), (cx.tokens.batch(), cx.tokens.pos()));
        let real = (0..cx.tokens.batch()).map(|row| cx.tokens.token_range(row)).collect();
        self.0.push((cx.offset, cx.tokens.pos(), real));
        Ok(())
    }

    fn edit(&mut self, _: &TapContext<'_>, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

#[test]
fn taps_see_every_step_and_rows_end_one_by_one() {
    let (model, golden) = (model("gpt2", Processing::None), RaggedGolden::open("gpt2"));
    let prompts = golden.rows[1..3].to_vec();
    let plain = run(&model, &prompts, &greedy(6), &mut NoTap);
    let stop = plain.rows[0].ids[1];
    assert!(plain.rows[0].ids[0] != stop && !plain.rows[1].ids.contains(&stop));
    let (mut options, mut log, mut told) = (greedy(6), Log::default(), Vec::new());
    options.stop_tokens = vec![9999, stop];
    let mut on_token = |new: model_hooks::GeneratedToken| {
        told.push((new.row, new.index, new.id));
        ControlFlow::Continue(())
    };
    let stopped = generate(model.generator().unwrap(), &prompts, &options, &mut log, &mut on_token).unwrap();
    assert_eq!(stopped.rows[0].ids, plain.rows[0].ids[..2]);
    assert_eq!(stopped.rows[0].stopped, StopReason::Token(stop));
    assert_eq!(stopped.rows[1], plain.rows[1], "the other row goes on as if nothing had happened");
    let (first, second): (Vec<_>, Vec<_>) = told.into_iter().partition(|(row, ..)| *row == 0);
    assert_eq!(first.iter().map(|new| new.1).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(second.iter().map(|new| new.2).collect::<Vec<_>>(), plain.rows[1].ids);
    let mut expected = vec![(0, 17, vec![0..17, 8..17])];
    expected.extend((0..5).map(|i| (17 + i, 1, vec![if i < 1 { 0..1 } else { 0..0 }, 0..1])));
    assert_eq!(log.0, expected);
}

#[test]
fn edits_steer_and_forbid() {
    let (model, golden) = (model("llama", Processing::None), RaggedGolden::open("llama"));
    let prompt = golden.rows[2].clone();
    // Uncached, token by token, with the same edit: the same ids.
    let point: HookPoint = "blocks.1.hook_resid_mid".parse().unwrap();
    let mut double = edit_at(point, |_, x| Ok((x * 2.0)?));
    let steered = run(&model, std::slice::from_ref(&prompt), &greedy(8), &mut double);
    assert_ne!(steered.rows[0].ids, golden.generated[2][..8]);
    let mut all = prompt.clone();
    for &id in &steered.rows[0].ids {
        let logits = model.hooked().forward(&TokenBatch::new(&[&all]).unwrap(), &mut double).unwrap();
        let last = values(&logits.get(0).unwrap().get(all.len() - 1).unwrap());
        let best = (0..last.len()).min_by(|a, b| last[*b].total_cmp(&last[*a]).then(a.cmp(b))).unwrap();
        assert_eq!(best as u32, id);
        all.push(id);
    }
    let banned = golden.generated[2][0];
    let mut forbid = edit_at(HookPoint::Logits, |_, x| {
        let mask: Vec<f32> = (0..384).map(|id| if id == banned { f32::NEG_INFINITY } else { 0.0 }).collect();
        Ok(x.broadcast_add(&Tensor::new(mask, x.device())?)?)
    });
    for options in [greedy(20), random(20, SamplingOptions::seeded(1))] {
        assert!(!run(&model, std::slice::from_ref(&prompt), &options, &mut forbid).rows[0].ids.contains(&banned));
    }
    let mut nan = edit_at(HookPoint::Logits, |cx, x| if cx.offset > 9 { Ok((x * f64::NAN)?) } else { Ok(x) });
    let error =
        generate(model.generator().unwrap(), &[&prompt], &greedy(5), &mut nan, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(Error::NoNextToken { row: 0, index: 2 })), "{error:?}");
}

#[test]
fn rows_end_at_the_context_and_when_the_caller_says_so() {
    for engine in engines() {
        let model = model_on("gpt2", Processing::None, engine);
        let prompts = vec![(0..250).map(|i| i * 31 % 384).collect::<Vec<u32>>(), vec![5, 6]];
        let found = run(&model, &prompts, &greedy(12), &mut NoTap);
        // 250 tokens and 6 more fill the context of 256; the seventh is the last that they predict.
        assert_eq!((found.rows[0].ids.len(), &found.rows[0].stopped), (7, &StopReason::ContextFull));
        assert_eq!((found.rows[1].ids.len(), &found.rows[1].stopped), (12, &StopReason::MaxNewTokens));
        let alone = run(&model, &prompts[1..], &greedy(12), &mut NoTap);
        if tolerance(engine, 1e-4) <= 1e-3 {
            assert_eq!(alone.rows[0], found.rows[1], "beside a row that has ended");
        }
    }
    let model = model("gpt2", Processing::None);
    let mut count = 0;
    let mut third = |_| {
        count += 1;
        if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let prompts = [vec![1u32, 2], vec![3]];
    let found = generate(model.generator().unwrap(), &prompts, &greedy(9), &mut NoTap, &mut third).unwrap();
    let ended: Vec<_> = found.rows.iter().map(|row| (row.ids.len(), row.stopped.clone())).collect();
    assert_eq!(ended, [(2, StopReason::Caller), (1, StopReason::Caller)]);
    let none = run(&model, &prompts, &greedy(0), &mut NoTap);
    assert!(none.rows.iter().all(|row| row.ids.is_empty() && row.stopped == StopReason::MaxNewTokens));
}

#[test]
fn draws_are_seeded_row_by_row() {
    let (model, golden) = (model("llama", Processing::None), RaggedGolden::open("llama"));
    let with =
        |prompts: &[Vec<u32>], seed| ids(&run(&model, prompts, &random(10, SamplingOptions::seeded(seed)), &mut NoTap));
    let together = with(&golden.rows, 3);
    assert_eq!(with(&golden.rows, 3), together);
    assert_ne!(with(&golden.rows, 4), together);
    assert_eq!(with(&golden.rows[..1], 3)[0], together[0], "other rows do not matter");
    let twice = with(&[golden.rows[0].clone(), golden.rows[0].clone()], 3);
    assert_ne!(twice[0], twice[1], "each row draws for itself");
    let mut likeliest = SamplingOptions::seeded(5);
    likeliest.top_k = Some(1);
    assert_eq!(ids(&run(&model, &golden.rows, &random(12, likeliest), &mut NoTap)), golden.generated);
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let model = model("gpt2", Processing::None);
    let generate = |prompts: &[Vec<u32>], options: &GenerateOptions| {
        let mut on_token = |_| ControlFlow::Continue(());
        generate(model.generator().unwrap(), prompts, options, &mut NoTap, &mut on_token).unwrap_err()
    };
    assert!(matches!(generate(&[], &greedy(1)), Error::EmptyBatch { rows: 0 }));
    assert!(matches!(generate(&[vec![1], vec![]], &greedy(1)), Error::EmptyRow { row: 1 }));
    assert!(matches!(generate(&[vec![1; 257]], &greedy(1)), Error::ContextExceeded { pos: 257, n_ctx: 256 }));
    assert!(matches!(generate(&[vec![384]], &greedy(1)), Error::TokenOutOfVocabulary { .. }));
    let mut cold = SamplingOptions::seeded(1);
    cold.temperature = 0.0;
    let error = generate(&[vec![1]], &random(1, cold));
    assert!(error.to_string().contains("Sampling::Greedy"), "{error}");
    let mut texts = greedy(1);
    texts.stop_strings = vec!["x".into()];
    assert!(matches!(generate(&[vec![1]], &texts), Error::BadOption { what: "stop_strings", .. }));
    let error = model.generate_text("x", &greedy(1), &mut NoTap, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::ModelWithoutTokenizer { .. }), "{error}");
}

#[test]
fn text_comes_in_whole_characters_and_stops_where_it_should() {
    let model = load(&folder("gguf").join("llama.gguf"), &LoadOptions::new(Processing::None)).unwrap();
    let tokenizer = model.try_tokenizer().unwrap();
    let words = " naïve 🦀 crabs. On Monday";
    let told = tokenizer.encode(words).unwrap().ids;
    assert!(told.len() > words.chars().count() / 2 && told.len() < 60);
    let (mut options, mut pieces) = (greedy(told.len()), Vec::new());
    let mut keep = |piece: &str| {
        pieces.push(piece.to_owned());
        ControlFlow::Continue(())
    };
    let found = model.generate_text("The", &options, &mut say(told.clone()), &mut keep).unwrap();
    assert_eq!((found.text.as_str(), &found.ids, &found.stopped), (words, &told, &StopReason::MaxNewTokens));
    assert_eq!(pieces.concat(), words);
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| !piece.contains('\u{FFFD}') && !piece.is_empty()));
    assert_eq!(tokenizer.decode(&found.prompt_ids).unwrap(), "<|bos|>The");

    // A stop text, split between tokens, and shown to nobody.
    options.max_new_tokens = 100;
    options.stop_strings = vec!["crabs! ".into(), "rabs. O".into()];
    let mut shown = String::new();
    let mut keep = |piece: &str| {
        shown += piece;
        ControlFlow::Continue(())
    };
    let found = model.generate_text("The", &options, &mut say(told.clone()), &mut keep).unwrap();
    assert_eq!(found.text, " naïve 🦀 c");
    assert_eq!((shown, &found.stopped), (found.text.clone(), &StopReason::Text("rabs. O".into())));
    assert!(found.ids.len() < told.len() && tokenizer.decode(&found.ids).unwrap().contains("rabs. O"));

    // The end of a sequence, and a character that never became complete.
    options.stop_strings.clear();
    let eos = tokenizer.eos().unwrap();
    let mut cut: Vec<u32> = told[..5].to_vec();
    let crab = tokenizer.encode("🦀").unwrap().ids;
    cut.extend([crab[0], eos]);
    let found =
        model.generate_text("The", &options, &mut say(cut.clone()), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((&found.ids, &found.stopped), (&cut, &StopReason::Token(eos)));
    assert!(crab.len() > 1 && found.text.ends_with('\u{FFFD}'), "{:?}", found.text);

    let mut enough = |_: &str| ControlFlow::Break(());
    let found = model.generate_text("The", &options, &mut say(told.clone()), &mut enough).unwrap();
    assert_eq!((found.ids.len(), found.stopped), (1, StopReason::Caller));
    options.stop_strings = vec![String::new()];
    let error = model.generate_text("The", &options, &mut NoTap, &mut enough).unwrap_err();
    assert!(matches!(error, Error::BadOption { what: "stop_strings", .. }), "{error}");
    let row = run(&model, &[vec![1, 2]], &greedy(4), &mut say(told[..4].to_vec())).rows.remove(0);
    assert_eq!(row.text(&[1, 2], tokenizer).unwrap(), tokenizer.decode(&told[..4]).unwrap());
}
