//! Bytes that are nearly right.

/// Numbers that break what was not thought of, as varints of protobuf: 0, 1, 2^31 - 1, 2^32 - 1, 2^63, 2^64 - 1.
const EXTREMES: [&[u8]; 6] = [
    &[0],
    &[1],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0x07],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
];
/// Changes of a case, at most.
const MAX_CHANGES: usize = 6;
/// Bytes that are cut out or doubled at once, at most.
const MAX_RUN: usize = 32;

/// The changes of one case: the same for the same numbers.
pub struct Mutator(fastrand::Rng);

impl Mutator {
    pub fn new(seed: u64, case: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed ^ case.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.0.usize(..from.len())]
    }

    /// True so many times of a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    /// Changes `bytes`; `other` is where foreign bytes come from.
    pub fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.0.usize(..MAX_CHANGES) {
            let at = self.0.usize(..=bytes.len());
            let run = self.0.usize(1..=MAX_RUN).min(bytes.len() - at);
            match self.0.u8(..7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.0.u8(..8),
                1 if at < bytes.len() => bytes[at] = self.0.u8(..),
                2 => drop(bytes.drain(at..at + run)),
                3 => {
                    let copy = bytes[at..at + run].to_vec();
                    bytes.splice(at..at, copy);
                }
                4 => {
                    let number = EXTREMES[self.0.usize(..EXTREMES.len())];
                    bytes.splice(at..(at + 1).min(bytes.len()), number.iter().copied());
                }
                5 => bytes.truncate(at),
                6 if !other.is_empty() => {
                    let from = self.0.usize(..other.len());
                    let taken = other[from..(from + MAX_RUN).min(other.len())].to_vec();
                    bytes.splice(at..at + run, taken);
                }
                _ => {}
            }
        }
    }
}
