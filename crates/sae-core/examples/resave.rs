//! Opens SAELens folders, saves them again, and writes what they compute, for `tools/checks/check_sae_in_saelens.py` to compare.
//!
//! `cargo run --release --example resave -- FROM TO` takes every folder in FROM that holds a `cfg.json` and a
//! `golden.safetensors` with an input `x`; TO gets the same folders with `ours.safetensors` (`encode`, `forward`, and the same of
//! the SAE folded in both ways, saved as NAME.folded and NAME.scaled). What the crate does not load, or SAELens
//! does not have, is left out, and named.

use candle_core::Tensor;
use sae_core::{Engine, Error, LoadOptions, Sae, SparseCoder};
use std::io::Write;
use std::path::Path;
use tensor_files::{SafetensorsFile, save_safetensors};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else { return Err("usage: resave FROM TO".into()) };
    for entry in std::fs::read_dir(from)? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()).filter(|_| folder.join("cfg.json").exists())
        else {
            continue;
        };
        let x = SafetensorsFile::open(folder.join("golden.safetensors"))?.load("x")?;
        // Saving and folding need the exact weights, whatever the machine.
        let options = LoadOptions { engine: Engine::Reference, ..LoadOptions::default() };
        let sae = match Sae::load_with(&folder, &options) {
            Err(Error::UnsupportedArchitecture { found, .. }) => {
                let _ = writeln!(std::io::stderr(), "{name} is left out: {found} cannot be loaded");
                continue;
            }
            sae => sae?,
        };
        match write(&sae, &x, &Path::new(to).join(name)) {
            Err(Error::CannotSave { what }) => {
                let _ = writeln!(std::io::stderr(), "{name} is left out: {what}");
                continue;
            }
            written => written?,
        }
        if let Ok(folded) = sae.fold_w_dec_norm() {
            write(&folded, &x, &Path::new(to).join(format!("{name}.folded")))?;
        }
        if let Ok(scaled) = sae.fold_norm_factor(1.7) {
            write(&scaled, &x, &Path::new(to).join(format!("{name}.scaled")))?;
        }
    }
    Ok(())
}

fn write(sae: &Sae, x: &Tensor, folder: &Path) -> sae_core::Result<()> {
    sae.save(folder)?;
    let forward = sae.forward(x)?;
    let tensors = [("x", x.clone()), ("encode", forward.codes.to_dense()?), ("forward", forward.x_hat)];
    Ok(save_safetensors(folder.join("ours.safetensors"), &tensors, None)?)
}
