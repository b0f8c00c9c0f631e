//! COCO's compressed string of run lengths, as pycocotools writes and reads it.
//!
//! Each count from the third on is written as the difference to the one two places before it, which is small where outlines are
//! smooth. A number is cut into groups of five bits, the lowest first; a sixth bit says that more follow, the highest bit of the last
//! group is the sign. A group is the letter 48 further in ASCII: `'0'` to `'o'`.

use crate::masks::{MaskError, Rle};

/// Bits of a group.
const GROUP_BITS: u32 = 5;
/// The bit that says that another group follows.
const MORE: u8 = 0x20;
/// The highest bit of a group: of the last one, the sign.
const SIGN: u8 = 0x10;
/// The letter of the group 0.
const FIRST: u8 = b'0';
/// Groups of the largest difference of two 32-bit counts: 33 bits.
const MAX_GROUPS: u32 = 7;

impl Rle {
    /// The compressed string, the `counts` of COCO's JSON.
    #[must_use]
    pub fn to_coco_string(&self) -> String {
        let mut text = String::with_capacity(2 * self.counts().len());
        for (idx, count) in self.counts().iter().enumerate() {
            let base = if idx > 2 { self.counts()[idx - 2] } else { 0 };
            push_number(i64::from(*count) - i64::from(base), &mut text);
        }
        text
    }

    /// Reads a compressed string.
    ///
    /// # Errors
    /// [`MaskError::Rle`] for what is no such string, as [`Rle::new`].
    pub fn from_coco_string(rows: usize, cols: usize, text: &str) -> Result<Self, MaskError> {
        let failed = |reason| MaskError::Rle { rows, cols, reason };
        let mut counts: Vec<u32> = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (number, behind) = number(rest).ok_or_else(|| failed("the string holds a letter that does not belong there"))?;
            rest = behind;
            let base = if counts.len() > 2 { counts.get(counts.len() - 2).copied().unwrap_or_default() } else { 0 };
            counts.push(u32::try_from(number + i64::from(base)).map_err(|_range| failed("a run has no 32-bit length"))?);
        }
        Self::new(rows, cols, counts)
    }
}

fn push_number(mut number: i64, text: &mut String) {
    loop {
        let group = (number & 0x1F) as u8;
        number >>= GROUP_BITS;
        // All that is left must be copies of the sign.
        let is_last = number == if group & SIGN == 0 { 0 } else { -1 };
        text.push(char::from(FIRST + if is_last { group } else { group | MORE }));
        if is_last {
            return;
        }
    }
}

/// The number at the beginning, and what comes behind it.
fn number(letters: &[u8]) -> Option<(i64, &[u8])> {
    let mut number = 0;
    for (idx, letter) in (0..MAX_GROUPS).zip(letters) {
        let group = letter.checked_sub(FIRST).filter(|group| *group < 2 * MORE)?;
        number |= i64::from(group & !MORE) << (GROUP_BITS * idx);
        if group & MORE == 0 {
            let sign = if group & SIGN == 0 { 0 } else { -1 << (GROUP_BITS * (idx + 1)) };
            return Some((number | sign, &letters[idx as usize + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_those_of_the_definition() {
        let text = |rows, cols, counts: &[u32]| Rle::new(rows, cols, counts.to_vec()).unwrap().to_coco_string();
        // 6 = 0b00110. 25 = 0b11001: its fifth bit is no sign, so a group of zeros follows.
        assert_eq!(text(2, 3, &[6]), "6");
        assert_eq!(text(5, 5, &[25]), format!("{}0", char::from(48 + 0x20 + 25)));
        // The fourth count, 1, follows 2: -1 = 0b11111.
        assert_eq!(text(2, 3, &[1, 2, 2, 1]), format!("122{}", char::from(48 + 31)));
    }

    #[test]
    fn strings_that_are_none_are_refused() {
        for text in ["", "6 ", "p", "é", "P", "PPPPPPPPPP", "7", "5", "3O", "ooooooo0"] {
            let error = Rle::from_coco_string(2, 3, text).unwrap_err();
            assert!(matches!(error, MaskError::Rle { .. }), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn strings_go_round(counts in proptest::collection::vec(prop_oneof![1u32..40, 1u32..20_000_000], 1..60), begins_set: bool) {
            let mut counts = counts;
            if begins_set {
                counts[0] = 0;
            }
            let n_pixels = counts.iter().map(|count| *count as usize).sum::<usize>();
            prop_assume!(n_pixels > 0);
            let rle = Rle::new(1, n_pixels, counts).unwrap();
            prop_assert_eq!(Rle::from_coco_string(1, n_pixels, &rle.to_coco_string()).unwrap(), rle);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-p]{0,40}") {
            let _ = Rle::from_coco_string(20, 30, &text);
        }
    }
}
