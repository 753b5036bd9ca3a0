//! A census of the demo as a page: what is shown is what was counted.

use activation_store::{ActivationStore, DocumentOptions, Documents, StoreOptions};
use feature_analysis::page::Page;
use feature_analysis::views::{CensusPage, CensusPageOptions, DENSE};
use feature_census::{CensusOptions, CensusRun, FeatureCensus};
use model_hooks::{LanguageModel, LoadOptions, Processing, load};
use sae_core::{Sae, SparseCoder};
use std::path::PathBuf;

fn demo(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo").join(path)
}

fn store(model: &LanguageModel, sae: &Sae) -> ActivationStore {
    store_of(model, sae, demo("text.jsonl"), StoreOptions::default())
}

fn store_of(model: &LanguageModel, sae: &Sae, text: PathBuf, options: StoreOptions) -> ActivationStore {
    let text = Documents::open(&[text], DocumentOptions::default()).unwrap();
    ActivationStore::from_sae(model, sae, text, options).unwrap()
}

#[test]
fn the_page_shows_what_the_census_counted() {
    let model = load(&demo("lm"), &LoadOptions::new(Processing::TransformerLens)).unwrap();
    let sae = Sae::load(demo("sae")).unwrap();
    let census = FeatureCensus::new(sae.d_sae(), CensusOptions::default()).unwrap();
    let mut run = CensusRun::new().add(0, &sae, census).unwrap().max_tokens(20_000);
    run.run(&mut store(&model, &sae).in_order(), &mut |_| {}).unwrap();
    let census = run.finish().remove(0);

    let options = CensusPageOptions { features: 6, examples: 5, promotes: 3, ..CensusPageOptions::default() };
    let view = CensusPage::of(&census, &sae, &mut store(&model, &sae), &options).unwrap();
    assert_eq!((view.features.len(), view.cards.len()), (sae.d_sae(), 6));
    assert_eq!(view.features.iter().filter(|f| f.count == 0).count(), census.dead().len());
    for card in &view.cards {
        let top = census.top(card.numbers.feature).unwrap();
        assert!(card.numbers.density() <= DENSE && card.numbers.max == top[0].activation);
        assert_eq!(card.histogram.iter().map(|bin| bin.2).sum::<u64>(), card.numbers.count);
        assert_eq!((card.examples.len(), card.promotes.len()), (top.len().min(5), 3));
        for (example, counted) in card.examples.iter().zip(&top) {
            assert_eq!(example.activation, counted.activation);
            // The model ran on other rows beside it and the SAE on these features alone: the same bits (law 5).
            assert_eq!(
                example.tokens[example.focus].activation, counted.activation,
                "feature {}",
                card.numbers.feature
            );
            assert!(example.place.ends_with(&format!("row {}, position {}", counted.at.row, counted.at.pos)));
        }
    }
    // The hook that is read counts, whatever the SAE's metadata name: here a layer that the model does not have.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(demo("sae/sae_weights.safetensors"), folder.path().join("sae_weights.safetensors")).unwrap();
    let cfg = std::fs::read_to_string(demo("sae/cfg.json")).unwrap();
    let elsewhere = cfg.replace("blocks.2.hook_resid_pre", "blocks.77.hook_resid_pre");
    assert_ne!(cfg, elsewhere);
    std::fs::write(folder.path().join("cfg.json"), elsewhere).unwrap();
    let named = Sae::load(folder.path()).unwrap();
    let hook = StoreOptions { hook_name: Some("blocks.2.hook_resid_pre".into()), ..StoreOptions::default() };
    let mut read_here = store_of(&model, &named, demo("text.jsonl"), hook);
    let found = CensusPage::of(&census, &named, &mut read_here, &options).unwrap();
    for (found, card) in found.cards.iter().zip(&view.cards) {
        assert_eq!(found.promotes, card.promotes);
    }
    // A store that packs the text in another way, or reads another text, has other tokens at these addresses.
    let shorter = StoreOptions { context_size: Some(100), ..StoreOptions::default() };
    let without_bos = StoreOptions { prepend_bos: Some(false), ..StoreOptions::default() };
    let folder = tempfile::tempdir().unwrap();
    let lines = std::fs::read_to_string(demo("text.jsonl")).unwrap();
    let (few, reversed) = (folder.path().join("few.jsonl"), folder.path().join("reversed.jsonl"));
    std::fs::write(&few, lines.lines().take(3).collect::<Vec<_>>().join("\n")).unwrap();
    std::fs::write(&reversed, lines.lines().rev().collect::<Vec<_>>().join("\n")).unwrap();
    for (text, other) in [
        (demo("text.jsonl"), shorter),
        (demo("text.jsonl"), without_bos),
        (few, StoreOptions::default()),
        (reversed, StoreOptions::default()),
    ] {
        let found = CensusPage::of(&census, &sae, &mut store_of(&model, &sae, text, other), &options).unwrap_err();
        assert!(matches!(found, feature_analysis::Error::OtherText { .. }), "{found}");
        assert!(found.to_string().contains("context size"), "{found}");
    }
    let mut page = Page::new("census", "");
    for section in view.sections() {
        page.section(section);
    }
    let html = page.to_html();
    assert!(view.cards.iter().all(|card| html.contains(&format!("id=\"feature-{}\"", card.numbers.feature))));
}
