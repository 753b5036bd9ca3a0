//! What the machine can do, and what products reach of it.
//!
//! ```text
//! cargo bench -p tensor-kernels --bench peak -- [--json] [--plain] [--threads 1,2] [--backend avx512] [--precision f32]
//!                                               [--shapes 1024x768x3072,8x768x768] [--runs 7]
//! ```
//! A shape is rows x k x columns. The peak is a loop of multiply-adds between registers, in GF/s (10^9 multiplications and additions per
//! second). A product is timed from plain rows to stored sums, packing of the rows included, with weights packed beforehand (`--plain`:
//! packed on the way). Medians of the runs. `--json` prints one array instead of the table.

use std::hint::black_box;
use std::time::Instant;
use tensor_kernels::{Arithmetic, Backend, MatrixRef, Operand, PackedMatrix, PackedRows, Precision, Store, product};

#[path = "peak/registers.rs"]
mod registers;

const SHAPES: &str = "1024x768x768,1024x768x2304,1024x768x3072,1024x3072x768,1024x768x24576,1024x768x50257,\
                      1x768x3072,8x768x3072,128x768x3072,1024x256x2048";

fn main() {
    let options = Options::read();
    let mut lines = Vec::new();
    for &threads in &options.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
        let kernels = Arithmetic::available().filter(|arithmetic| options.takes(*arithmetic)).collect::<Vec<_>>();
        for arithmetic in kernels {
            let peak = registers::peak(arithmetic).map(|run| peak(&pool, run));
            for &shape in &options.shapes {
                let line = pool.install(|| measure(arithmetic, shape, &options, threads, peak));
                if !options.json {
                    println!("{}", line.text());
                }
                lines.push(line);
            }
        }
    }
    if options.json {
        println!("[{}]", lines.iter().map(Line::json).collect::<Vec<_>>().join(",\n "));
    }
}

/// GF/s of all threads of a pool together.
fn peak(pool: &rayon::ThreadPool, run: fn() -> f64) -> f64 {
    median((0..5).map(|_| {
        let start = Instant::now();
        let operations: f64 = pool.broadcast(|_| run()).iter().sum();
        operations / start.elapsed().as_secs_f64() / 1e9
    }))
}

fn measure(arithmetic: Arithmetic, shape: [usize; 3], options: &Options, threads: usize, peak: Option<f64>) -> Line {
    let [m, k, n] = shape;
    let (x, w) = (values(m * k), values(k * n));
    let mut y = vec![0f32; m * n];
    let view = MatrixRef::row_major(&w, k, n).expect("as long as its shape");
    let start = Instant::now();
    let packed = PackedMatrix::pack(arithmetic, view).expect("small enough");
    let pack_w = start.elapsed().as_secs_f64();
    let operand = if options.plain { Operand::Plain(view) } else { Operand::Packed(&packed) };

    let operations = 2.0 * (m * n * k) as f64;
    let repeats = ((1e8 / operations) as usize).clamp(1, 10_000);
    let mut rows = PackedRows::new();
    let (mut total, mut packing) = (Vec::new(), Vec::new());
    for _ in 0..=options.runs {
        let mut pack_x = 0.0;
        let start = Instant::now();
        for _ in 0..repeats {
            let start = Instant::now();
            rows.pack(arithmetic, black_box(&x), k).expect("whole rows");
            pack_x += start.elapsed().as_secs_f64();
            product(&rows, operand, Store::new(&mut y, n, None).expect("fits")).expect("fits");
            black_box(&mut y);
        }
        total.push(start.elapsed().as_secs_f64() / repeats as f64);
        packing.push(pack_x / repeats as f64);
    }
    // The first run warms up.
    let (seconds, pack_x) = (median(total.drain(1..)), median(packing.drain(1..)));
    Line { arithmetic, threads, shape, gflops: operations / seconds / 1e9, peak, pack_w, pack_x, seconds }
}

/// What is said of one product.
struct Line {
    arithmetic: Arithmetic,
    threads: usize,
    shape: [usize; 3],
    gflops: f64,
    peak: Option<f64>,
    pack_w: f64,
    pack_x: f64,
    seconds: f64,
}

impl Line {
    fn text(&self) -> String {
        let [m, k, n] = self.shape;
        let share = self.peak.map_or(String::from("  ?"), |peak| format!("{:3.0}", 100.0 * self.gflops / peak));
        let (name, threads) = (self.arithmetic.kernel_name(), self.threads);
        let (gflops, ms, pack_x, pack_w) = (self.gflops, self.seconds * 1e3, self.pack_x * 1e3, self.pack_w * 1e3);
        format!(
            "{name:22} {threads} threads  {m:5} x {k:4} x {n:5}  {gflops:7.1} GF/s = {share} % of the peak, {ms:9.3} ms \
             (rows packed {pack_x:7.3}, weights {pack_w:7.1})"
        )
    }

    fn json(&self) -> String {
        let [m, k, n] = self.shape;
        let (peak, share) = match self.peak {
            Some(peak) => (format!("{peak:.2}"), format!("{:.4}", self.gflops / peak)),
            None => ("null".into(), "null".into()),
        };
        format!(
            r#"{{"kernel": "{}", "backend": "{}", "precision": "{}", "threads": {}, "m": {m}, "k": {k}, "n": {n}, "gflops": {:.2}, "peak": {peak}, "share": {share}, "seconds": {:.6e}, "pack_rows_s": {:.6e}, "pack_weights_s": {:.6e}}}"#,
            self.arithmetic.kernel_name(),
            self.arithmetic.backend(),
            self.arithmetic.precision(),
            self.threads,
            self.gflops,
            self.seconds,
            self.pack_x,
            self.pack_w,
        )
    }
}

/// What the command line asks for.
struct Options {
    threads: Vec<usize>,
    shapes: Vec<[usize; 3]>,
    runs: usize,
    backend: Option<Backend>,
    precision: Option<String>,
    plain: bool,
    json: bool,
}

impl Options {
    fn read() -> Self {
        let args: Vec<String> = std::env::args().collect();
        let flag = |name: &str| args.iter().any(|arg| arg == name);
        let value = |name: &str, default: &str| {
            let at = args.iter().position(|arg| arg == name);
            at.and_then(|at| args.get(at + 1)).map_or(default.to_owned(), String::clone)
        };
        let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("`{text}` is no number"));
        let shape = |text: &str| {
            let sizes: Vec<usize> = text.split('x').map(number).collect();
            <[usize; 3]>::try_from(sizes).unwrap_or_else(|_| panic!("`{text}` is no shape MxKxN"))
        };
        Self {
            threads: value("--threads", "1,2").split(',').map(number).collect(),
            shapes: value("--shapes", SHAPES).split(',').map(shape).collect(),
            runs: number(&value("--runs", "7")),
            backend: Some(value("--backend", "")).filter(|b| !b.is_empty()).map(|b| b.parse().expect("a back end")),
            precision: Some(value("--precision", "")).filter(|p| !p.is_empty()),
            plain: flag("--plain"),
            json: flag("--json"),
        }
    }

    /// Whether to measure it. `F32Fast` is a kernel of its own on AMX only.
    fn takes(&self, arithmetic: Arithmetic) -> bool {
        let own = arithmetic.precision() != Precision::F32Fast || arithmetic.backend() == Backend::Amx;
        own && self.backend.is_none_or(|backend| backend == arithmetic.backend())
            && self.precision.as_deref().is_none_or(|precision| precision == arithmetic.precision().name())
    }
}

/// In -1..1, without zeros or subnormal numbers that might be faster or slower.
fn values(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
