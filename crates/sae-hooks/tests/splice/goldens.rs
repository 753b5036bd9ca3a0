//! SAELens' `HookedSAETransformer` on the same model with the same SAEs: every tensor of `tests/golden/splice`, on every engine.

use super::support::*;
use activation_store::TokenFilter;
use candle_core::Tensor;
use model_hooks::{
    Arithmetic, Engine, HookPoint, HookedModel, LanguageModel, LoadOptions, Precision, Processing, TokenBatch,
};
use sae_core::Sae;
use sae_hooks::{FeatureEdit, HookedSae, SaeHookPoint, SaeSite, Splice};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tensor_files::SafetensorsFile;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/splice")
}

struct Golden {
    file: SafetensorsFile,
    meta: Value,
}

impl Golden {
    fn open() -> Self {
        let meta = std::fs::read(folder().join("meta.json")).unwrap();
        let file = SafetensorsFile::open(folder().join("golden.safetensors")).unwrap();
        Self { file, meta: serde_json::from_slice(&meta).unwrap() }
    }

    fn tensor(&self, name: &str) -> Tensor {
        let name = self.meta["same_as"][name].as_str().unwrap_or(name);
        self.file.load(name).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn tokens(&self) -> TokenBatch {
        let rows: Vec<Vec<i64>> = self.file.load("tokens").unwrap().to_vec2().unwrap();
        let rows: Vec<Vec<u32>> = rows.into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect();
        TokenBatch::new(&rows).unwrap()
    }

    /// For each model and case, what is recorded of it: `logits` and names of places.
    fn cases(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut cases = BTreeMap::<_, Vec<_>>::new();
        let others = self.meta["same_as"].as_object().unwrap().keys().cloned();
        for name in self.file.names().into_iter().chain(others).filter(|name| name != "tokens") {
            let (model, rest) = name.split_once('.').unwrap();
            let at = rest.find(".blocks.").or_else(|| rest.find(".logits")).unwrap();
            cases.entry((model.into(), rest[..at].into())).or_default().push(rest[at + 1..].into());
        }
        cases
    }

    fn hook(&self, sae: &str, side: &str) -> HookPoint {
        at(self.meta["saes"][sae][side].as_str().unwrap())
    }

    /// The splice of a case.
    fn splice<'a>(&self, model: &dyn HookedModel, saes: &'a BTreeMap<String, Sae>, case: &str) -> Splice<'a> {
        let (which, ways) = case.split_once('.').unwrap_or((case, ""));
        let has = |way| ways.contains(way);
        let number = |key: &str| self.meta[key].as_f64().unwrap() as f32;
        let excluded = self.meta["excluded_tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
        let excluded: Vec<u32> = excluded.filter(|_| has("exclude")).collect();
        let mut splice = Splice::new(model);
        for (name, sae) in saes.iter().filter(|(name, _)| which == "all" || which == **name) {
            let (input, output) = (self.hook(name, "hook_in"), self.hook(name, "hook_out"));
            let feature = self.meta["saes"][name]["feature"].as_u64().unwrap() as u32;
            let sae = HookedSae::between(input, output, sae)
                .error_term(has("error"))
                .filter(&TokenFilter::everything().with_ids(excluded.clone()), None)
                .unwrap();
            splice = splice.with(sae).unwrap();
            if has("ablate") {
                splice = splice.edit(output, FeatureEdit::ablate([feature])).unwrap();
            }
            if has("clamp") {
                splice = splice.edit(output, FeatureEdit::clamp([feature], number("clamp"))).unwrap();
            }
            if has("steer") {
                splice = splice.edit(output, FeatureEdit::add([feature], number("steer"))).unwrap();
            }
            if has("recons_zero") {
                let recons = SaeHookPoint::new(output, SaeSite::Recons);
                splice = splice.edit_tensor(recons, |_, x| Ok(x.zeros_like()?)).unwrap();
            }
        }
        splice
    }
}

/// The four SAEs on an engine.
fn saes(engine: Engine) -> BTreeMap<String, Sae> {
    let load = |name: &str| {
        let folder = folder().join("saes").join(name);
        let options = sae_core::LoadOptions { engine, ..Default::default() };
        (name.to_owned(), Sae::load_with(folder, &options).unwrap())
    };
    ["standard", "topk", "jumprelu", "transcoder"].map(load).into()
}

fn golden_model(processing: &str, engine: Engine) -> LanguageModel {
    let processing = if processing == "raw" { Processing::None } else { Processing::TransformerLens };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../model-hooks/tests/golden/gpt2");
    model_hooks::load(&folder, &LoadOptions::new(processing).engine(engine)).unwrap()
}

/// Where products are rounded a feature near its threshold goes the other way, so there only logits are compared, by their rms.
fn is_coarse(engine: Engine) -> bool {
    let rounded = |a: Arithmetic| a.precision() == Precision::Bf16 || a.kernel_name() == "amx bf16x3";
    matches!(engine, Engine::Kernels(arithmetic) if rounded(arithmetic))
}

#[test]
fn every_recorded_value_is_found_again() {
    let golden = Golden::open();
    let (tokens, mut compared) = (golden.tokens(), 0);
    for engine in engines() {
        let saes = saes(engine);
        for ((processing, case), names) in golden.cases() {
            let model = golden_model(&processing, engine);
            let splice = golden.splice(model.hooked(), &saes, &case);
            let points = splice.sae_points();
            let mut splice = splice.capture(points).unwrap();
            let logits = model.hooked().forward(&tokens, &mut splice).unwrap();
            for name in names {
                let what = format!("{processing}.{case}.{name}");
                let expected = golden.tensor(&what);
                let found = match name.as_str() {
                    "logits" => logits.clone(),
                    _ if is_coarse(engine) => continue,
                    name => splice.captured().tensor(name.parse().unwrap()).unwrap(),
                };
                let what = format!("{what} on {engine}");
                if flat(&expected).iter().all(|x| *x == 0.0) {
                    assert!(flat(&found).iter().all(|x| *x == 0.0), "{what}");
                } else if is_coarse(engine) {
                    let rms = rms_error(&found, &expected);
                    assert!(rms <= 0.1, "{what}: rms of errors {rms:.2e}");
                } else {
                    assert_close(&what, &found, &expected, 1e-4);
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 2 * 110, "{compared}");
}

/// The places that SAELens' cache lists, in its order.
#[test]
fn the_places_and_their_order_are_saelens() {
    let golden = Golden::open();
    let (model, saes) = (golden_model("proc", Engine::Reference), saes(Engine::Reference));
    for (case, order) in golden.meta["cache_order"].as_object().unwrap() {
        let (_, case) = case.split_once('.').unwrap();
        let names = order.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        let expected: Vec<String> = names.filter(|name| name.contains(".hook_sae_")).collect();
        let found = golden.splice(model.hooked(), &saes, case).sae_points();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{case}");
    }
}
