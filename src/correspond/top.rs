//! The k largest of many values, and whose they are.

/// The `k` largest values so far, largest first; of equal ones those that came first.
#[derive(Clone, Debug)]
pub(super) struct Top {
    entries: Vec<(f32, usize)>,
    k: usize,
}

impl Top {
    pub(super) fn new(k: usize) -> Self {
        Self { entries: Vec::with_capacity(k + 1), k }
    }

    /// The value that others must exceed.
    pub(super) fn bar(&self) -> f32 {
        if self.entries.len() < self.k { f32::NEG_INFINITY } else { self.entries.last().map_or(f32::INFINITY, |entry| entry.0) }
    }

    /// Takes a value, if it is among the largest. NaN never is.
    pub(super) fn offer(&mut self, value: f32, source: usize) {
        if value > self.bar() {
            let position = self.entries.partition_point(|entry| entry.0 >= value);
            self.entries.insert(position, (value, source));
            self.entries.truncate(self.k);
        }
    }

    pub(super) fn entries(&self) -> &[(f32, usize)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stay_in_order() {
        let mut top = Top::new(3);
        for (source, value) in [0.5, f32::NAN, 0.1, 0.9, 0.5, 0.7].into_iter().enumerate() {
            top.offer(value, source);
        }
        assert_eq!(top.entries(), [(0.9, 3), (0.7, 5), (0.5, 0)]);
    }
}
