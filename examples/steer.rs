//! Adds a feature's direction to the residual stream and reads how the next-token predictions change.
//!
//! ```sh
//! cargo run --release --example steer -- --feature 1890 --prompt "He came home on" --strengths=0,20,40
//! ```

mod common;

use clap::Parser;
use common::{Outcome, Source};
use saescope::model_hooks::{Edit, HookPoint, PromptOptions, test_prompt};
use saescope::sae_core::SparseCoder;
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
    #[arg(long, value_delimiter = ',', default_value = "0,10,20,40", allow_hyphen_values = true)]
    strengths: Vec<f64>,
}

fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let setup = args.source.open()?;
    let hook =
        setup.sae.metadata().hook_name.as_deref().ok_or("the SAE does not say at which hook point it belongs")?;
    let point: HookPoint = hook.parse()?;
    let direction = setup.sae.decoder_rows(&[args.feature])?.squeeze(0)?;
    println!("{}\nfeature {} added at {hook}; `{}` goes on with:", setup.describe_sae(), args.feature, args.prompt);
    let options = PromptOptions { top_k: 6, ..PromptOptions::default() };
    for &strength in &args.strengths {
        if !strength.is_finite() {
            return Err(format!("a strength is {strength}, expected a finite number").into());
        }
        let mut steer = Edit::add(point, (&direction * strength)?);
        // Any answer will do: what is read is the list of the likeliest tokens.
        let report = test_prompt(&setup.model, &args.prompt, &[" the"], &options, &mut steer)?;
        let likeliest = report.positions.first().map(|p| p.top.as_slice()).unwrap_or_default();
        let listed: Vec<_> = likeliest.iter().map(|t| format!("{:?} {:.1}%", t.text, 100.0 * t.probability)).collect();
        println!("{strength:>6}  {}", listed.join("  "));
    }
    Ok(())
}
