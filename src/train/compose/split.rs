//! Which part of a data set a content belongs to.

use serde::Serialize;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from: three fifths of the contents.
    Train,
    /// To choose by: a fifth.
    Val,
    /// To measure on: a fifth.
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The split of a content, by its SHA-256: it stays there whatever else is there.
    #[must_use]
    pub fn of(digest: &str) -> Self {
        // Not the digits that `data::photos` splits by, so that both splits are independent.
        let digits = digest.get(8..16).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
        match f64::from(digits) / 2f64.powi(32) {
            share if share < 0.6 => Self::Train,
            share if share < 0.8 => Self::Val,
            _ => Self::Test,
        }
    }

    /// For files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_split_three_to_one_to_one() {
        let digests: Vec<String> = (0..1000u32).map(|idx| format!("{:08x}{:08x}", 0, idx.wrapping_mul(0x9e37_79b9))).collect();
        let count = |split| digests.iter().filter(|digest| Split::of(digest) == split).count();
        let counts = Split::ALL.map(count);
        assert!(counts[0].abs_diff(600) < 20 && counts[1].abs_diff(200) < 20 && counts[2].abs_diff(200) < 20, "{counts:?}");
    }
}
