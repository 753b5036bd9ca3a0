//! Adds a feature's direction to the residual stream, more and more of it, and draws how the next-token predictions answer.
//!
//! ```sh
//! cargo run --release --example steer -- --feature 1890 --prompt "He came home on" --strengths=-40,-20,0,20,40
//! ```

mod common;

use clap::Parser;
use common::{Outcome, Source};
use indicatif::ProgressBar;
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{Align, LineOptions, LineSeries, Table, lines, visible_token};
use saescope::model_hooks::{Edit, HookPoint, PromptOptions, PromptReport, test_prompt};
use saescope::sae_core::SparseCoder;
use std::path::PathBuf;
use std::process::ExitCode;

/// Steer a model along one feature of an SAE.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    source: Source,
    /// The feature whose direction is added.
    #[arg(long, default_value_t = 1890)]
    feature: u32,
    /// The text to continue.
    #[arg(long, default_value = "He came home on")]
    prompt: String,
    /// How many times the direction (a decoder row, as the SAE was trained) is added at every position.
    #[arg(long, value_delimiter = ',', default_value = "-40,-30,-20,-10,0,10,20,30,40", allow_hyphen_values = true)]
    strengths: Vec<f64>,
    /// Tokens to follow beside the likeliest of each strength, such as " Monday"; may be given more than once
    #[arg(long)]
    follow: Vec<String>,
    /// Where the page goes
    #[arg(long, default_value = "target/steer.html")]
    page: PathBuf,
}

/// How many tokens are drawn.
const DRAWN: usize = 10;

fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    if let Some(bad) = args.strengths.iter().find(|strength| !strength.is_finite()) {
        return Err(format!("a strength is {bad}, expected a finite number").into());
    }
    let setup = args.source.open()?;
    let hook: HookPoint = setup.sae.hook_name()?.parse()?;
    let direction = setup.sae.decoder_rows(&[args.feature])?.squeeze(0)?;
    let answer = |strength: f64, follow: &[&str], top_k| -> Outcome<PromptReport> {
        let mut steer = Edit::add(hook, (&direction * strength)?);
        let options = PromptOptions { top_k, prepend_space_to_answer: false, ..PromptOptions::default() };
        Ok(test_prompt(&setup.model, &args.prompt, follow, &options, &mut steer)?)
    };

    // First which tokens to follow: those that are likeliest at some strength. Any answer will do, what is read is the list.
    let bar = ProgressBar::new(2 * args.strengths.len() as u64);
    let mut likeliest: Vec<(String, f64)> = Vec::new();
    let mut table = Table::new([("strength", Align::Right), ("goes on with", Align::Left)]);
    for &strength in &args.strengths {
        let report = answer(strength, &[" the"], 6)?;
        let top = report.positions.first().map(|p| p.top.as_slice()).unwrap_or_default();
        let listed = top.iter().map(|t| format!("{} {:.1}%", visible_token(&t.text), 100.0 * t.probability));
        table.row([format!("{strength}"), listed.collect::<Vec<_>>().join("  ")]);
        for t in top {
            match likeliest.iter_mut().find(|(text, _)| *text == t.text) {
                Some((_, most)) => *most = most.max(t.probability),
                None => likeliest.push((t.text.clone(), t.probability)),
            }
        }
        bar.inc(1);
    }
    likeliest.sort_by(|a, b| b.1.total_cmp(&a.1));
    let chosen = args.follow.iter().cloned().chain(likeliest.into_iter().map(|(text, _)| text));
    let mut follow: Vec<String> = Vec::new();
    chosen.for_each(|text| {
        if !follow.contains(&text) && follow.len() < DRAWN {
            follow.push(text)
        }
    });
    let follow: Vec<&str> = follow.iter().map(String::as_str).collect();

    // Then what each strength makes of them.
    let series = |name: &str| LineSeries { name: visible_token(name), points: Vec::new() };
    let mut probabilities: Vec<LineSeries> = follow.iter().map(|name| series(name)).collect();
    let mut logits = probabilities.clone();
    for &strength in &args.strengths {
        let report = answer(strength, &follow, 1)?;
        let expected = report.positions.first().map(|p| p.expected.as_slice()).unwrap_or_default();
        for ((p, l), found) in probabilities.iter_mut().zip(&mut logits).zip(expected) {
            p.points.push((strength, found.probability));
            l.points.push((strength, f64::from(found.logit)));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{}\nfeature {} added at {hook}; `{}` goes on with:", setup.describe_sae(), args.feature, args.prompt);
    println!("{table}");

    let mut page = Page::new(
        "Dose and response",
        "A feature's direction added to the residual stream, and what the model then predicts.",
    );
    page.fact("model", setup.describe_model()).fact("SAE", setup.describe_sae());
    page.fact("feature", args.feature.to_string()).fact("prompt", args.prompt.as_str());
    let figure = |title: &str, y_label: &str, series: &[LineSeries]| {
        let (title, x_label, y_label) = (title.into(), "how many times the direction is added".into(), y_label.into());
        lines(series, &LineOptions { title, x_label, y_label, ..LineOptions::default() })
    };
    let figures = Section::new("dose", "Dose and response")
        .figure(figure("Probability of the next token", "probability", &probabilities))
        .figure(figure("Its logit", "logit", &logits));
    page.section(figures).section(Section::new("tokens", "The likeliest tokens").table(&table));
    page.write(&args.page)?;
    println!("page {}", args.page.display());
    Ok(())
}
