//! J and F of video object segmentation: "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", Perazzi et al., CVPR
//! 2016; the semi-supervised task of DAVIS 2017 (Pont-Tuset et al., 2017).
//!
//! In: masks of one object, as bits row by row. Out: J and F of a frame, and their statistics over a video.

/// Tolerance of boundaries, as a share of the diagonal of the frame.
const BOUND: f64 = 0.008;
/// Parts of a video whose means the decay compares.
const N_BINS: usize = 4;

/// A mask of one object.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// `[height * width]`.
    pub bits: &'a [bool],
    /// Rows and columns.
    pub size: [usize; 2],
}

/// Statistics of J or F over the frames of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Mean over frames.
    pub mean: f64,
    /// Share of frames above one half.
    pub recall: f64,
    /// Mean of the first quarter of the frames, less that of the last.
    pub decay: f64,
}

impl Statistics {
    /// Of the frames of an object in order, the first and the last of the video left out by the caller; nothing without frames.
    #[must_use]
    pub fn new(values: &[f64]) -> Option<Self> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let n = values.len();
        // Bounds of the bins: linspace(1, n, 5), rounded to even at halves, 1-based and inclusive at both ends, as in the reference.
        let bound = |i: usize| (1.0 + (n - 1) as f64 * i as f64 / N_BINS as f64).round_ties_even() as usize - 1;
        let bin = |i: usize| mean(&values[bound(i)..=bound(i + 1)]);
        let recall = values.iter().filter(|value| **value > 0.5).count() as f64 / n as f64;
        Some(Self { mean: mean(values), recall, decay: bin(0) - bin(N_BINS - 1) })
    }
}

/// J, the intersection over the union; 1 where both are empty. Masks are of one size.
#[must_use]
pub fn region_similarity(predicted: Mask<'_>, truth: Mask<'_>) -> f64 {
    let pairs = || predicted.bits.iter().zip(truth.bits);
    let union = pairs().filter(|(a, b)| **a || **b).count();
    let both = pairs().filter(|(a, b)| **a && **b).count();
    if union == 0 { 1.0 } else { both as f64 / union as f64 }
}

/// F, the harmonic mean of precision and recall of the boundaries, within a disk of `ceil(0.008 * diagonal)` pixels.
#[must_use]
pub fn boundary_accuracy(predicted: Mask<'_>, truth: Mask<'_>) -> f64 {
    let [height, width] = truth.size;
    let radius = (BOUND * ((height * height + width * width) as f64).sqrt()).ceil() as usize;
    let (ours, theirs) = (boundary(predicted), boundary(truth));
    let count = |bits: &[bool]| bits.iter().filter(|is_set| **is_set).count();
    let (n_ours, n_theirs) = (count(&ours), count(&theirs));
    let matched = |bits: &[bool], others: &[bool]| {
        let near = dilate(others, truth.size, radius);
        bits.iter().zip(&near).filter(|(is_set, is_near)| **is_set && **is_near).count()
    };
    let share = |matched: usize, of: usize| matched as f64 / of as f64;
    let (precision, recall) = match (n_ours, n_theirs) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (1.0, 0.0),
        (_, 0) => (0.0, 1.0),
        _ => (share(matched(&ours, &theirs), n_ours), share(matched(&theirs, &ours), n_theirs)),
    };
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

/// Pixels that differ from their right, lower or lower right neighbour. The last row compares with the right one only, the last column with
/// the lower one only, the last pixel with none.
fn boundary(mask: Mask<'_>) -> Vec<bool> {
    let [height, width] = mask.size;
    let at = |row: usize, col: usize| mask.bits[row * width + col];
    let differs = |row: usize, col: usize| {
        let (is_last_row, is_last_col) = (row + 1 == height, col + 1 == width);
        let own = at(row, col);
        (!is_last_col && own != at(row, col + 1))
            || (!is_last_row && own != at(row + 1, col))
            || (!is_last_row && !is_last_col && own != at(row + 1, col + 1))
    };
    (0..height * width).map(|pixel| differs(pixel / width, pixel % width)).collect()
}

/// Pixels within `radius` of a set one.
fn dilate(bits: &[bool], [height, width]: [usize; 2], radius: usize) -> Vec<bool> {
    let mut near = vec![false; bits.len()];
    let reach = |off: usize| ((radius * radius - off * off) as f64).sqrt() as usize;
    let reaches: Vec<usize> = (0..=radius).map(reach).collect();
    for pixel in (0..bits.len()).filter(|pixel| bits[*pixel]) {
        let (row, col) = (pixel / width, pixel % width);
        for other in row.saturating_sub(radius)..(row + radius + 1).min(height) {
            let along = reaches[row.abs_diff(other)];
            near[other * width + col.saturating_sub(along)..other * width + (col + along + 1).min(width)].fill(true);
        }
    }
    near
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn square(size: [usize; 2], rows: std::ops::Range<usize>, cols: std::ops::Range<usize>) -> Vec<bool> {
        (0..size[0] * size[1]).map(|pixel| rows.contains(&(pixel / size[1])) && cols.contains(&(pixel % size[1]))).collect()
    }

    fn mask(bits: &[bool], size: [usize; 2]) -> Mask<'_> {
        Mask { bits, size }
    }

    const SIZE: [usize; 2] = [40, 60];

    #[test]
    fn empty_masks_follow_the_rules_of_the_benchmark() {
        let (nothing, something) = (square(SIZE, 0..0, 0..0), square(SIZE, 5..15, 5..15));
        let (nothing, something) = (mask(&nothing, SIZE), mask(&something, SIZE));
        assert_eq!([region_similarity(nothing, nothing), boundary_accuracy(nothing, nothing)], [1.0, 1.0]);
        assert_eq!([region_similarity(nothing, something), boundary_accuracy(nothing, something)], [0.0, 0.0]);
        assert_eq!([region_similarity(something, nothing), boundary_accuracy(something, nothing)], [0.0, 0.0]);
    }

    #[test]
    fn overlap_and_boundary_of_shifted_squares_by_hand() {
        // Diagonal 72.1: a tolerance of one pixel.
        let (a, b, c) = (square(SIZE, 10..20, 10..20), square(SIZE, 10..20, 11..21), square(SIZE, 10..20, 15..25));
        assert!((region_similarity(mask(&a, SIZE), mask(&b, SIZE)) - 90.0 / 110.0).abs() < 1e-12);
        assert_eq!(boundary_accuracy(mask(&a, SIZE), mask(&b, SIZE)), 1.0);
        let far = boundary_accuracy(mask(&a, SIZE), mask(&c, SIZE));
        assert!(far > 0.2 && far < 0.9, "{far}");
    }

    #[test]
    fn a_mask_that_fills_the_frame_has_no_boundary() {
        let all = square(SIZE, 0..40, 0..60);
        assert!(boundary(mask(&all, SIZE)).iter().all(|is_set| !is_set));
    }

    #[test]
    fn the_last_row_and_column_compare_with_one_neighbour_only() {
        let bits = [true, true, true, false];
        assert_eq!(boundary(mask(&bits, [2, 2])), [true, true, true, false]);
    }

    #[test]
    fn statistics_by_hand() {
        let statistics = Statistics::new(&[1.0, 0.8, 0.6, 0.4, 0.2]).unwrap();
        assert!((statistics.mean - 0.6).abs() < 1e-12 && (statistics.recall - 0.6).abs() < 1e-12);
        // Bounds 1, 2, 3, 4, 5: the first bin holds values 1 and 2, the last 4 and 5.
        assert!((statistics.decay - (0.9 - 0.3)).abs() < 1e-12, "{}", statistics.decay);
        assert_eq!(Statistics::new(&[]), None);
        assert!(Statistics::new(&[0.7]).unwrap().decay.abs() < 1e-12);
    }
}
