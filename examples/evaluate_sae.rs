//! How good an SAE is: what it keeps of the activations, how sparse it is, what the model loses with it; each number with an interval. Writes JSON and a page.
//!
//! ```sh
//! cargo run --release --example evaluate_sae
//! cargo run --release --example evaluate_sae -- --model DIR --sae DIR --text 'corpus/*.jsonl.zst' --rows 160 --ablation both --json OUT.json
//! ```

mod common;

use clap::{Parser, ValueEnum};
use common::engine::EngineFlags;
use common::out::print_line;
use common::{Outcome, Setup, Source, row_bar};
use saescope::activation_store::{StoreOptions, TokenFilter};
use saescope::feature_analysis::evals::{Bootstrap, EvalOptions, EvalPhase, Evaluation, evaluate_store};
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{HistogramOptions, density};
use saescope::tensor_kernels::Engine;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Evaluate an SAE.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    source: Source,
    /// Rows of tokens to look at; fewer where the text ends before
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Rows in a batch: two metrics are means over batches, as in SAELens
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens in a row [default: the SAE's own]
    #[arg(long)]
    context: Option<usize>,
    /// What the model is compared with: the hook's activation replaced by zeros, by its mean, by each, or no run of the model at all
    #[arg(long, default_value = "both")]
    ablation: Ablation,
    /// Counts special and inserted tokens like all others, and reconstructs them too
    #[arg(long)]
    keep_special: bool,
    /// Resamples of the documents for the intervals; 0 for none
    #[arg(long, default_value_t = 1000)]
    resamples: u32,
    #[command(flatten)]
    engine: EngineFlags,
    /// Where the numbers go
    #[arg(long, default_value = "target/evaluation/evaluation.json", value_name = "FILE")]
    json: PathBuf,
    /// Where the page goes [default: beside the numbers, with the ending .html]
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Ablation {
    Zero,
    Mean,
    Both,
    None,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let engine = args.engine.start()?;
    let setup = args.source.open_on(engine)?;
    print_line(format_args!(
        "model  {}\nSAE    {}\ntext   {}\nengine {engine}",
        setup.describe_model(),
        setup.describe_sae(),
        setup.describe_text()
    ));
    let started = Instant::now();
    let bar = row_bar(args.rows);
    let options = StoreOptions { context_size: args.context, ..StoreOptions::default() };
    let evaluation = evaluate_store(&setup.sae, &mut setup.store_with(options)?, &args.options(), &mut |progress| {
        bar.set_message(match progress.phase {
            EvalPhase::Mean => "mean",
            EvalPhase::Runs => "runs",
            _ => "intervals",
        });
        bar.set_length(progress.rows.unwrap_or(args.rows));
        bar.set_position(progress.rows_done);
    })?;
    bar.finish_and_clear();
    let evaluation = evaluation
        .about("model", setup.describe_model())
        .about("sae", setup.describe_sae())
        .about("text", setup.describe_text())
        .about("engine", engine.to_string());
    print_line(format_args!("\n{}\n\n{}", evaluation.describe(), evaluation.table()));
    evaluation.write_json(&args.json)?;
    let path = args.page.clone().unwrap_or_else(|| args.json.with_extension("html"));
    page(&setup, &evaluation, engine).write(&path)?;
    print_line(format_args!(
        "{:.1} s; numbers in {}, page {}",
        started.elapsed().as_secs_f64(),
        args.json.display(),
        path.display()
    ));
    Ok(())
}

impl Args {
    fn options(&self) -> EvalOptions {
        EvalOptions {
            rows: Some(self.rows),
            batch_size_prompts: self.batch,
            filter: if self.keep_special { TokenFilter::everything() } else { TokenFilter::default() },
            downstream: self.ablation != Ablation::None,
            zero_ablation: matches!(self.ablation, Ablation::Zero | Ablation::Both),
            mean_ablation: matches!(self.ablation, Ablation::Mean | Ablation::Both),
            bootstrap: Bootstrap { resamples: self.resamples, seed: self.source.seed, ..Bootstrap::default() },
            ..EvalOptions::default()
        }
    }
}

/// The table, and how often features fire.
fn page(setup: &Setup, evaluation: &Evaluation, engine: Engine) -> Page {
    let mut page =
        Page::new("An evaluation", "How well a sparse autoencoder stands in for the activations that it reads.");
    page.fact("model", setup.describe_model()).fact("SAE", setup.describe_sae()).fact("text", setup.describe_text());
    page.fact("tokens", evaluation.describe()).fact("engine", engine.to_string());
    let note = "x is the activation, e = x - x_hat what the SAE misses, E the mean over counted tokens. Intervals are from documents drawn again and again.";
    page.section(Section::new("metrics", "Metrics").text(note).table(&evaluation.table()));
    let shares: Vec<f32> = evaluation.features.feature_density.iter().map(|share| *share as f32).collect();
    let options = HistogramOptions {
        title: "Feature density".into(),
        x_label: "share of the tokens".into(),
        y_label: "features".into(),
        ..HistogramOptions::default()
    };
    page.section(Section::new("density", "How often features fire").figure(density(&shares, &options)));
    page
}
