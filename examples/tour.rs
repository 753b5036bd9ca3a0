//! The notebook, from its first cell to its last: a text file, a language model and a sparse autoencoder in; histograms, top
//! activations, the logit lens and the PCA of a family of features out, in the terminal and in one page, `tour.html`.
//!
//! ```sh
//! cargo run --release --example tour
//! cargo run --release --example tour -- --model DIR --sae DIR --text 'corpus/*.jsonl.zst' --features 1,2,3 --batches 100 --out DIR
//! ```

pub mod common;
#[path = "tour/days.rs"]
mod days;
#[path = "tour/fidelity.rs"]
mod fidelity;

use candle_core::D;
use clap::Parser;
use common::out::print_line;
use common::preflight::PreflightFlags;
use common::{Features, Outcome, Setup, Source, bar, left_out};
use saescope::activation_store::StoreOptions;
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{Align, HistogramOptions, Table, density, lens_table, top_table, visible_token};
use saescope::feature_analysis::views::{lens_rows, positive_figure, top_examples};
use saescope::feature_analysis::{
    CollectOptions, FeatureExamples, FrameOptions, LensOptions, PositiveActivations, beside, collect, feature_frame,
    logit_lens, token_frame, top_frame, write_csv, write_parquet,
};
use saescope::model_hooks::{Error as ModelError, NoTap, TokenBatch};
use saescope::sae_core::{Sae, SparseCoder};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// The notebook from first cell to last.
#[derive(Parser)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    preflight: PreflightFlags,
    /// random:COUNT, drawn with the seed, or a list of feature numbers
    #[arg(long, default_value = "random:100", value_name = "random:100|1,2,3")]
    features: Features,
    /// Batches of 8 rows of tokens to look at
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    batches: u64,
    /// Batches to look for the days of the week in [default: as --batches; for the demo, whose dated text comes late, all of it]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    family_batches: Option<u64>,
    /// Where the page and the frames go
    #[arg(long, default_value = "target/tour")]
    out: PathBuf,
    /// A text to predict the next token of
    #[arg(long, default_value = "The week has seven days: Monday, Tuesday,")]
    prompt: String,
    /// How it should go on [default: as the model itself thinks]
    #[arg(long)]
    answer: Option<String>,
}

/// The demo's text, whole.
const DEMO_BATCHES: u64 = 330;
/// A feature that fired less often has too few examples to show.
const OFTEN: usize = 50;
/// SAELens stores log10(share + 1e-10): this is a share of zero.
const NEVER: f32 = -9.99;
const FRAME_COLUMNS: [&str; 7] = ["str_tokens", "unique_token", "context", "prompt", "pos", "label", "batch"];

/// The program.
pub fn main() -> ExitCode {
    common::exit(tour(&Args::parse()))
}

impl Args {
    fn family_batches(&self) -> u64 {
        let demo = self.source.model.is_none() && self.source.text.is_empty();
        self.family_batches.unwrap_or(if demo { DEMO_BATCHES } else { self.batches })
    }
}

/// All cells, in their order.
pub fn tour(args: &Args) -> Outcome {
    let started = Instant::now();
    let setup = args.source.open()?;
    let tokenizer = setup.model.try_tokenizer()?;
    if tokenizer.to_tokens(&args.prompt, setup.bos(), None)?.ids.is_empty() {
        return Err(
            "--prompt is empty, and this tokenizer puts no BOS before a text: there is no token to predict from".into(),
        );
    }
    let mut store = setup.store()?;
    let mut page = Page::new(
        "The notebook, in Rust",
        "A language model, a sparse autoencoder on its residual stream, and what its features fire on.",
    );
    page.fact("model", setup.describe_model()).fact("SAE", setup.describe_sae()).fact("text", setup.describe_text());
    print_line(format_args!(
        "model  {}\nSAE    {}\ntext   {}",
        setup.describe_model(),
        setup.describe_sae(),
        setup.describe_text()
    ));
    args.preflight.check(&args.source, &setup, StoreOptions::default())?;

    cell("", "What the model says next");
    let next = next_tokens(&setup, &args.prompt, 5)?;
    print_line(format_args!("{}\n\n{next}", args.prompt));
    page.section(Section::new("prompt", "What the model says next").text(&args.prompt).table(&next));

    fidelity::fidelity(args, &setup, &mut page)?;

    cell("18, 19", "The activation store, and the token frame of its first batch");
    let Some(batch) = store.get_batch_tokens()? else {
        let tokens = store.report().packing.tokens;
        return Err(format!("the text has {tokens} tokens: not enough for one row of the SAE's context size").into());
    };
    let frame = token_frame(&batch.rows, 0, tokenizer, &FrameOptions::default())?;
    let first = Table::from_frame(&frame, &FRAME_COLUMNS, 8);
    print_line(format_args!(
        "{} rows of {} tokens; the first of {} lines:\n{first}",
        batch.rows.len(),
        batch.rows[0].tokens.len(),
        frame.num_rows()
    ));
    let note = "One line per token of a batch, with the text around it. The page shows the first eight.";
    page.section(Section::new("frame", "Token frame").text(note).table(&first));

    cell("20, 21", "The tokens on which any of the chosen features fired");
    let features = args.features.choose(&setup.sae, args.source.seed)?;
    let kept = examples(&setup, &features, args.batches)?;
    let acts = feature_frame(&kept)?;
    print_line(format_args!("examples found: {}; {}", kept.len(), kept.counts()));
    print_line(format_args!("feature frame: ({}, {})", acts.num_rows(), acts.num_columns()));
    let tokens = kept.frame(tokenizer, &FrameOptions::default())?;
    write_parquet(&beside(&tokens, &acts)?, &args.out.join("examples.parquet"))?;
    page.fact("tokens", kept.counts().to_string()).fact("examples found", kept.len().to_string());
    page.fact("features", format!("{} of {}", features.len(), setup.sae.d_sae()))
        .fact("seed", args.source.seed.to_string());

    one_feature(args, &setup, &kept, &mut page)?;
    lens(&setup, &features, &mut page)?;
    frequencies(&setup, &mut page);
    days::days(args, &setup, &mut page)?;

    let path = args.out.join("tour.html");
    page.write(&path)?;
    print_line(format_args!(
        "\n{:.1} s. Open {} (it needs no network); frames are beside it.",
        started.elapsed().as_secs_f64(),
        path.display()
    ));
    Ok(())
}

/// The loop of cells 20 and 26.
fn examples(setup: &Setup, features: &[u32], batches: u64) -> Outcome<FeatureExamples> {
    let options = CollectOptions { total_batches: batches, ..CollectOptions::default() };
    let (bar, mut progress) = bar(batches);
    let mut store = setup.store()?;
    let kept = collect(&setup.sae, &mut store, features, &options, &mut progress)?;
    bar.finish();
    if let Some(left_out) = left_out(&store.report()) {
        print_line(format_args!("text: {left_out}"));
    }
    Ok(kept)
}

/// Cells 22 and 23: how strongly one feature fires, and where most.
fn one_feature(args: &Args, setup: &Setup, kept: &FeatureExamples, page: &mut Page) -> Outcome {
    let fired = |feature: &u32| Ok::<_, Box<dyn std::error::Error>>(PositiveActivations::of(kept, *feature)?);
    let all = kept.features().iter().map(fired).collect::<Outcome<Vec<_>>>()?;
    let silent = all.iter().filter(|p| p.values.is_empty()).count();
    // The notebook takes the first of the list, which may have fired once or never.
    let often = all.iter().find(|p| p.values.len() >= OFTEN).or_else(|| all.iter().max_by_key(|p| p.values.len()));
    let Some(positive) = often.filter(|p| !p.values.is_empty()) else {
        print_line(format_args!("none of the {} features fired", all.len()));
        return Ok(());
    };
    let feature = positive.feature;
    let which = format!(
        "Feature {feature} is the first of the list that fired often enough; {silent} of {} never did. {}.",
        all.len(),
        positive.counts
    );
    cell("22", "How strongly a feature fires");
    print_line(format_args!("{which}\n{}", positive.title()));
    page.section(
        Section::new("histogram", "How strongly a feature fires").text(&which).figure(positive_figure(positive)),
    );

    cell("23", "Its ten strongest examples");
    let top = top_frame(kept, feature, 10, setup.model.try_tokenizer()?, &FrameOptions::default())?;
    write_csv(&top, &args.out.join("top10.csv"))?;
    print_line(format_args!(
        "{}",
        Table::from_frame(&top, &["activation", "str_tokens", "context", "label", "batch", "document"], 10)
    ));
    let around = FrameOptions { len_prefix: 16, len_suffix: 8, ..FrameOptions::default() };
    let shaded = top_examples(kept, feature, 10, &setup.sae, &setup.store()?, &around)?;
    let note = format!("Feature {feature}; every token is shaded by its activation. {}.", positive.counts);
    page.section(Section::new("top", "Its ten strongest examples").text(note).markup(top_table(&shaded)));
    Ok(())
}

/// Cell 24: what the features write to the vocabulary.
fn lens(setup: &Setup, features: &[u32], page: &mut Page) -> Outcome {
    cell("24", "The logit lens: tokens that a feature's direction promotes");
    let shape = setup.model.shape();
    print_line(format_args!("shape of the decoder weights [{}, {}]", setup.sae.d_sae(), setup.sae.d_out()));
    print_line(format_args!("shape of the model unembed [{}, {}]", shape.d_model, shape.d_vocab));
    let options = LensOptions { top: 10, bottom: 5, ..LensOptions::default() };
    let lens = match logit_lens(&setup.model, &setup.sae, Some(features), &options) {
        Err(saescope::feature_analysis::Error::Model(error)) if matches!(*error, ModelError::NotWritten { .. }) => {
            print_line(format_args!("no lens: {error}"));
            return Ok(());
        }
        lens => lens?,
    };
    let rows = lens_rows(&lens, setup.model.try_tokenizer()?);
    let shown = &rows[..rows.len().min(7)];
    let mut table = Table::new(
        [(String::new(), Align::Left)]
            .into_iter()
            .chain(shown.iter().map(|r| (format!("feature_{}", r.feature), Align::Left))),
    );
    for i in 0..options.top {
        let cells = shown.iter().map(|r| r.top.get(i).map_or(String::new(), |t| visible_token(&t.text)));
        table.row([format!("token_{i}")].into_iter().chain(cells));
    }
    print_line(format_args!("{table}({} of {} features; all are on the page)", shown.len(), rows.len()));
    let note =
        format!("{}, weights processed {}.", common::projection(lens.at), common::processing_name(lens.processing));
    page.section(Section::new("lens", "The logit lens").text(note).markup(lens_table(&rows)));
    Ok(())
}

/// How often each feature fired on the SAE's training text, where the SAE's file says.
fn frequencies(setup: &Setup, page: &mut Page) {
    let Some(sparsity) = setup.sae.as_sae().and_then(Sae::sparsity) else { return };
    let shares: Vec<f32> = sparsity.iter().map(|log| if *log <= NEVER { 0.0 } else { 10_f32.powf(*log) }).collect();
    let options = HistogramOptions {
        title: "Feature density".into(),
        x_label: "share of the training tokens".into(),
        y_label: "features".into(),
        ..HistogramOptions::default()
    };
    page.section(Section::new("density", "How often features fire").figure(density(&shares, &options)));
}

/// The likeliest next tokens after a text.
fn next_tokens(setup: &Setup, prompt: &str, k: usize) -> Outcome<Table> {
    let tokenizer = setup.model.try_tokenizer()?;
    let tokens = tokenizer.to_tokens(prompt, setup.bos(), None)?;
    let last = tokens.ids.len().checked_sub(1).ok_or("the prompt has no tokens")?;
    let logits = setup.model.hooked().forward(&TokenBatch::new(&[tokens.ids])?, &mut NoTap)?.get(0)?.get(last)?;
    let logits: Vec<f64> = logits.to_dtype(candle_core::DType::F64)?.flatten(0, D::Minus1)?.to_vec1()?;
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let mut table = Table::new([("next token", Align::Left), ("probability", Align::Right)]);
    for id in order.into_iter().take(k) {
        let text = visible_token(&tokenizer.readable_text(&[id])?);
        table.row([text, format!("{:.1}%", 100.0 * (logits[id as usize] - largest).exp() / total)]);
    }
    Ok(table)
}

fn cell(number: &str, heading: &str) {
    let number = if number.is_empty() { String::new() } else { format!("[{number}] ") };
    print_line(format_args!(
        "\n── {number}{heading} {}",
        "─".repeat(90_usize.saturating_sub(number.len() + heading.len()))
    ));
}
