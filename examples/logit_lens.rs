//! What features write to the vocabulary: the tokens that the rows of `W_dec W_U` promote and suppress most.
//!
//! ```sh
//! cargo run --release --example logit_lens -- --features 767,1890,199
//! ```

mod common;

use clap::Parser;
use common::out::print_line;
use common::{Features, Outcome, Source};
use saescope::feature_analysis::plot::{Align, LensToken, Table, visible_token};
use saescope::feature_analysis::views::lens_rows;
use saescope::feature_analysis::{LensOptions, logit_lens};
use std::process::ExitCode;

/// The logit lens of some features.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    source: Source,
    /// random:COUNT, drawn with the seed, or a list of feature numbers
    #[arg(long, default_value = "random:20", value_name = "random:20|1,2,3")]
    features: Features,
    /// How many tokens on each side
    #[arg(long, default_value_t = 6)]
    top: usize,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let setup = args.source.open()?;
    let features = args.features.choose(&setup.sae, args.source.seed)?;
    let options = LensOptions { top: args.top, bottom: args.top, ..LensOptions::default() };
    let lens = logit_lens(&setup.model, &setup.sae, Some(&features), &options)?;

    let words = |tokens: &[LensToken]| tokens.iter().map(|t| visible_token(&t.text)).collect::<Vec<_>>().join("  ");
    let mut table = Table::new([("feature", Align::Right), ("promotes", Align::Left), ("suppresses", Align::Left)]);
    for row in lens_rows(&lens, setup.model.try_tokenizer()?) {
        table.row([row.feature.to_string(), words(&row.top), words(&row.bottom)]);
    }
    print_line(format_args!("{}\n{}\n\n{table}", setup.describe_model(), setup.describe_sae()));
    print_line(format_args!(
        "{}, with the model's weights processed {}; nothing was run on any text",
        common::projection(lens.at),
        common::processing_name(lens.processing)
    ));
    Ok(())
}
