//! Which tokens count: store, census, collected examples, families, evaluation, export and preflight agree on one text that has a BOS and an
//! EOS inside its documents.

use saescope::activation_store::{
    ActivationStore, DocumentOptions, Documents, ExclusionCounts, StoreOptions, TokenFilter,
};
use saescope::feature_analysis::evals::{Bootstrap, EvalOptions, evaluate_store};
use saescope::feature_analysis::export::neuronpedia::{NeuronpediaOptions, NeuronpediaTarget, write_neuronpedia};
use saescope::feature_analysis::{CollectOptions, WordFeatureOptions, WordList, collect, word_features};
use saescope::feature_census::{CensusOptions, CensusRun, FeatureCensus};
use saescope::model_hooks::{LanguageModel, LoadOptions, Processing, TokenBatch, load};
use saescope::pretrained::preflight::{PreflightOptions, preflight};
use saescope::sae_core::{Sae, SparseCoder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo");
const BOS: &str = "<|endoftext|>";

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

struct Setup {
    model: LanguageModel,
    sae: Sae,
    text: PathBuf,
}

/// The demo with an end-of-sequence token of its own, and a text in which both special tokens are written.
fn setup(folder: &Path) -> Setup {
    let lm = folder.join("lm");
    std::fs::create_dir_all(&lm).unwrap();
    for entry in std::fs::read_dir(Path::new(DEMO).join("lm")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), lm.join(entry.file_name())).unwrap();
    }
    let edit = |name: &str, change: &mut dyn FnMut(&mut Value)| {
        let path = lm.join(name);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    };
    let mut eos = String::new();
    edit("tokenizer.json", &mut |json| {
        let vocabulary = json["model"]["vocab"].as_object().unwrap();
        eos = vocabulary.iter().find(|(_, id)| **id == json!(6143)).unwrap().0.clone();
        let added = json!({"id": 6143, "content": eos, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        json["added_tokens"].as_array_mut().unwrap().push(added);
    });
    edit("tokenizer_config.json", &mut |json| json["eos_token"] = eos.clone().into());
    edit("config.json", &mut |json| json["eos_token_id"] = 6143.into());
    let demo = std::fs::read_to_string(Path::new(DEMO).join("text.jsonl")).unwrap();
    let texts = demo.lines().take(12).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<String> = texts
        .map(|line| {
            let text = line["text"].as_str().unwrap();
            let half = (text.len() / 2..).find(|&at| text.is_char_boundary(at)).unwrap();
            json!({ "text": format!("{}{eos}{BOS}{}", &text[..half], &text[half..]) }).to_string()
        })
        .collect();
    let text = folder.join("text.jsonl");
    std::fs::write(&text, lines.join("\n")).unwrap();
    let model = load(&lm, &LoadOptions::new(Processing::TransformerLens)).unwrap();
    Setup { model, sae: Sae::load(Path::new(DEMO).join("sae")).unwrap(), text }
}

impl Setup {
    fn store(&self, filter: Option<TokenFilter>) -> ActivationStore {
        let text = Documents::open(&[&self.text], DocumentOptions::default()).unwrap();
        let options = StoreOptions { filter, train_batch_size_tokens: 1024, ..StoreOptions::default() };
        ActivationStore::from_sae(&self.model, &self.sae, text, options).unwrap()
    }

    fn rows(&self) -> Vec<Vec<u32>> {
        let mut store = self.store(None);
        let mut rows = Vec::new();
        while let Some(batch) = store.get_batch_tokens().unwrap() {
            rows.extend(batch.rows.into_iter().map(|row| row.tokens));
        }
        rows
    }

    /// Tokens that count and tokens that do not, by each of the library's ways of counting.
    fn counted(&self, filter: &TokenFilter, out: &Path) -> Vec<(&'static str, u64, ExclusionCounts)> {
        let Self { model, sae, .. } = self;
        let mut found = Vec::new();

        let mut store = self.store(Some(filter.clone()));
        while store.next_batch().unwrap().is_some() {}
        found.push(("store", store.report().rows, store.report().excluded));

        let options = CensusOptions { filter: filter.clone(), ..CensusOptions::default() };
        let mut run = CensusRun::new().add(0, sae, FeatureCensus::new(sae.d_sae(), options).unwrap()).unwrap();
        // The SAE's metadata exclude special tokens from training: a census of the harvest still sees and counts them.
        run.run(&mut self.store(None).in_order(), &mut |_| {}).unwrap();
        let census = run.finish().remove(0);
        found.push(("census", census.tokens(), *census.excluded()));

        let options = CollectOptions { total_batches: 1000, filter: filter.clone(), ..CollectOptions::default() };
        let kept = collect(sae, &mut self.store(None), &[767], &options, &mut |_| {}).unwrap();
        found.push(("collect", kept.counts().tokens, kept.counts().excluded));

        let family = WordList::days(model.try_tokenizer().unwrap()).unwrap();
        let options = WordFeatureOptions { filter: filter.clone(), ..WordFeatureOptions::default() };
        let report = word_features(sae, &mut self.store(None), &family, &options, &mut |_| {}).unwrap();
        found.push(("families", report.counts.tokens, report.counts.excluded));

        let options = EvalOptions {
            rows: None,
            filter: filter.clone(),
            downstream: false,
            bootstrap: Bootstrap { resamples: 0, ..Bootstrap::default() },
            ..EvalOptions::default()
        };
        let evaluation = evaluate_store(sae, &mut self.store(None), &options, &mut |_| {}).unwrap();
        found.push(("evals", evaluation.counts.counted, evaluation.counts.excluded));

        let tokenizer = model.try_tokenizer().unwrap();
        let target = NeuronpediaTarget { hook: 0, coder: sae, model, tokenizer };
        let mut options = NeuronpediaOptions::new("demo", 2, "res");
        (options.filter, options.features_per_file) = (filter.clone(), 1024);
        let report = write_neuronpedia(&mut self.store(None).in_order(), &target, out, &options, &mut |_| {}).unwrap();
        let tokens = report.rows * report.context as u64;
        found.push(("Neuronpedia", tokens - report.excluded.total(), report.excluded));
        found
    }
}

#[test]
fn all_agree_on_which_tokens_count() {
    let folder = folder("counted");
    let setup = setup(&folder);
    let rows = setup.rows();
    let special = setup.model.tokenizer().unwrap().special().clone();
    assert_eq!((special.bos, special.eos), (Some(0), Some(6143)));
    let count = |id: u32| rows.iter().flatten().filter(|token| **token == id).count() as u64;
    let (tokens, structural) = (rows.iter().map(|row| row.len() as u64).sum::<u64>(), count(0) + count(6143));
    assert!(count(6143) >= 8 && count(0) > rows.len() as u64 + 12, "{} and {}", count(6143), count(0));

    for (name, counted, excluded) in setup.counted(&TokenFilter::default(), &folder.join("default")) {
        // Every token that packing inserted here is a BOS, and counted as such.
        assert_eq!((counted, excluded.special), (tokens - structural, structural), "{name}");
        assert_eq!(
            (excluded.total(), excluded.to_string()),
            (structural, format!("{structural} special tokens left out")),
            "{name}"
        );
    }
    for (name, counted, excluded) in setup.counted(&TokenFilter::everything(), &folder.join("everything")) {
        assert_eq!((counted, excluded), (tokens, ExclusionCounts::default()), "{name}");
    }
    let without = TokenFilter::everything().with_exclude_inserted(true).with_ids([6143]);
    let by_rule = setup.counted(&without, &folder.join("inserted"));
    assert!(by_rule[0].2.inserted >= rows.len() as u64 && by_rule[0].2.ids == count(6143), "{:?}", by_rule[0]);
    assert!(
        by_rule.iter().all(|(_, counted, excluded)| (*counted, *excluded) == (by_rule[0].1, by_rule[0].2)),
        "{by_rule:?}"
    );
}

/// A preflight leaves out the first token of each row and giant norms too: the rest of what it counts is the same.
#[test]
fn a_preflight_counts_the_same_tokens() {
    let setup = setup(&folder("counted-preflight"));
    let rows: Vec<Vec<u32>> = setup.rows().into_iter().take(8).collect();
    let of = |filter: TokenFilter| {
        let mut options = PreflightOptions::default();
        (options.filter, options.remedies, options.loss) = (filter, false, false);
        preflight(&setup.model, &setup.sae, &TokenBatch::new(&rows).unwrap(), &options).unwrap().measured.unwrap()
    };
    let later = |id: u32| rows.iter().flat_map(|row| &row[1..]).filter(|token| **token == id).count() as u64;
    let found = of(TokenFilter::default());
    let tokens = rows.iter().map(|row| row.len() as u64).sum::<u64>();
    assert_eq!((found.excluded.position, found.excluded.special), (rows.len() as u64, later(0) + later(6143)));
    assert!(later(6143) > 0 && found.tokens as u64 + found.excluded.total() == tokens);
    let all = of(TokenFilter::everything());
    assert_eq!((all.excluded.position, all.excluded.special), (rows.len() as u64, 0));
}
