//! The tour, run as the example runs it, on a part of the embedded demo.

#[allow(dead_code)]
#[path = "../examples/tour.rs"]
mod tour;

use clap::Parser;
use serde_json::Value;
use std::path::{Path, PathBuf};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo");

/// The almanac's documents of the demo's text, where the names of days are.
fn almanac(folder: &Path) -> PathBuf {
    let all = std::fs::read_to_string(Path::new(DEMO).join("text.jsonl")).unwrap();
    let lines: Vec<&str> = all.lines().filter(|l| l.contains("\"almanac\"")).collect();
    assert!(lines.len() > 50, "{} documents", lines.len());
    let path = folder.join("almanac.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn run(flags: &[&str]) -> Result<(), String> {
    let args = tour::Args::try_parse_from(["tour"].iter().chain(flags)).map_err(|e| e.to_string())?;
    tour::tour(&args).map_err(|e| e.to_string())
}

/// The figures of a page, as plotly.js reads them.
fn figures(html: &str) -> Vec<Value> {
    let blocks = html.split("<script type=\"application/json\"").skip(1);
    blocks.map(|b| serde_json::from_str(&b[b.find('>').unwrap() + 1..b.find("</script>").unwrap()]).unwrap()).collect()
}

#[test]
fn the_tour_leads_from_text_to_the_days_of_the_week() {
    let out = folder("tour");
    let text = almanac(&out);
    let flags =
        ["--text", text.to_str().unwrap(), "--batches", "3", "--family-batches", "40", "--out", out.to_str().unwrap()];
    run(&flags).unwrap();
    let html = std::fs::read_to_string(out.join("tour.html")).unwrap();
    for section in
        ["prompt", "l0", "losses", "with-sae", "frame", "histogram", "top", "lens", "density", "family", "pca"]
    {
        assert!(html.contains(&format!("<section id=\"{section}\"")), "no section {section}");
    }
    assert!(html.contains("special tokens left out"), "what was left out is said");
    let figures = figures(&html);
    let title = |f: &Value| f["layout"]["title"]["text"].as_str().unwrap().to_owned();
    assert!(title(&figures[0]).starts_with("L0: features that fire on a token"), "{}", title(&figures[0]));
    assert!(title(&figures[1]).starts_with("Histogram of positive activations - "), "{}", title(&figures[1]));
    // The almanac's 28 rows, all but the first token of each.
    let counted: u64 = figures[0]["data"][0]["y"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counted, 28 * 127);
    let scatter = figures.iter().find(|f| title(f).starts_with("PCA Subspace Reconstructions")).unwrap();
    let names: Vec<_> = scatter["data"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    // The seven commonest tokens on which the family's features fire are the days, whatever else they fire on.
    for day in ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"] {
        assert!(names.iter().take(9).any(|n| n.trim_start_matches('␣') == day), "{day} is not common in {names:?}");
    }
    // Losses in their order: the reconstruction costs something, zeros much more.
    let section = |id: &str| {
        let from = html.find(&format!("<section id=\"{id}\"")).unwrap();
        &html[from..from + html[from..].find("</section>").unwrap()]
    };
    let cells = |id: &str| -> Vec<String> {
        let cells = section(id).split("<td").skip(1);
        cells.map(|cell| cell[cell.find('>').unwrap() + 1..cell.find("</td>").unwrap()].to_owned()).collect()
    };
    let loss: Vec<f64> = cells("losses").chunks(2).map(|row| row[1].parse().unwrap()).collect();
    assert!(loss.len() == 3 && loss[0] < loss[1] && loss[1] + 1.0 < loss[2], "{loss:?}");
    let asked = cells("with-sae");
    assert_eq!((asked.len(), asked[1].as_str()), (70, "␣Wednesday"), "{asked:?}");
    assert!(section("with-sae").contains("goes on with ␣Wednesday: rank 0, "), "{}", section("with-sae"));

    assert!(std::fs::metadata(out.join("examples.parquet")).unwrap().len() > 1000);
    assert_eq!(std::fs::read_to_string(out.join("top10.csv")).unwrap().lines().count(), 11);

    // The same seed draws the same page.
    run(&flags).unwrap();
    assert_eq!(html, std::fs::read_to_string(out.join("tour.html")).unwrap());
}

#[test]
fn an_sae_that_does_not_fit_is_refused_in_words() {
    let out = folder("tour_refused");
    let refused =
        |flags: &[&str]| run(&[flags, &["--batches", "1", "--out", out.to_str().unwrap()]].concat()).unwrap_err();
    let lm = format!("{DEMO}/lm");
    let message = refused(&["--model", &lm]);
    assert!(message.contains("--sae random:D_SAE@HOOK"), "{message}");
    let message = refused(&["--sae", "random:64@blocks.9.hook_resid_pre"]);
    assert!(message.contains("blocks.9.hook_resid_pre") && message.contains("4 layers"), "{message}");
    let message = refused(&["--sae", "random:many@blocks.1.hook_resid_pre"]);
    assert!(message.contains("random:D_SAE@HOOK"), "{message}");
    let message = refused(&["--features", "7,2048"]);
    assert!(message.contains("2048") && message.contains("0..2048"), "{message}");
    assert!(!out.join("tour.html").exists());
}

/// An SAE folder whose width is not the model's.
#[test]
fn a_width_that_is_not_the_models_is_refused() {
    use saescope::model_hooks::{LoadOptions, load};
    let out = folder("tour_width");
    let sae = out.join("sae");
    std::fs::create_dir_all(&sae).unwrap();
    let model = load(&Path::new(DEMO).join("lm"), &LoadOptions::default()).unwrap();
    let narrow = tour::common::random_sae::Spec::parse("random:16@blocks.2.attn.hook_q").unwrap().unwrap();
    let mut narrow = narrow.build(&model, saescope::tensor_kernels::Engine::Reference, 0).unwrap();
    let mut metadata = narrow.metadata().clone();
    metadata.hook_name = Some("blocks.2.mlp.hook_post".into());
    narrow = narrow.with_metadata(metadata);
    narrow.save(&sae).unwrap();
    let message = run(&["--sae", sae.to_str().unwrap(), "--out", out.to_str().unwrap()]).unwrap_err();
    assert!(
        message.contains("256") && message.contains("1024") && message.contains("blocks.2.mlp.hook_post"),
        "{message}"
    );
}
