//! What computes: precision, back end, threads.

use super::Outcome;
use clap::{Args, ValueEnum};
use saescope::tensor_kernels::{self, Arithmetic, Backend, Engine};

/// More threads than any machine has.
const MOST_THREADS: usize = 4096;

/// Precision of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// As near to it as three bf16 products come where the machine has AMX; else the same as f32.
    F32fast,
    /// Inputs and weights rounded to bf16, sums in f32.
    Bf16,
}

impl From<Precision> for tensor_kernels::Precision {
    fn from(flag: Precision) -> Self {
        match flag {
            Precision::F32 => Self::F32,
            Precision::F32fast => Self::F32Fast,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// How a model and an SAE are computed.
#[derive(Args, Clone, Debug)]
pub struct EngineFlags {
    /// Precision of the matrix products [default: f32fast; f32 where values are written for other tools to check]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// amx, avx512, avx2 or portable [default: the fastest that this machine has]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<Backend>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "T")]
    pub threads: Option<usize>,
}

impl EngineFlags {
    /// The engine, [`Precision::F32fast`] unless the flag says otherwise; sets the number of threads for the whole program.
    pub fn start(&self) -> Outcome<Engine> {
        self.start_in(Precision::F32fast)
    }

    /// The same with another default.
    pub fn start_in(&self, default: Precision) -> Outcome<Engine> {
        if let Some(threads) = self.threads {
            if !(1..=MOST_THREADS).contains(&threads) {
                return Err(format!("--threads is {threads}, expected 1 to {MOST_THREADS}").into());
            }
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        }
        let precision = self.precision.unwrap_or(default).into();
        Ok(match self.backend {
            None => Engine::kernels(precision),
            Some(backend) => Engine::Kernels(Arithmetic::on(backend, precision)?),
        })
    }
}

/// The most memory that this process has had, in bytes, where the system says so (Linux).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
