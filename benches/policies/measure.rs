//! What runs of the default model take on this machine: the constants of `costs.rs`.
//!
//! Times are CPU time over the number of threads, which is what a run takes where nothing else runs: a shared machine measures the
//! same but for what neighbours take of its caches. The time of a core is counted in hundredths of a second, so each reading spans several runs.

use std::path::Path;

use anyhow::Context as _;
use densevit::{
    engine::GRAPH_TOOLS,
    manifest::{Manifest, scan},
    runtime::{Library, ModelRunner, RunKey, RuntimeConfig, RuntimeModel, cpu_quota},
    tensor::RgbImage,
};

use crate::cpu_time::CpuTime;

const SIZES: [[u32; 2]; 4] = [[224, 224], [336, 336], [448, 448], [448, 672]];
const BATCHES: [usize; 3] = [1, 2, 4];
/// Images of a reading.
const N_IMAGES: usize = 4;
const N_ROUNDS: usize = 4;

pub fn run() -> anyhow::Result<()> {
    let entry =
        scan(Path::new("models"))?.into_iter().next().context("models/ holds none; `make setup` imports the default one")?;
    let manifest: &Manifest = &entry.manifest;
    let library = Library::load(None, None)?;
    let model = RuntimeModel::open(&entry.dir, manifest, &RuntimeConfig::default(), &library, GRAPH_TOOLS)?;
    let mut runner = ModelRunner::new(&model);
    println!("{}: milliseconds of the best of {N_ROUNDS} rounds, and the line through them", manifest.name);
    for [height, width] in SIZES {
        let key = RunKey::features([height, width], manifest.backbone.default, 0);
        runner.warm_up(&key)?;
        let image = RgbImage::new(height, width, vec![127; (height * width * 3) as usize]).context("no such size")?;
        let mut best = [f64::INFINITY; BATCHES.len()];
        for _ in 0..N_ROUNDS {
            for (n, best) in BATCHES.iter().zip(&mut best) {
                let images = vec![image.clone(); *n];
                let n_runs = N_IMAGES / n;
                let began = CpuTime::of_self()?;
                (0..n_runs).try_for_each(|_| runner.run(&key, &images).map(drop))?;
                let seconds = CpuTime::of_self()?.since(began) / (n_runs * cpu_quota()) as f64;
                *best = best.min(seconds * 1e3);
            }
        }
        let [a, b] = line(&best);
        let times: Vec<String> = BATCHES.iter().zip(best).map(|(n, ms)| format!("{n}: {ms:.1}")).collect();
        println!("  {height} x {width} px: {}; {a:.1} n + {b:.1}", times.join(", "));
    }
    Ok(())
}

/// Least squares.
fn line(times: &[f64; BATCHES.len()]) -> [f64; 2] {
    let count = BATCHES.len() as f64;
    let sizes = BATCHES.map(|n| n as f64);
    let (mean_n, mean_t) = (sizes.iter().sum::<f64>() / count, times.iter().sum::<f64>() / count);
    let covariance: f64 = sizes.iter().zip(times).map(|(n, t)| (n - mean_n) * (t - mean_t)).sum();
    let a = covariance / sizes.iter().map(|n| (n - mean_n).powi(2)).sum::<f64>();
    [a, mean_t - a * mean_n]
}
