//! Every feature of an SAE on a text, in one pass: how often it fires, how strongly, and where most. Writes the census (Parquet) and a page.
//!
//! ```sh
//! cargo run --release --example census
//! cargo run --release --example census -- --model DIR --sae DIR --text 'corpus/*.jsonl.zst' --tokens 1000000 --precision bf16 --out DIR
//! ```
//! The last line on standard output is one JSON object; the progress bar is on standard error.

mod common;

use clap::Parser;
use common::census_folder::CensusFolder;
use common::engine::{EngineFlags, peak_rss_bytes};
use common::out::{print_line, print_note};
use common::preflight::PreflightFlags;
use common::{Outcome, Setup, Source, left_out, token_bar};
use saescope::activation_store::{ActivationSource, StoreOptions, StoreReport, TokenFilter};
use saescope::feature_analysis::page::Page;
use saescope::feature_analysis::plot::grouped;
use saescope::feature_analysis::views::{CensusPage, CensusPageOptions};
use saescope::feature_census::{CensusLabels, CensusOptions, CensusReport, CensusRun, FeatureCensus, coder_digest};
use saescope::sae_core::SparseCoder;
use saescope::tensor_kernels::Engine;
use std::process::ExitCode;
use std::time::Instant;

/// A census of all features of an SAE.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    preflight: PreflightFlags,
    /// Tokens to look at, special ones among them [default: the whole text]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,
    /// Rows of tokens in one forward pass
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Tokens in a row [default: the SAE's own, 128 for most]
    #[arg(long)]
    context: Option<usize>,
    /// Counts special and inserted tokens like all others
    #[arg(long)]
    keep_special: bool,
    /// The strongest activations that are kept of each feature
    #[arg(long, default_value_t = 20)]
    top: usize,
    #[command(flatten)]
    engine: EngineFlags,
    #[command(flatten)]
    folder: CensusFolder,
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
    args.preflight.check(&args.source, &setup, args.store())?;
    let started = Instant::now();
    let (census, report, read) = count(args, &setup, engine)?;
    let seconds = started.elapsed().as_secs_f64();
    // No rate where nothing was left to be done.
    let done = report.tokens - report.resumed_at;
    let rate = (done > 0).then(|| done as f64 / seconds);
    page(args, &setup, &census, seconds, engine)?;
    if let Some(left_out) = left_out(&read) {
        print_line(format_args!("text: {left_out}"));
    }
    print_line(format_args!("{} tokens in {seconds:.1} s; open {}", report.tokens, args.folder.page().display()));
    let result = serde_json::json!({
        "tokens": report.tokens, "resumed_at": report.resumed_at, "seconds": seconds, "tokens_per_s": rate, "peak_rss_bytes": peak_rss_bytes(),
        "backend": engine.arithmetic().map(|a| a.backend().name()), "precision": engine.arithmetic().map(|a| a.precision().name()),
        "l0": census.l0(), "tokens_counted": census.tokens(), "left_out": census.excluded().total(), "excluded": census.excluded(), "features": census.d_sae(),
        "dead": census.dead().len(), "documents": read.packing.documents, "null_documents": read.documents.null_documents,
        "skipped_documents": read.packing.skipped_documents, "cut_documents": read.packing.cut_documents, "threads": rayon::current_num_threads(),
        "census_bytes": census.options().memory_bytes(census.d_sae()),
    });
    print_line(result);
    Ok(())
}

/// The one pass: the census, and what was done.
fn count(args: &Args, setup: &Setup, engine: Engine) -> Outcome<(FeatureCensus, CensusReport, StoreReport)> {
    let mut harvest = setup.store_with(args.store())?.in_order();
    let filter = if args.keep_special { TokenFilter::everything() } else { TokenFilter::default() };
    let options = CensusOptions { top: args.top, seed: args.source.seed, filter, ..CensusOptions::default() };
    // Names alone say too little: another folder may have files of the same names.
    let stream = harvest.stream_id()?;
    let with_digest = |name: String, digest: &str| format!("{name} (sha256 {digest:.12})");
    let names = CensusLabels {
        model: with_digest(setup.describe_model(), stream.activations_sha256.as_deref().unwrap_or_default()),
        sae: with_digest(setup.describe_sae(), &coder_digest(&setup.sae)?),
        hook: harvest.spec().hooks[0].to_string(),
        engine: engine.to_string(),
        source: with_digest(setup.describe_text(), &stream.documents_digest()),
    };
    let census = FeatureCensus::new(setup.sae.d_sae(), options)?.named(names);
    args.folder.check(&census)?;
    let mut run = CensusRun::new().add(0, &setup.sae, census)?.checkpoints(args.folder.checkpoints());
    if let Some(tokens) = args.tokens {
        run = run.max_tokens(tokens);
    }
    let bar = token_bar(args.tokens);
    let report = run.run(&mut harvest, &mut |progress| bar.set_position(progress.tokens))?;
    bar.finish();
    for damaged in &report.damaged_checkpoints {
        print_note(format_args!(
            "note: went on from an earlier checkpoint, since {} cannot be read: {}",
            damaged.path.display(),
            damaged.reason
        ));
    }
    if report.tokens == 0 {
        let tokens = harvest.report().packing.tokens;
        return Err(format!("the text has {tokens} tokens: not enough for one row of the context size").into());
    }
    run.censuses().try_for_each(|census| census.save(&args.folder.file()))?;
    run.remove_checkpoints()?;
    Ok((run.finish().remove(0), report, harvest.report()))
}

/// The page: numbers of all features, examples of the strongest.
fn page(args: &Args, setup: &Setup, census: &FeatureCensus, seconds: f64, engine: Engine) -> Outcome {
    let view = CensusPage::of(census, &setup.sae, &mut setup.store_with(args.store())?, &CensusPageOptions::default())?;
    let mut page =
        Page::new("A census of all features", "Every feature of a sparse autoencoder on a text, counted in one pass.");
    page.fact("model", setup.describe_model()).fact("SAE", setup.describe_sae()).fact("text", setup.describe_text());
    page.fact("tokens", format!("{} counted, {}", grouped(census.tokens()), census.excluded()));
    page.fact("engine", engine.to_string())
        .fact("time", format!("{seconds:.1} s"))
        .fact("seed", args.source.seed.to_string());
    for section in view.sections() {
        page.section(section);
    }
    page.write(&args.folder.page())?;
    Ok(())
}

impl Args {
    fn store(&self) -> StoreOptions {
        StoreOptions { store_batch_size_prompts: self.batch, context_size: self.context, ..StoreOptions::default() }
    }
}
