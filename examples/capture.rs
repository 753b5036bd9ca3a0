//! Writes what a model computes at its hook points to a safetensors file, one f32 tensor per point under its TransformerLens name,
//! plus `tokens`: so that any other tool can check this one.
//!
//! ```sh
//! cargo run --release --example capture -- --hooks blocks.2.hook_resid_pre,logits --text "On Monday, and on Tuesday" --out acts.safetensors
//! ```

mod common;

use clap::{Parser, ValueEnum};
use common::Outcome;
use common::engine::{EngineFlags, Precision};
use common::out::{print_line, print_note};
use saescope::model_hooks::{AddBos, Capture, HookPoint, LanguageModel, LoadOptions, Processing, TokenBatch};
use saescope::tensor_files::save_safetensors;
use std::path::PathBuf;
use std::process::ExitCode;

/// Capture hook points of a model into a safetensors file.
#[derive(Parser)]
struct Args {
    /// Hugging Face folder or GGUF file [default: the embedded demo].
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo/lm"))]
    model: PathBuf,
    /// Comma-separated TransformerLens names, or `all`.
    #[arg(long, value_delimiter = ',', required = true)]
    hooks: Vec<String>,
    /// JSON file with a list of equally long lists of token ids (no tokenizer needed).
    #[arg(long, group = "input")]
    token_ids: Option<PathBuf>,
    /// A text; BOS is put in front.
    #[arg(long, group = "input")]
    text: Option<String>,
    /// A file with a text; BOS is put in front.
    #[arg(long, group = "input")]
    text_file: Option<PathBuf>,
    /// Weight processing.
    #[arg(long, value_enum, default_value = "none")]
    processing: ProcessingArg,
    #[command(flatten)]
    engine: EngineFlags,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProcessingArg {
    /// The weights as they are in the file.
    None,
    /// TransformerLens' default: fold_ln, center writing weights, center unembed, fold value biases.
    Tl,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let engine = args.engine.start_in(Precision::F32)?;
    let processing = match args.processing {
        ProcessingArg::None => Processing::None,
        ProcessingArg::Tl => Processing::TransformerLens,
    };
    let model = common::load_model(&args.model, &LoadOptions::new(processing).engine(engine))?;
    let tokens = read_tokens(args, &model)?;
    let points: Vec<HookPoint> = if args.hooks == ["all"] {
        model.hooked().hook_points().to_vec()
    } else {
        args.hooks.iter().map(|name| name.trim().parse()).collect::<Result<_, _>>()?
    };

    let mut capture = Capture::new(points.clone());
    // Runs exactly to the last point that is wanted.
    if let Some(&last) = points.iter().max() {
        model.hooked().forward_until(&tokens, last, &mut capture)?;
    }
    let mut out = Vec::with_capacity(points.len() + 1);
    for point in points {
        let value = capture.get(point)?;
        print_line(format_args!("{point} {:?}", value.dims()));
        out.push((point.to_string(), value.contiguous()?));
    }
    out.push(("tokens".into(), tokens.to_tensor(&candle_core::Device::Cpu)?.to_dtype(candle_core::DType::I64)?));
    save_safetensors(&args.out, &out, None)?;
    print_line(format_args!("wrote {}", args.out.display()));
    Ok(())
}

fn read_tokens(args: &Args, model: &LanguageModel) -> Outcome<TokenBatch> {
    if let Some(path) = &args.token_ids {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let rows: Vec<Vec<u32>> = serde_json::from_str(&text)
            .map_err(|e| format!("{}: expected a list of lists of token ids: {e}", path.display()))?;
        return Ok(TokenBatch::new(&rows)?);
    }
    let text = match (&args.text, &args.text_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?,
        (None, None) => return Err("one of --token-ids, --text, --text-file is needed".into()),
    };
    let tokenizer = model.try_tokenizer()?;
    // As TransformerLens: BOS goes before the text, where the tokenizer has one.
    let bos = if tokenizer.bos().is_some() { AddBos::Always } else { AddBos::Never };
    let tokens = tokenizer.to_tokens(&text, bos, Some(model.shape().n_ctx))?;
    if tokens.ids.len() == usize::from(tokens.added_bos) {
        return Err("the text is empty: it has no token beside BOS".into());
    }
    if tokens.truncated > 0 {
        print_note(format_args!(
            "note: {} tokens did not fit into the context of {} and were left out",
            tokens.truncated,
            model.shape().n_ctx
        ));
    }
    Ok(TokenBatch::new(&[tokens.ids])?)
}
