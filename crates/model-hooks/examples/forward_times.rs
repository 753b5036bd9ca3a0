//! How long a model takes to load, and its blocks to run.
//!
//! ```text
//! cargo run --release --workspace --example forward_times -- MODEL [BLOCKS [BATCH [CONTEXT [THREADS [RUNS [ENGINE]]]]]]
//! ```
//! `ENGINE` is `reference`, or a precision (`f32fast`, the default, `f32`, `bf16`), with a back end if not the best: `f32@avx2`.

use model_hooks::{
    Arithmetic, Backend, Engine, HookPoint, LoadOptions, NoTap, Precision, Processing, Site, TokenBatch,
};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

fn engine(name: &str) -> Result<Engine, Box<dyn Error>> {
    if name == "reference" {
        return Ok(Engine::Reference);
    }
    let (precision, backend) = name.split_once('@').unwrap_or((name, Backend::best().name()));
    let named = |p: &Precision| p.name() == precision;
    let precision = Precision::ALL.into_iter().find(named).ok_or("ENGINE: reference, f32, f32fast or bf16")?;
    Ok(Engine::Kernels(Arithmetic::on(backend.parse()?, precision)?))
}

/// The process's peak memory in MB, where the system tells.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kb| kb / 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |arg| arg.parse());
    let (blocks, batch, context) = (number(1, 7)?, number(2, 8)?, number(3, 128)?);
    let (threads, runs) = (number(4, 0)?, number(5, 9)?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let start = Instant::now();
    let options = LoadOptions::new(Processing::TransformerLens).engine(engine(args.get(6).map_or("f32fast", |e| e))?);
    let model = model_hooks::load(args.first().ok_or("MODEL is missing")?.as_ref(), &options)?;
    let _ = writeln!(
        std::io::stdout(),
        "loaded in {:.3} s, peak {} MB: {}",
        start.elapsed().as_secs_f64(),
        peak_mb().unwrap_or(0),
        model.engine()
    );

    let id = |i: usize| (i * 7919 % model.shape().d_vocab) as u32;
    let rows: Vec<Vec<u32>> = (0..batch).map(|row| (0..context).map(|pos| id(row * context + pos)).collect()).collect();
    let tokens = TokenBatch::new(&rows)?;
    let last = match u16::try_from(blocks) {
        Ok(layer) if blocks < model.shape().n_layers => HookPoint::Block { layer, site: Site::ResidPre },
        _ => HookPoint::Logits,
    };
    let mut seconds: Vec<f64> = (0..=runs)
        .map(|_| {
            let start = Instant::now();
            model.hooked().forward_until(&tokens, last, &mut NoTap).map(|()| start.elapsed().as_secs_f64())
        })
        .collect::<Result<_, _>>()?;
    seconds.remove(0); // the first run takes its memory from the system
    seconds.sort_by(f64::total_cmp);
    let (median, best) = (seconds[runs / 2], seconds[0]);
    let per_s = |s: f64| (batch * context) as f64 / s;
    let _ = writeln!(
        std::io::stdout(),
        "to {last}, {batch} x {context} on {} threads: median {:.2} ms, best {:.2} ms; {:.0} tokens/s; peak {} MB",
        rayon::current_num_threads(),
        median * 1e3,
        best * 1e3,
        per_s(median),
        peak_mb().unwrap_or(0)
    );
    Ok(())
}
