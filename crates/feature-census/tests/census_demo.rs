//! The census of a real SAE on a real text (the embedded demo) against a brute-force one over its dense activations.

#[path = "census/support.rs"]
mod support;

use activation_store::{ActivationSource, ActivationStore, DocumentOptions, Documents, Harvest, StoreOptions};
use feature_census::*;
use model_hooks::{LanguageModel, LoadOptions, Processing, load};
use sae_core::{Sae, SparseCoder};
use std::path::{Path, PathBuf};
use support::{Brute, bytes};

const TOKENS: u64 = 50_000;

fn demo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo").join(path)
}

fn harvest(model: &LanguageModel, sae: &Sae, prompts: usize) -> Harvest {
    let text = Documents::open(&[demo("text.jsonl")], DocumentOptions::default()).unwrap();
    let options = StoreOptions { store_batch_size_prompts: prompts, ..StoreOptions::default() };
    ActivationStore::from_sae(model, sae, text, options).unwrap().in_order()
}

fn census(model: &LanguageModel, sae: &Sae, prompts: usize, options: &CensusOptions) -> FeatureCensus {
    let census = FeatureCensus::new(sae.d_sae(), options.clone()).unwrap();
    let mut run = CensusRun::new().add(0, sae, census).unwrap().max_tokens(TOKENS);
    run.run(&mut harvest(model, sae, prompts), &mut |_| {}).unwrap();
    run.finish().remove(0)
}

#[test]
fn equals_a_dense_census_of_fifty_thousand_tokens() {
    let model = load(&demo("lm"), &LoadOptions::new(Processing::TransformerLens)).unwrap();
    let sae = Sae::load(demo("sae")).unwrap();
    let options = CensusOptions { together: vec![0, 1000], seed: 3, ..CensusOptions::default() };
    let census_of_eight = census(&model, &sae, 8, &options);

    let mut brute = Brute::new(&options, sae.d_sae(), model.tokenizer());
    let mut source = harvest(&model, &sae, 8);
    let mut seen = 0;
    while seen < TOKENS as usize {
        let batch = source.next().unwrap().unwrap();
        let dense = sae.encode_dense(&batch.rows[0]).unwrap().to_vec2::<f32>().unwrap();
        let rows = source.token_rows().unwrap();
        for (i, line) in dense.iter().enumerate().take(TOKENS as usize - seen) {
            let doc = rows.locate(batch.at[i]).unwrap().origin.map(|origin| origin.doc);
            brute.look(batch.at[i], batch.tokens[i], doc, (0..).zip(line.iter().copied()));
        }
        seen += batch.len();
    }
    brute.check(&census_of_eight);
    assert!(census_of_eight.excluded().special > 0 && census_of_eight.l0() > 5.0);

    let census_of_three = census(&model, &sae, 3, &options);
    assert_eq!(census_of_three.tokens(), census_of_eight.tokens());
    assert!(bytes(&census_of_three) == bytes(&census_of_eight), "forward passes of other sizes make no difference");
}
