//! What runs cost in the simulation.

/// Sizes of images of a trace.
pub const N_SIZES: usize = 4;

/// An executor: what a batch of n images of each size takes, `a * n + b`.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub name: &'static str,
    pub sizes: [Size; N_SIZES],
}

/// One size.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub name: &'static str,
    pub n_tokens: usize,
    /// For each image, in milliseconds.
    pub a_ms: f64,
    /// For each run, in milliseconds.
    pub b_ms: f64,
}

/// Largest batch of every policy.
pub const MAX_BATCH: usize = 8;
/// How much runs differ from their mean: between 0.9 and 1.1 of it.
pub const NOISE: f64 = 0.1;

const fn size(name: &'static str, n_tokens: usize, a_ms: f64, b_ms: f64) -> Size {
    Size { name, n_tokens, a_ms, b_ms }
}

/// The CPU: measured (`cargo bench --bench policies -- --measure`, the default model on 2 cores of an AMD EPYC, Zen 3, shared and busy,
/// 2026-11-26): one image takes 100, 275, 543 and 938 ms, four 455, 1180, 2345 and 4015, so batches save nothing, `b` is 0. The accelerator:
/// assumed, a hundredth of the time for each image, and 8 ms a run, as where starting kernels and copying outweigh a small model.
pub const PROFILES: [Profile; 2] = [
    Profile {
        name: "CPU (measured)",
        sizes: [
            size("224 x 224", 257, 100.0, 0.0),
            size("336 x 336", 577, 275.0, 0.0),
            size("448 x 448", 1025, 540.0, 0.0),
            size("448 x 672", 1537, 940.0, 0.0),
        ],
    },
    Profile {
        name: "accelerator (assumed)",
        sizes: [
            size("224 x 224", 257, 1.0, 8.0),
            size("336 x 336", 577, 2.75, 8.0),
            size("448 x 448", 1025, 5.4, 8.0),
            size("448 x 672", 1537, 9.4, 8.0),
        ],
    },
];

impl Profile {
    pub fn title(&self) -> String {
        let size = |size: &Size| format!("{} px {} n + {} ms", size.name, size.a_ms, size.b_ms);
        format!("{}: {}", self.name, self.sizes.iter().map(size).collect::<Vec<_>>().join(", "))
    }

    /// Seconds of a batch.
    pub fn seconds(&self, size_idx: usize, n: usize) -> f64 {
        let size = &self.sizes[size_idx];
        (size.a_ms * n as f64 + size.b_ms) / 1e3
    }

    /// Seconds that an image takes at best.
    pub fn best(&self, size_idx: usize) -> f64 {
        self.seconds(size_idx, MAX_BATCH) / MAX_BATCH as f64
    }

    /// Seconds that an image of any size takes at best.
    pub fn mean_best(&self) -> f64 {
        (0..N_SIZES).map(|size_idx| self.best(size_idx)).sum::<f64>() / N_SIZES as f64
    }

    /// Seconds that an image of any size takes alone.
    pub fn mean_alone(&self) -> f64 {
        (0..N_SIZES).map(|size_idx| self.seconds(size_idx, 1)).sum::<f64>() / N_SIZES as f64
    }
}
