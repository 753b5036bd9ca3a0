//! What watching costs: a forward pass with no tap, with one point captured, and with all of them, in turn.
//!
//! ```text
//! cargo run --release --workspace --example hook_overhead -- MODEL [POINT [BATCH [CONTEXT [ROUNDS]]]]
//! ```

use model_hooks::{Capture, HookPoint, LoadOptions, NoTap, Processing, Tap, TokenBatch};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |arg| arg.parse());
    let (batch, context, rounds) = (number(2, 8)?, number(3, 128)?, number(4, 7)?);
    let path = args.first().ok_or("MODEL is missing")?;
    let model = model_hooks::load(path.as_ref(), &LoadOptions::new(Processing::TransformerLens))?;
    let layer = (model.shape().n_layers / 2) as u16;
    let middle = HookPoint::Block { layer, site: model_hooks::Site::ResidPre };
    let point = args.get(1).map_or(Ok(middle), |name| name.parse())?;

    let id = |i: usize| (i * 7919 % model.shape().d_vocab) as u32;
    let rows: Vec<Vec<u32>> = (0..batch).map(|row| (0..context).map(|pos| id(row * context + pos)).collect()).collect();
    let tokens = TokenBatch::new(&rows)?;
    let time = |tap: &mut dyn Tap| -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        model.hooked().forward(&tokens, tap)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let mut seconds = [const { Vec::new() }; 3];
    let mut captured = 0;
    for round in 0..=rounds {
        let mut all = Capture::all();
        let these = [time(&mut NoTap)?, time(&mut Capture::new([point]))?, time(&mut all)?];
        captured = all.iter().map(|(_, x)| x.elem_count() * 4).sum();
        // The first round takes its memory from the system.
        if round > 0 {
            seconds.iter_mut().zip(these).for_each(|(all, s)| all.push(s));
        }
    }
    let [none, one, all] = seconds.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    let _ = writeln!(std::io::stdout(), "{path}, {batch} x {context}, {}, median of {rounds}:", model.engine());
    let _ = writeln!(std::io::stdout(), "  no tap              {none:8.1} ms");
    let _ = writeln!(std::io::stdout(), "  {point} {one:8.1} ms  ({:.3}x)", one / none);
    let _ = writeln!(
        std::io::stdout(),
        "  all {} points {all:8.1} ms  ({:.3}x), {} MB kept",
        model.hooked().hook_points().len(),
        all / none,
        captured >> 20
    );
    Ok(())
}
