//! Connected parts of a grid.

/// The cells of `foreground` (`[rows, cols]`, row by row) that are connected with `seed` over shared sides; the seed itself always.
pub(super) fn component_of(foreground: &[bool], [rows, cols]: [usize; 2], seed: usize) -> Vec<bool> {
    let mut inside = vec![false; foreground.len()];
    let mut open = vec![seed];
    inside[seed] = true;
    while let Some(cell) = open.pop() {
        let (row, col) = (cell / cols, cell % cols);
        let neighbours = [
            (row > 0).then(|| cell - cols),
            (row + 1 < rows).then(|| cell + cols),
            (col > 0).then(|| cell - 1),
            (col + 1 < cols).then(|| cell + 1),
        ];
        for neighbour in neighbours.into_iter().flatten().filter(|neighbour| foreground[*neighbour]) {
            if !std::mem::replace(&mut inside[neighbour], true) {
                open.push(neighbour);
            }
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_do_not_connect() {
        let foreground = [true, false, true, true, false, false, false, true, true].map(|is_set| is_set);
        let inside = component_of(&foreground, [3, 3], 0);
        assert_eq!(inside, [true, false, false, true, false, false, false, false, false]);
    }
}
