//! Where a feature fires most strongly: its top activations with the text around them, in the terminal and as a page.
//!
//! ```sh
//! cargo run --release --example top_activations -- --feature 767 --batches 400 --out top.html
//! ```

mod common;

use clap::Parser;
use common::out::print_line;
use common::{Outcome, Source, bar};
use saescope::activation_store::TokenFilter;
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{Table, top_table};
use saescope::feature_analysis::views::{positive_figure, top_examples};
use saescope::feature_analysis::{CollectOptions, FrameOptions, PositiveActivations, collect, top_frame};
use std::path::PathBuf;
use std::process::ExitCode;

/// The strongest examples of one feature.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    source: Source,
    /// The feature
    #[arg(long, default_value_t = 767)]
    feature: u32,
    /// How many examples
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Batches of 8 rows of tokens to look at
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    batches: u64,
    /// Counts special and inserted tokens like all others
    #[arg(long)]
    keep_special: bool,
    /// A page to write
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let setup = args.source.open()?;
    let filter = if args.keep_special { TokenFilter::everything() } else { TokenFilter::default() };
    let options = CollectOptions { total_batches: args.batches, filter, ..CollectOptions::default() };
    let (bar, mut progress) = bar(args.batches);
    let mut store = setup.store()?;
    let kept = collect(&setup.sae, &mut store, &[args.feature], &options, &mut progress)?;
    bar.finish();
    let positive = PositiveActivations::of(&kept, args.feature)?;
    let fired = kept.activations(args.feature)?.iter().filter(|activation| **activation != 0.0).count();
    print_line(format_args!("feature {} fired on {fired} of {}", args.feature, positive.counts));

    let frame = top_frame(&kept, args.feature, args.top, setup.model.try_tokenizer()?, &FrameOptions::default())?;
    print_line(format_args!(
        "{}",
        Table::from_frame(&frame, &["activation", "readable", "readable_context", "document", "span_start"], args.top)
    ));

    if let Some(out) = &args.out {
        let around = FrameOptions { len_prefix: 24, len_suffix: 12, ..FrameOptions::default() };
        let examples = top_examples(&kept, args.feature, args.top, &setup.sae, &store, &around)?;
        let mut page = Page::new(format!("Feature {}", args.feature), setup.describe_sae());
        page.fact("model", setup.describe_model())
            .fact("text", setup.describe_text())
            .fact("tokens", kept.counts().to_string());
        page.section(Section::new("top", "Strongest examples").markup(top_table(&examples)));
        page.section(Section::new("histogram", "All its activations").figure(positive_figure(&positive)));
        page.write(out)?;
        print_line(format_args!("written: {}", out.display()));
    }
    Ok(())
}
