//! From the embedded demo's files to activations, codes, losses and predictions, against SAELens and TransformerLens
//! (`tests/golden/demo`). What the notebook makes of them is tested in `crates/feature-analysis/tests/demo.rs`.

mod support;

use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions};
use candle_core::IndexOp;
use model_hooks::{
    AddBos, Capture, HookPoint, LanguageModel, LoadOptions, NoTap, Processing, TokenBatch, next_token_loss,
    next_token_loss_per_token,
};
use sae_core::{Sae, SparseCoder};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{Golden, close, floats, json, parse, within};

const HOOK: &str = "blocks.2.hook_resid_pre";

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo").join(file)
}

struct Demo {
    model: LanguageModel,
    sae: Sae,
    golden: Golden,
    answers: Value,
}

impl Demo {
    fn load() -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/demo");
        Self {
            model: model_hooks::load(&demo("lm"), &LoadOptions::new(Processing::TransformerLens))
                .expect("the model loads"),
            sae: Sae::load(demo("sae")).expect("the SAE loads"),
            golden: Golden::open(golden.join("answers.safetensors")),
            answers: json(golden.join("answers.json")),
        }
    }

    fn store(&self) -> ActivationStore {
        let documents = Documents::open(&[demo("text.jsonl")], DocumentOptions::default()).expect("the text");
        ActivationStore::from_sae(&self.model, &self.sae, documents, StoreOptions::default()).expect("a store")
    }

    fn first_batch(&self) -> TokenBatch {
        let tokens = self.golden.tokens("batches");
        TokenBatch::new(&tokens.rows().take(8).collect::<Vec<_>>()).expect("eight rows")
    }

    fn number(&self, key: &str) -> f64 {
        self.answers[key].as_f64().expect("a number")
    }
}

#[test]
fn get_batch_tokens_is_saelens() {
    let demo = Demo::load();
    let mut store = demo.store();
    let reference = demo.golden.ids("batches");
    let mut ours = Vec::new();
    for _ in 0..3 {
        let batch = store.get_batch_tokens().expect("tokens").expect("a batch");
        ours.extend(batch.rows.into_iter().flat_map(|row| row.tokens));
    }
    assert_eq!(ours, reference);
    // SAELens drops the rows that do not fill the last batch.
    let mut full = 3;
    while let Some(batch) = store.get_batch_tokens().expect("tokens") {
        full += u64::from(batch.rows.len() == 8);
    }
    assert_eq!(full, parse::<u64>(&demo.answers["all_batches"]));
}

#[test]
fn activations_codes_and_losses_agree() {
    let demo = Demo::load();
    let (tokens, point): (_, HookPoint) = (demo.first_batch(), HOOK.parse().expect("a name"));
    let mut capture = Capture::new([point]);
    let logits = demo.model.hooked().forward(&tokens, &mut capture).expect("the forward runs");
    let resid = capture.take(point).expect("captured");
    let head = |x: &candle_core::Tensor, n: usize| floats(&x.i((0, ..n)).expect("the first positions"));
    within("residual", &head(&resid, 32), &demo.golden.floats("resid"), 1e-5);
    let result = demo.sae.forward(&resid).expect("a reconstruction");
    within("codes", &head(&result.codes.to_dense().expect("dense"), 8), &demo.golden.floats("codes"), 2e-5);
    within("reconstruction", &head(&result.x_hat, 32), &demo.golden.floats("sae_out"), 2e-5);
    close("L0", result.codes.features.l0(), demo.number("l0"), 1e-3);
    close("loss", next_token_loss(&logits, &tokens).expect("a loss"), demo.number("loss"), 1e-5);
    let per_row = next_token_loss_per_token(&logits, &tokens).and_then(|loss| Ok(loss.mean(1)?)).expect("losses");
    within("loss per row", &floats(&per_row), &parse::<Vec<f32>>(&demo.answers["loss_per_row"]), 1e-5);
}

#[test]
fn predictions_agree() {
    let demo = Demo::load();
    let tokenizer = demo.model.tokenizer().expect("a tokenizer");
    for case in demo.answers["prompts"].as_array().expect("a list") {
        let prompt = case["prompt"].as_str().expect("text");
        let ids = tokenizer.to_tokens(prompt, AddBos::Always, None).expect("tokens").ids;
        assert_eq!(ids, parse::<Vec<u32>>(&case["ids"]), "{prompt:?}");
        let logits =
            demo.model.hooked().forward(&TokenBatch::new(&[&ids]).expect("a row"), &mut NoTap).expect("logits");
        let last = floats(&logits.i((0, ids.len() - 1)).expect("the last position"));
        let mut order: Vec<u32> = (0..).take(last.len()).collect();
        order.sort_by(|&a, &b| last[b as usize].total_cmp(&last[a as usize]));
        assert_eq!(order[..5], parse::<Vec<u32>>(&case["top5_ids"]), "{prompt:?}");
        let ours: Vec<f32> = order[..5].iter().map(|&id| last[id as usize]).collect();
        within(prompt, &ours, &parse::<Vec<f32>>(&case["top5_logits"]), 1e-5);
    }
}
