//! Adds a feature's direction to the value at the hook point that its SAE writes, more and more of it, and draws how the next-token predictions answer.
//!
//! ```sh
//! cargo run --release --example steer -- --feature 1890 --prompt "He came home on" --strengths=-40,-20,0,20,40
//! ```

pub mod common;

use clap::Parser;
use common::out::print_line;
use common::{Outcome, Source};
use indicatif::ProgressBar;
use saescope::feature_analysis::page::{Page, Section};
use saescope::feature_analysis::plot::{Align, LineOptions, LineSeries, Table, lines, visible_token};
use saescope::model_hooks::{Edit, HookRows, PromptReport, Tokenizer, test_prompt_tokens};
use saescope::sae_core::SparseCoder;
use saescope::sae_hooks::HookedSae;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

/// Steer a model along one feature of an SAE.
#[derive(Parser)]
pub struct Args {
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

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

/// What the curves are called: the token in words, with its id where two look alike.
fn names(tokens: &[u32], tokenizer: &Tokenizer) -> Vec<String> {
    let word = |&token: &u32| match tokenizer.readable(&[token]) {
        Ok(texts) => visible_token(&texts.concat()),
        Err(_) => format!("[{token}]"),
    };
    let words: Vec<String> = tokens.iter().map(word).collect();
    let alike = |word: &String| words.iter().filter(|other| *other == word).count() > 1;
    let name = |(token, word)| if alike(word) { format!("{word} [{token}]") } else { word.clone() };
    tokens.iter().zip(&words).map(name).collect()
}

/// The table and the page.
pub fn run(args: &Args) -> Outcome {
    if let Some(bad) = args.strengths.iter().find(|strength| !strength.is_finite()) {
        return Err(format!("a strength is {bad}, expected a finite number").into());
    }
    let setup = args.source.open()?;
    let hook = HookedSae::from_metadata_in(setup.model.hooked(), &setup.sae)?.output();
    let rows = HookRows::resolve(hook, setup.model.shape())?;
    let direction = setup.sae.decoder_rows(&[args.feature])?;
    if direction.dims() != [1, rows.width()] {
        let (found, width) = (setup.sae.d_out(), rows.width());
        return Err(format!("the SAE writes {found} numbers, but {hook} is {width} wide in this model").into());
    }
    // Heads side by side become an axis of their own, as in the value.
    let direction = match rows.head_width() {
        Some(d_head) => direction.reshape(((), d_head))?,
        None => direction.squeeze(0)?,
    };
    let tokenizer = setup.model.try_tokenizer()?;
    let prompt = tokenizer.to_tokens(&args.prompt, setup.bos(), None)?.ids;
    let answer = |strength: f64, follow: &[u32], top_k| -> Outcome<PromptReport> {
        let steer = Edit::add(hook.point, (&direction * strength)?);
        let mut steer = match hook.head {
            Some(head) => steer.head(head),
            None => steer,
        };
        let follow: Vec<&[u32]> = follow.iter().map(std::slice::from_ref).collect();
        let report = test_prompt_tokens(&setup.model, &prompt, &follow, top_k, &mut steer)?;
        match report.positions.iter().flat_map(|at| &at.top).find(|token| !token.logit.is_finite()) {
            Some(token) => {
                Err(format!("with strength {strength:e} the model's logits are {}: too strong", token.logit).into())
            }
            None => Ok(report),
        }
    };

    // First which tokens to follow: those that are likeliest at some strength. They stay ids: not every token is a text of its own.
    let bar = ProgressBar::new(2 * args.strengths.len() as u64);
    let mut likeliest: Vec<(u32, f64)> = Vec::new();
    let mut table = Table::new([("strength", Align::Right), ("goes on with", Align::Left)]);
    for &strength in &args.strengths {
        let report = answer(strength, &[], 6)?;
        let top = report.positions.first().map(|p| p.top.as_slice()).unwrap_or_default();
        let listed = top.iter().map(|t| format!("{} {:.1}%", visible_token(&t.text), 100.0 * t.probability));
        table.row([format!("{strength}"), listed.collect::<Vec<_>>().join("  ")]);
        for t in top {
            match likeliest.iter_mut().find(|(token, _)| *token == t.token) {
                Some((_, most)) => *most = most.max(t.probability),
                None => likeliest.push((t.token, t.probability)),
            }
        }
        bar.inc(1);
    }
    likeliest.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut follow: Vec<u32> = Vec::new();
    for text in &args.follow {
        follow.push(*tokenizer.encode(text)?.ids.first().ok_or("--follow is empty: it has no token")?);
    }
    follow.extend(likeliest.into_iter().map(|(token, _)| token));
    let mut seen = BTreeSet::new();
    follow.retain(|token| seen.insert(*token));
    follow.truncate(DRAWN);

    // Then what each strength makes of them.
    let mut probabilities: Vec<LineSeries> =
        names(&follow, tokenizer).into_iter().map(|name| LineSeries { name, points: Vec::new() }).collect();
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
    print_line(format_args!(
        "{}\nfeature {} added at {hook}; `{}` goes on with:",
        setup.describe_sae(),
        args.feature,
        args.prompt
    ));
    print_line(&table);

    let mut page = Page::new(
        "Dose and response",
        "A feature's direction added at its hook point, and what the model then predicts.",
    );
    page.fact("model", setup.describe_model()).fact("SAE", setup.describe_sae());
    page.fact("hook point", hook.to_string())
        .fact("feature", args.feature.to_string())
        .fact("prompt", args.prompt.as_str());
    let figure = |title: &str, y_label: &str, series: &[LineSeries]| {
        let (title, x_label, y_label) = (title.into(), "how many times the direction is added".into(), y_label.into());
        lines(series, &LineOptions { title, x_label, y_label, ..LineOptions::default() })
    };
    let figures = Section::new("dose", "Dose and response")
        .figure(figure("Probability of the next token", "probability", &probabilities))
        .figure(figure("Its logit", "logit", &logits));
    page.section(figures).section(Section::new("tokens", "The likeliest tokens").table(&table));
    page.write(&args.page)?;
    print_line(format_args!("page {}", args.page.display()));
    Ok(())
}
