//! What is known of buckets that have not run yet: seconds for each unit of size, from the runs of all others.

use super::cost::{DEFAULT_RATIO, Line};

/// Share of a new run in the means.
const RATE: f64 = 0.1;

/// Means over the buckets that ran.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    /// Seconds for each image and unit of size, and for each run.
    means: Option<(f64, f64)>,
}

impl Rates {
    /// Learns from the line of a bucket whose images are of `size`.
    pub(super) fn observe(&mut self, size: f64, line: Line) {
        let new = (line.a / size.max(f64::MIN_POSITIVE), line.b);
        let mean = |old: f64, new: f64| old + RATE * (new - old);
        self.means = Some(self.means.map_or(new, |(a, b)| (mean(a, new.0), mean(b, new.1))));
    }

    /// The line to expect of images of `size`; zero when nothing has run.
    pub(super) fn line(&self, size: f64) -> Line {
        self.means.map_or(Line { a: 0.0, b: 0.0 }, |(a, b)| Line { a: a * size, b })
    }

    /// The ratio `b / a` to expect of images of `size`.
    pub(super) fn ratio(&self, size: f64) -> f64 {
        let Line { a, b } = self.line(size);
        if a > 0.0 { b / a } else { DEFAULT_RATIO }
    }
}
