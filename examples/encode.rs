//! Encodes and reconstructs activations with an SAE and writes dense `feature_acts` and `sae_out`, as SAELens' `encode` and `forward`
//! return them: so that any other tool can check this one.
//!
//! ```sh
//! cargo run --release --example encode -- --input acts.safetensors --key blocks.2.hook_resid_pre --out features.safetensors
//! ```

mod common;

use clap::Parser;
use common::Outcome;
use common::engine::{EngineFlags, Precision};
use common::out::print_line;
use saescope::sae_core::SparseCoder;
use saescope::tensor_files::{SafetensorsFile, save_safetensors};
use std::path::PathBuf;
use std::process::ExitCode;

/// Encode activations from a safetensors file with an SAE.
#[derive(Parser)]
struct Args {
    /// SAELens folder or the files of another published format [default: the embedded demo].
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo/sae"))]
    sae: String,
    /// How the SAE's files are read.
    #[command(flatten)]
    sae_flags: common::SaeFlags,
    /// The file with the activations, `[.., d_in]` (or `[.., head, d_head]` for an SAE on `hook_z`).
    #[arg(long)]
    input: PathBuf,
    /// The tensor's name in that file.
    #[arg(long)]
    key: String,
    #[command(flatten)]
    engine: EngineFlags,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

/// The program.
pub fn main() -> ExitCode {
    common::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let engine = args.engine.start_in(Precision::F32)?;
    let (sae, _) = common::load_sae(&args.sae, engine, &args.sae_flags)?;
    let x = SafetensorsFile::open(&args.input)?.load_f32(&args.key)?;
    let feature_acts = sae.encode_dense(&x)?;
    let sae_out = sae.forward(&x)?.x_hat;
    print_line(format_args!("{sae:?}\nfeature_acts {:?}, sae_out {:?}", feature_acts.dims(), sae_out.dims()));
    save_safetensors(&args.out, &[("feature_acts", feature_acts), ("sae_out", sae_out)], None)?;
    print_line(format_args!("wrote {}", args.out.display()));
    Ok(())
}
