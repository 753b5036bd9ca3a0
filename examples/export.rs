//! Every activation of an SAE on a text as delphi's cache of latents, its features as Neuronpedia's dashboards, or the SAE itself as a SAELens folder.
//!
//! ```sh
//! cargo run --release --example export -- --format delphi --out target/latents --rows 64
//! cargo run --release --example export -- --format neuronpedia --out target/dashboards --rows 64
//! cargo run --release --example export -- --format saelens --out target/sae
//! ```
//! The last line on standard output is one JSON object; the progress bar is on standard error.

mod common;

use clap::{Parser, ValueEnum};
use common::engine::EngineFlags;
use common::out::print_line;
use common::{Outcome, Setup, Source, token_bar};
use saescope::activation_store::StoreOptions;
use saescope::feature_analysis::export::ExportStage;
use saescope::feature_analysis::export::delphi::{DelphiOptions, ExportSae, write_delphi};
use saescope::feature_analysis::export::neuronpedia::{NeuronpediaOptions, NeuronpediaTarget, write_neuronpedia};
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes what other tools read.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    engine: EngineFlags,
    /// What is written
    #[arg(long, value_enum)]
    format: Format,
    /// The folder that is made, one that is not there yet
    #[arg(long)]
    out: PathBuf,
    /// Rows of tokens, for delphi and Neuronpedia [default: the whole text]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rows: Option<u64>,
    /// Ranges of features, for delphi
    #[arg(long, default_value_t = 5)]
    splits: usize,
    /// The set of SAEs, for Neuronpedia
    #[arg(long, default_value = "res")]
    sae_set: String,
    /// The hookpoint's folder, for delphi [default: the SAE's hook]
    #[arg(long)]
    hookpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// delphi's cache of latents.
    Delphi,
    /// Neuronpedia's feature dashboards.
    Neuronpedia,
    /// A SAELens folder.
    Saelens,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let setup = args.source.open_on(args.engine.start_in(common::engine::Precision::F32)?)?;
    print_line(format_args!(
        "model  {}\nSAE    {}\ntext   {}",
        setup.describe_model(),
        setup.describe_sae(),
        setup.describe_text()
    ));
    match args.format {
        Format::Delphi => delphi(args, &setup),
        Format::Neuronpedia => neuronpedia(args, &setup),
        Format::Saelens if args.out.exists() => Err(format!("{} exists already", args.out.display()).into()),
        Format::Saelens => {
            setup.sae.save(&args.out)?;
            print_line(format_args!("{}", serde_json::json!({ "out": args.out })));
            Ok(())
        }
    }
}

fn delphi(args: &Args, setup: &Setup) -> Outcome {
    // delphi caches every token.
    let store = StoreOptions::default();
    let batch_size = store.store_batch_size_prompts;
    let mut harvest = setup.store_with(store)?.in_order();
    let hook = setup.sae.metadata().hook_name.clone().unwrap_or_else(|| "sae".into());
    let hookpoint = args.hookpoint.clone().unwrap_or(hook);
    let target = ExportSae { hook: 0, coder: &setup.sae, hookpoint };
    let options = DelphiOptions {
        n_splits: args.splits,
        rows: args.rows,
        model_name: setup.model.name().to_string(),
        dataset_repo: setup.describe_text(),
        batch_size,
        ..DelphiOptions::default()
    };
    let bar = token_bar(None);
    let report = write_delphi(&mut harvest, &[target], &args.out, &options, &mut |progress| {
        if progress.stage == ExportStage::Text {
            bar.set_position(progress.done);
        }
    })?;
    bar.finish();
    let result = serde_json::json!({
        "out": args.out, "rows": report.rows, "context": report.context, "activations": report.activations[0],
    });
    print_line(result);
    Ok(())
}

fn neuronpedia(args: &Args, setup: &Setup) -> Outcome {
    let tokenizer = setup.model.tokenizer().ok_or("the model has no tokenizer: tokens cannot be printed")?;
    let hook = setup.sae.metadata().hook_name.clone().unwrap_or_default();
    let layer = hook.split('.').find_map(|part| part.parse().ok()).unwrap_or(0);
    let mut harvest = setup.store()?.in_order();
    let target = NeuronpediaTarget { hook: 0, coder: &setup.sae, model: &setup.model, tokenizer };
    let options = NeuronpediaOptions {
        rows: args.rows,
        dataset: setup.describe_text(),
        ..NeuronpediaOptions::new(setup.model.name().to_string(), layer, args.sae_set.as_str())
    };
    let bar = token_bar(None);
    let report = write_neuronpedia(&mut harvest, &target, &args.out, &options, &mut |progress| {
        if progress.stage == ExportStage::Files && progress.done == 1 {
            bar.set_length(progress.of.unwrap_or(0));
        }
        bar.set_position(progress.done);
    })?;
    bar.finish();
    let result = serde_json::json!({
        "out": args.out, "rows": report.rows, "context": report.context, "files": report.files, "alive": report.alive,
        "activations": report.activations, "excluded": report.excluded,
    });
    print_line(result);
    Ok(())
}
