//! The notebook from the store to the PCA: every answer of `seed_run.json`.

use crate::support::{close, parse, same_rows, summary};
use crate::{golden, json, load_model, load_sae, path};
use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{UInt32Type, UInt64Type};
use feature_analysis::{
    CollectOptions, ContextEnd, FeatureExamples, FrameOptions, LensOptions, Pca, PositiveActivations, Solver, collect,
    logit_lens, token_frame, top_activations, top_frame,
};
use model_hooks::{LanguageModel, Processing};
use sae_core::Sae;
use serde_json::Value;

fn store(model: &LanguageModel, sae: &Sae) -> ActivationStore {
    let documents = Documents::open(&[path("SAESCOPE_GPT2_CORPUS")], DocumentOptions::default()).expect("the corpus");
    ActivationStore::from_sae(model, sae, documents, StoreOptions::default()).expect("a store")
}

fn notebook_frames() -> FrameOptions {
    FrameOptions { suffix: ContextEnd::Notebook, ..FrameOptions::default() }
}

/// The notebook's columns of line `i`.
fn line(frame: &RecordBatch, i: usize) -> Value {
    let text = |name: &str| frame[name].as_string::<i32>().value(i);
    serde_json::json!({
        "str_tokens": text("str_tokens"), "unique_token": text("unique_token"), "context": text("context"),
        "prompt": frame["prompt"].as_primitive::<UInt32Type>().value(i), "pos": frame["pos"].as_primitive::<UInt32Type>().value(i),
    })
}

#[test]
#[ignore = "needs all four"]
fn batches_of_tokens_and_their_frame_are_those_of_saelens() {
    let (model, sae) = (load_model(Processing::TransformerLens), load_sae());
    let mut store = store(&model, &sae);
    let reference = golden("store_batches.safetensors").ids("batches");
    let mut ours = Vec::new();
    for batch in 0..3u64 {
        let rows = store.get_batch_tokens().expect("tokens").expect("a batch").rows;
        ours.extend(rows.iter().flat_map(|row| row.tokens.clone()));
        if batch == 0 {
            frame_agrees(
                &token_frame(&rows[..2], 0, model.tokenizer().expect("a tokenizer"), &notebook_frames())
                    .expect("a frame"),
            );
        }
    }
    assert_eq!(ours, reference, "get_batch_tokens");
    println!("| get_batch_tokens, 3 x 8 x 128 | equal | exact |");
}

fn frame_agrees(frame: &RecordBatch) {
    let reference = json("token_df_batch0_prompts01.json");
    let reference = reference.as_array().expect("lines");
    assert_eq!(frame.num_rows(), reference.len());
    for (i, want) in reference.iter().enumerate() {
        let label = frame["label"].as_string::<i32>().value(i);
        assert_eq!(label, want["label"].as_str().expect("text"));
        let mut want = want.clone();
        want.as_object_mut().expect("a line").remove("label");
        assert_eq!(line(frame, i), want);
    }
    println!("| token frame of {} tokens | equal | exact |", reference.len());
}

#[test]
#[ignore = "needs all four"]
fn every_answer_of_the_notebook() {
    let (model, sae, run) = (load_model(Processing::TransformerLens), load_sae(), json("seed_run.json"));
    let (answers, batches): (&Value, u64) = (&run["answers"], parse(&run["batches"]));
    let (features, days): (Vec<u32>, Vec<u32>) = (parse(&run["features"]), parse(&run["days"]));
    let number = |key: &str| answers[key].as_f64().expect("a number");
    let mut store = store(&model, &sae);
    let options = CollectOptions::notebook(batches);
    let mut examples = 0;
    let kept = collect(&sae, &mut store, &features, &options, &mut |p| examples = p.examples).expect("the loop runs");
    assert_eq!(examples, kept.len(), "the last \"Examples found\"");

    // Cells 20 to 22. How many rows may differ is the other test's matter: it knows which are at the edge.
    let (_, acts, squares) = summary(&kept, 0, 128);
    close("kept rows", kept.len() as f64, number("fired_tokens"), 5e-4);
    close("sum of activations", acts, number("acts_sum"), 1e-4);
    close("sum of squared reconstructions", squares, number("rec_sumsq"), 1e-4);
    let positive = PositiveActivations::of(&kept, features[0]).expect("collected");
    close("percent positive of the first feature", positive.percent(), number("prop_positive_feature0"), 1e-6);
    top10_agrees(&kept, features[0], answers, &model);

    // Cell 24.
    let lens = logit_lens(&model, &sae, Some(&features[..1]), &LensOptions::default()).expect("a lens");
    let tokens: Vec<u32> = lens.features[0].tokens.top.iter().map(|&(id, _)| id).collect();
    let tokens = model.tokenizer().expect("a tokenizer").to_str_tokens(&tokens).expect("tokens");
    assert_eq!(tokens, parse::<Vec<String>>(&answers["logit_lens_feature0"]));
    println!("| logit lens of the first feature | equal | exact |");

    // Cells 26 and 27, on the batches that follow.
    let kept = collect(&sae, &mut store, &days, &options, &mut |_| ()).expect("the loop runs");
    close("kept rows of nine features", kept.len() as f64, number("days_fired"), 5e-4);
    let pca = Pca::fit(&kept.reconstructions().expect("reconstructions"), 3, Solver::Auto).expect("a PCA");
    for (ours, theirs) in pca.explained_variance_ratio().into_iter().zip(parse::<Vec<f64>>(&answers["pca_explained"])) {
        close("share of a component", ours, theirs, 1e-4);
    }
}

fn top10_agrees(kept: &FeatureExamples, feature: u32, answers: &Value, model: &LanguageModel) {
    let values: Vec<f32> = parse(&answers["top10_values"]);
    let top = top_activations(kept, feature, 10).expect("collected");
    let frame =
        top_frame(kept, feature, 10, model.tokenizer().expect("a tokenizer"), &notebook_frames()).expect("a frame");
    for (i, (top, value)) in top.iter().zip(&values).enumerate() {
        close(&format!("top {i}"), f64::from(top.activation), f64::from(*value), 1e-4);
        let mut want = answers["top10_rows"][i].clone();
        let batch = want.as_object_mut().expect("a line").remove("batch").expect("a batch");
        assert_eq!(line(&frame, i), want, "top {i}");
        assert_eq!(frame["batch"].as_primitive::<UInt64Type>().value(i), parse::<u64>(&batch), "batch of top {i}");
    }
    println!("| contexts of the top 10 | equal | exact |");
}

#[test]
#[ignore = "needs all four, and seed_run_rows.safetensors of tools/goldens/golden_gpt2.py"]
fn the_same_rows_are_kept_but_for_those_at_the_edge() {
    let (model, sae, run) = (load_model(Processing::TransformerLens), load_sae(), json("seed_run.json"));
    let rows = golden("seed_run_rows.safetensors");
    let batches: u64 = parse(&run["batches"]);
    let mut store = store(&model, &sae);
    for (first, list, prefix) in [(0, "features", ""), (batches, "days", "days.")] {
        let features: Vec<u32> = parse(&run[list]);
        let kept = collect(&sae, &mut store, &features, &CollectOptions::notebook(batches), &mut |_| ())
            .expect("the loop runs");
        let (ours, _, _) = summary(&kept, first * 8, 128);
        let golden = |name: &str| rows.ints(&format!("{prefix}{name}"));
        same_rows(&format!("{list}: kept rows"), &ours, &golden("kept"), &golden("near_edge"));
    }
}
