//! `docs/hooks.md`: which family has which hook point, of what shape; made from the models themselves.
//!
//! The test fails when the page is not what the models do; `UPDATE_DOCS=1 cargo test --release --workspace --test hooks_doc` writes it anew.

mod common;

use common::{families, folder, model};
use model_hooks::{Capture, HookPoint, LanguageModel, ModelShape, NormSite, Processing, Site, TokenBatch};
use std::fmt::Write;
use std::path::PathBuf;

const ROWS: [[u32; 5]; 2] = [[1, 7, 9, 3, 8], [1, 4, 4, 2, 30]];

/// How large an axis is in a run of [`ROWS`].
fn size(axis: &str, shape: &ModelShape) -> usize {
    match axis {
        "1" => 1,
        "batch" => ROWS.len(),
        "pos" | "q_pos" | "k_pos" => ROWS[0].len(),
        "head" => shape.n_heads,
        "kv_head" => shape.n_kv_heads,
        "d_model" => shape.d_model,
        "d_head" => shape.d_head,
        "d_mlp" => shape.d_mlp,
        "d_vocab" => shape.d_vocab,
        other => panic!("`{other}` is no axis of the glossary"),
    }
}

/// OLMo 2 takes the norm of queries (and of keys) over all heads at once, so that its scale has no axis of heads.
fn is_joint_scale(name: &str, point: HookPoint) -> bool {
    name == "olmo2" && matches!(point.site(), Some(Site::QNormScale | Site::KNormScale))
}

#[test]
fn every_point_has_the_shape_that_its_axes_say() {
    for (_, name) in families() {
        let model = model(name, Processing::None);
        let points = model.hooked().hook_points().to_vec();
        let mut capture = Capture::new(points.iter().copied());
        model.hooked().forward(&TokenBatch::new(&ROWS).unwrap(), &mut capture).unwrap();
        for point in points {
            let expected: Vec<usize> = match is_joint_scale(name, point) {
                true => vec![ROWS.len(), ROWS[0].len(), 1],
                false => point.axes().iter().map(|axis| size(axis, model.shape())).collect(),
            };
            assert_eq!(capture.get(point).unwrap().dims(), expected, "{name}: {point}");
        }
    }
}

fn has(model: &LanguageModel, point: HookPoint) -> bool {
    // Layers differ in windows and bases of rotation, never in their points.
    model.hooked().hook_points().contains(&point)
}

fn axes(point: HookPoint) -> String {
    point.axes().join(", ")
}

fn outside(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Embed => "rows of `W_E` (Gemma: times `sqrt(d_model)`)",
        HookPoint::PosEmbed => "rows of `W_pos`",
        HookPoint::FinalNorm(NormSite::Scale) => "`sqrt(mean((x - m)^2) + eps)` of the last `resid_post`",
        HookPoint::FinalNorm(_) => "`(x - m) / scale`, before gain and bias",
        _ => "`x W_U + b_U`, soft-capped where the family does",
    }
}

fn page() -> String {
    let models: Vec<(&str, LanguageModel)> =
        families().into_iter().map(|(family, name)| (family, model(name, Processing::None))).collect();
    let mut points = vec![HookPoint::Embed, HookPoint::PosEmbed];
    points.extend(Site::all().map(|site| HookPoint::Block { layer: 0, site }));
    points.extend([NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm));
    points.push(HookPoint::Logits);
    let name = |point: HookPoint| point.to_string().replace("blocks.0.", "blocks.L.");

    let mut out = String::from(
        "# Hook points\n\n\
         Made by `crates/model-hooks/tests/hooks_doc.rs` from the models themselves; the test fails when this page is not what they do.\n\
         Points are listed in the order in which they fire. `L` is the layer. Axes and letters: GLOSSARY.md.\n\n\
         | point | axes | what stands there |\n|---|---|---|\n",
    );
    for &point in &points {
        let formula = point.site().map_or_else(|| outside(point), Site::formula);
        writeln!(out, "| `{}` | {} | {formula} |", name(point), axes(point)).unwrap();
    }
    out.push_str("\n## Which family has which\n\nA dot: the family has the point. ");
    out.push_str("The copies of the stream (`hook_attn_in`, `hook_q_input`, `hook_k_input`, `hook_v_input`, `hook_mlp_in`), `mlp.hook_in` and `hook_result`\n");
    out.push_str("are made only when a tap names them. `hook_attn_in` exists where every head has its own key and value: grouped heads have none.\n\n");
    writeln!(out, "| point | {} |", models.iter().map(|(family, _)| *family).collect::<Vec<_>>().join(" | ")).unwrap();
    writeln!(out, "|---|{}", ":-:|".repeat(models.len())).unwrap();
    for &point in &points {
        let marks: Vec<_> = models.iter().map(|(_, model)| if has(model, point) { "•" } else { "" }).collect();
        writeln!(out, "| `{}` | {} |", name(point), marks.join(" | ")).unwrap();
    }
    out.push_str("\nOLMo 2 takes its norms after attention and after the MLP. TransformerLens calls them `ln1` and `ln2`; here they are `ln1_post` and\n");
    out.push_str("`ln2_post`, since the order of points is the order of execution. The scale of its norms of queries and keys is `batch, pos, 1`.\n");
    out.push_str("\nGPT-NeoX is shown with its parallel residual, as in Pythia; with a serial one it has `hook_resid_mid` as well.\n");
    out
}

#[test]
fn docs_hooks_md_is_what_the_models_do() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/hooks.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/hooks.md is not what the models do: run this test with UPDATE_DOCS=1");
}

/// One model of every family that can be loaded, and no family without one.
#[test]
fn every_family_has_a_small_model() {
    let mut shown: Vec<String> = families()
        .into_iter()
        .map(|(_, name)| {
            let config = std::fs::read(folder(name).join("config.json")).unwrap();
            let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
            config["model_type"].as_str().unwrap().to_owned()
        })
        .collect();
    shown.sort_unstable();
    // A multimodal Gemma 3 holds the same decoder.
    let mut supported: Vec<&str> = model_hooks::AnyModel::supported().filter(|name| *name != "gemma3").collect();
    supported.sort_unstable();
    assert_eq!(shown, supported);
}
