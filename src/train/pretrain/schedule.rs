//! What changes from step to step: learning rate, decay, the teacher's inertia and temperature. Steps are counted from 0.

use crate::config::half_cosine;

/// The courses of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps that see each photo once.
    pub steps_per_epoch: u64,
    /// Learning rate: highest, and at the end.
    pub rate: [f64; 2],
    /// Epochs until the highest.
    pub warmup_epochs: f64,
    /// Decay of weights: at first, and at the end.
    pub decay: [f64; 2],
    /// Share of the old value in the teacher at first; 1 at the end.
    pub momentum: f64,
    /// Temperature of the teacher: at first, and after the warm-up.
    pub temperature: [f64; 2],
    /// Epochs of that warm-up.
    pub temperature_epochs: u64,
    /// Epochs in which prototypes stay as they are.
    pub freeze_epochs: u64,
}

impl Schedule {
    /// Learning rate of a step: from zero in equal parts to the highest, which the last step of the warm-up has, then along half a cosine.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let n_warm = self.n_warm();
        if step < n_warm {
            return self.rate[0] * share(step, (n_warm - 1).max(1));
        }
        course(self.rate, share(step - n_warm, self.steps.saturating_sub(n_warm)))
    }

    /// Decay of weights in a step, along half a cosine.
    #[must_use]
    pub fn decay(&self, step: u64) -> f64 {
        course(self.decay, share(step, self.steps))
    }

    /// Share of the old value that the teacher keeps in a step, along half a cosine.
    #[must_use]
    pub fn momentum(&self, step: u64) -> f64 {
        course([self.momentum, 1.0], share(step, self.steps))
    }

    /// Temperature of the teacher in a step: in equal parts, an epoch each.
    #[must_use]
    pub fn temperature(&self, step: u64) -> f64 {
        let [first, last] = self.temperature;
        let epoch = self.epoch(step);
        if epoch >= self.temperature_epochs {
            return last;
        }
        first + (last - first) * share(epoch, (self.temperature_epochs - 1).max(1))
    }

    /// Whether prototypes stay as they are in a step.
    #[must_use]
    pub fn freezes_prototypes(&self, step: u64) -> bool {
        self.epoch(step) < self.freeze_epochs
    }

    fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch.max(1)
    }

    fn n_warm(&self) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "steps are far fewer than 2^53")]
        let n = self.warmup_epochs * self.steps_per_epoch as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded by the steps")]
        let n = n.min(u32::MAX.into()) as u64;
        n.min(self.steps)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "steps are far fewer than 2^53")]
    let share = part as f64 / whole.max(1) as f64;
    share
}

/// From the first value to the second along half a cosine.
fn course([first, last]: [f64; 2], progress: f64) -> f64 {
    last + (first - last) * half_cosine(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule {
            steps: 100,
            steps_per_epoch: 10,
            rate: [1.0, 0.1],
            warmup_epochs: 2.0,
            decay: [0.04, 0.4],
            momentum: 0.9,
            temperature: [0.04, 0.07],
            temperature_epochs: 4,
            freeze_epochs: 1,
        }
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
    }

    #[test]
    fn the_rate_warms_up_in_equal_parts_and_falls_along_a_cosine() {
        // 20 steps of warm-up, the last at the highest; then 80 along a cosine.
        [(0, 0.0), (1, 1.0 / 19.0), (19, 1.0), (20, 1.0), (60, 0.55), (100, 0.1)]
            .into_iter()
            .for_each(|(step, expected)| close(schedule().rate(step), expected));
        close(schedule().rate(40), 0.1 + 0.45 * (1.0 + std::f64::consts::FRAC_1_SQRT_2));
    }

    #[test]
    fn decay_grows_and_the_teacher_stops() {
        [(0, 0.04), (50, 0.22), (100, 0.4)].into_iter().for_each(|(step, expected)| close(schedule().decay(step), expected));
        [(0, 0.9), (50, 0.95), (100, 1.0)].into_iter().for_each(|(step, expected)| close(schedule().momentum(step), expected));
    }

    #[test]
    fn the_teacher_warms_up_by_epochs_and_prototypes_are_frozen_in_the_first() {
        [(0, 0.04), (9, 0.04), (10, 0.05), (25, 0.06), (30, 0.07), (99, 0.07)]
            .into_iter()
            .for_each(|(step, expected)| close(schedule().temperature(step), expected));
        assert!(schedule().freezes_prototypes(9) && !schedule().freezes_prototypes(10));
        close(Schedule { temperature_epochs: 0, ..schedule() }.temperature(0), 0.07);
    }
}
