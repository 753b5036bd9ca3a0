//! Carries a text on and prints it as it comes.
//!
//! ```sh
//! cargo run --release --example generate -- --bos --prompt "On Monday" --temperature 0.8 --top-p 0.95 --seed 1
//! ```

mod common;

use clap::Parser;
use common::Outcome;
use common::engine::EngineFlags;
use common::out::{print_line, print_note, print_text};
use saescope::model_hooks::{
    AddBos, GenerateOptions, LoadOptions, NoTap, Processing, Sampling, SamplingOptions, StopReason,
};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Carry a text on, token by token.
#[derive(Parser)]
struct Args {
    /// Hugging Face folder or GGUF file [default: the embedded demo].
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo/lm"))]
    model: PathBuf,
    /// The text to carry on.
    #[arg(long, default_value = "On Monday")]
    prompt: String,
    /// Puts BOS before the text, whatever the tokenizer's own files say (the demo was trained so).
    #[arg(long)]
    bos: bool,
    /// How many tokens at most.
    #[arg(long, default_value_t = 60)]
    max_new_tokens: usize,
    /// What logits are divided by; 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Chooses among so many of the likeliest tokens.
    #[arg(long)]
    top_k: Option<usize>,
    /// Chooses among the likeliest tokens that have this share of the probability.
    #[arg(long)]
    top_p: Option<f64>,
    /// Seed of the choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Ends before this text; may be given more than once.
    #[arg(long)]
    stop: Vec<String>,
    #[command(flatten)]
    engine: EngineFlags,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let engine = args.engine.start()?;
    let model = common::load_model(&args.model, &LoadOptions::new(Processing::None).engine(engine))?;
    let started = Instant::now();
    // The prompt is printed with the first new text, so that an option that is refused leaves stdout empty.
    let mut prompt = Some(args.prompt.as_str());
    let mut print = |text: &str| match prompt.take() {
        Some(prompt) => print_text(format_args!("{prompt}{text}")),
        None => print_text(text),
    };
    let found = model.generate_text(&args.prompt, &options(args)?, &mut NoTap, &mut print)?;
    let _ = print("");
    print_line("");
    let why = match found.stopped {
        StopReason::Token(_) => "a stop token",
        StopReason::Text(_) => "a stop text",
        StopReason::ContextFull => "the end of the context",
        _ => "the last token asked for",
    };
    let (tokens, seconds) = (found.ids.len(), started.elapsed().as_secs_f64());
    let rate = tokens as f64 / seconds;
    print_note(format_args!(
        "{tokens} tokens after {} of the prompt, up to {why}; {rate:.1} tokens/s on {engine}",
        found.prompt_ids.len()
    ));
    Ok(())
}

fn options(args: &Args) -> Outcome<GenerateOptions> {
    let mut options = GenerateOptions::default();
    options.max_new_tokens = args.max_new_tokens;
    options.stop_strings.clone_from(&args.stop);
    if args.bos {
        options.bos = AddBos::Always;
    }
    if args.temperature == 0.0 && (args.top_k.is_some() || args.top_p.is_some()) {
        return Err("--top-k and --top-p choose at random: they need a --temperature above 0".into());
    }
    if args.temperature != 0.0 {
        let mut random = SamplingOptions::seeded(args.seed);
        (random.temperature, random.top_k, random.top_p) = (args.temperature, args.top_k, args.top_p);
        options.sampling = Sampling::Random(random);
    }
    Ok(options)
}
