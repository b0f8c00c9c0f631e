//! LOST: "Localizing Objects with Self-Supervised Transformers and no Labels", Siméoni et al., BMVC 2021.

use super::{Part, features::Cells};

/// Cells of lowest degree among which the region is looked for (k in the paper).
const N_CANDIDATES: usize = 100;

/// The part that resembles the cell with the fewest friends. Degree of a cell: the number of other cells with a positive product; seed: the
/// one of lowest degree; similars: those of the `N_CANDIDATES` of lowest degree with a positive product with the seed; foreground: cells
/// whose products with the similars sum to more than zero. Nothing if there are no cells.
pub(super) fn part(cells: &Cells, free: &[usize], gram_bias: f32) -> Option<Part> {
    let mut gram = cells.gram(free);
    gram += gram_bias;
    let degree =
        |cell: usize| gram.row(cell).iter().enumerate().filter(|(other, product)| *other != cell && **product > 0.0).count();
    let mut order: Vec<(usize, usize)> = (0..free.len()).map(|cell| (degree(cell), cell)).collect();
    order.sort_unstable();
    let seed = order.first()?.1;
    let candidates = order.iter().take(N_CANDIDATES).map(|(_, cell)| *cell);
    let mut sums = vec![0.0f64; free.len()];
    for similar in candidates.filter(|cell| gram[(seed, *cell)] > 0.0) {
        sums.iter_mut().zip(gram.row(similar)).for_each(|(sum, product)| *sum += f64::from(*product));
    }
    Some(Part { is_foreground: sums.iter().map(|sum| *sum > 0.0).collect(), seed })
}
