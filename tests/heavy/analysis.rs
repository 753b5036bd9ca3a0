//! The logit lens and the PCA.

use crate::support::{floats, parse, within};
use crate::{FILES, golden, json, load_model, load_sae};
use feature_analysis::{LensOptions, Pca, Solver, logit_lens};

#[test]
#[ignore = "needs SAESCOPE_GPT2_RANDOM, SAESCOPE_GPT2_SAE and SAESCOPE_GOLDENS"]
fn the_logit_lens_names_the_tokens_of_python() {
    let (sae, features): (_, Vec<u32>) = (load_sae(), parse(&json("meta.json")["features100"]));
    for (file, processing) in FILES {
        let (model, golden) = (load_model(processing), golden(file));
        let lens = logit_lens(&model, &sae, Some(&features[..20]), &LensOptions::default()).expect("a lens");
        let tops = || lens.features.iter().flat_map(|f| &f.tokens.top);
        let (ids, values): (Vec<u32>, Vec<f32>) = tops().copied().unzip();
        within(&format!("{file} lens values"), &values, &golden.floats("lens.values"), 1e-5);
        assert_eq!(ids, golden.ids("lens.ids"), "{file}: lens tokens");
        println!("| {file} lens tokens of 20 features | equal | exact |");
    }
}

#[test]
#[ignore = "needs SAESCOPE_GOLDENS"]
fn the_pca_is_scikit_learns() {
    for (file, _) in FILES {
        let golden = golden(file);
        let x = golden.tensor("pca.input");
        for solver in [Solver::Gram, Solver::Linfa] {
            let pca = Pca::fit(&x, 3, solver).expect("a PCA");
            let narrow = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let name = |what: &str| format!("{file} {solver:?} {what}");
            within(&name("components"), &narrow(pca.components()), &golden.floats("pca.components_"), 1e-4);
            within(&name("mean"), &narrow(pca.mean()), &golden.floats("pca.mean_"), 1e-5);
            within(
                &name("variance"),
                &narrow(&pca.explained_variance()),
                &golden.floats("pca.explained_variance_"),
                1e-5,
            );
            let ratio = pca.explained_variance_ratio();
            within(&name("ratio"), &narrow(&ratio), &golden.floats("pca.explained_variance_ratio_"), 1e-5);
            let embedding = pca.transform(&x).expect("an embedding");
            within(&name("embedding"), &floats(&embedding), &golden.floats("pca.embedding"), 1e-4);
        }
    }
}
