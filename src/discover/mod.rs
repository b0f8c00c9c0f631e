//! Finds the object of an image in its features, without labels: LOST (Siméoni et al., BMVC 2021) and TokenCut (Wang et al., CVPR 2022).
//!
//! In: a map of features. Out: the cells of each object, the seed it grew from, and how far it stands out. Pure computation; called by
//! `engine` away from the async threads, and by the trainer's evaluation.
//!
//! # Design
//! Both methods leave one object an image. More are found by cutting the cells of the one before out of the graph and looking again, as
//! MaskCut does (Wang et al., "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", CVPR 2023).
//! Ties are broken by the index of the cell, where the authors' sort leaves them open.

mod bits;
mod component;
mod features;
mod lanczos;
mod lost;
mod token_cut;

use std::fmt;

use thiserror::Error;

pub use self::features::centred;

use self::{component::component_of, features::Cells};

/// Threshold on cosines of TokenCut on VOC (on COCO its authors use 0.2 as well, LiFT's 0.3).
pub const DEFAULT_TAU: f32 = 0.2;
/// Corners that an object may hold unless told otherwise. The code of MaskCut's authors takes the other side of three and four; an object that the
/// lower border cuts off holds two.
pub const DEFAULT_MAX_CORNERS: usize = 2;
/// Corners of a grid.
pub const CORNERS: usize = 4;
/// Cells of the largest grid. The graph has this number squared of edges: 64 x 64 cells are 16.8 million.
pub const MAX_CELLS: usize = 64 * 64;
/// Objects that may be asked for.
pub const MAX_OBJECTS: usize = 16;

/// How objects are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Grows a region from the cell that is like the fewest others.
    Lost {
        /// Added to every product of two features. 0 in the paper of LOST; "Vision Transformers Need Registers" (ICLR 2024) adds one for
        /// DINOv2 without saying how much.
        gram_bias: f32,
    },
    /// Cuts the graph of similar cells in two.
    TokenCut {
        /// Cosine above which two cells are similar.
        tau: f32,
        /// Corners of the grid that an object may hold, 0 to 4: of a cut, the other side of one that holds more is taken, the object-centric
        /// prior of MaskCut. [`CORNERS`] for never, as in TokenCut's paper.
        max_corners: usize,
    },
}

/// A found object.
///
/// # Shapes
/// - `cells`: `[h * w]`, row by row: whether a cell belongs to it
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// Cells of the object, connected.
    pub cells: Vec<bool>,
    /// Row and column of the cell that it grew from.
    pub seed: [usize; 2],
    /// Box around the cells: first row and column, and one past the last.
    pub bounds: Bounds,
    /// Mean cosine of its cells to the seed, less that of all others: how far the object stands out. Between -2 and 2; 1 and more is
    /// rare.
    pub score: f32,
}

/// Rows and columns of cells, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First and one past the last row.
    pub rows: [usize; 2],
    /// First and one past the last column.
    pub cols: [usize; 2],
}

/// Why no object can be looked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoverError {
    /// The grid is too large.
    #[error("{rows} x {cols} cells are more than the {MAX_CELLS} that objects are looked for in; ask for a smaller input")]
    TooManyCells {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// The features do not fill the grid, or there is none.
    #[error("{n_values} values are no map of {rows} x {cols} cells")]
    Shape {
        /// Numbers that came.
        n_values: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
}

/// Looks for up to `n_objects` objects in `map`, in the order in which they are found; fewer when nothing is left.
///
/// # Shapes
/// - `map`: `[h, w, C]` f32, keys of the last block in the papers
///
/// # Errors
/// [`DiscoverError`] for a grid of more than [`MAX_CELLS`], and values that do not fill it.
pub fn discover(map: &[f32], grid: [usize; 2], method: Method, n_objects: usize) -> Result<Vec<Discovery>, DiscoverError> {
    Ok(Search::new(map, grid, method)?.take(n_objects.min(MAX_OBJECTS)).collect())
}

/// A search for one object after the other, each among the cells that those before leave. Ends when nothing is left.
pub struct Search {
    cells: Cells,
    is_free: Vec<bool>,
    grid: [usize; 2],
    method: Method,
}

impl Search {
    /// Begins a search in `map`.
    ///
    /// # Shapes
    /// - `map`: `[h, w, C]` f32
    ///
    /// # Errors
    /// As [`discover`].
    pub fn new(map: &[f32], [rows, cols]: [usize; 2], method: Method) -> Result<Self, DiscoverError> {
        let n_cells = rows.saturating_mul(cols);
        if n_cells > MAX_CELLS {
            return Err(DiscoverError::TooManyCells { rows, cols });
        }
        if n_cells == 0 || map.is_empty() || !map.len().is_multiple_of(n_cells) {
            return Err(DiscoverError::Shape { n_values: map.len(), rows, cols });
        }
        Ok(Self { cells: Cells::new(map, n_cells), is_free: vec![true; n_cells], grid: [rows, cols], method })
    }

    /// Memory of a search, in bytes: features, directions, the products of all pairs of cells, and the vectors of the cut.
    #[must_use]
    pub fn n_bytes(n_cells: u64, n_channels: u64) -> u64 {
        let of_cells = 2 * 4 * n_cells * n_channels;
        of_cells + 4 * n_cells * n_cells + 8 * lanczos::MAX_STEPS as u64 * n_cells
    }
}

impl Search {
    /// The corners of the grid among the free cells: their positions.
    fn corners(&self, free: &[usize]) -> Vec<usize> {
        let [rows, cols] = self.grid;
        let mut corners = [0, cols - 1, (rows - 1) * cols, rows * cols - 1].to_vec();
        // A grid of one row or column has fewer.
        corners.dedup();
        corners.iter().filter_map(|corner| free.binary_search(corner).ok()).collect()
    }
}

impl Iterator for Search {
    type Item = Discovery;

    fn next(&mut self) -> Option<Discovery> {
        let free: Vec<usize> = (0..self.is_free.len()).filter(|cell| self.is_free[*cell]).collect();
        let part = match self.method {
            Method::Lost { gram_bias } => lost::part(&self.cells, &free, gram_bias),
            Method::TokenCut { tau, max_corners } => {
                token_cut::cut(&self.cells, &free, tau).map(|cut| cut.part(&self.corners(&free), max_corners))
            }
        };
        let object = part?.into_discovery(&self.cells, &free, self.grid);
        object.cells.iter().zip(&mut self.is_free).for_each(|(is_inside, is_free)| *is_free &= !is_inside);
        Some(object)
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({:?} on {:?})", self.method, self.grid)
    }
}

/// What a method leaves: a foreground, and the cell that it began with. Indices are positions among the free cells.
struct Part {
    is_foreground: Vec<bool>,
    seed: usize,
}

impl Part {
    /// The connected part with the seed.
    fn into_discovery(self, cells: &Cells, free: &[usize], [rows, cols]: [usize; 2]) -> Discovery {
        let mut foreground = vec![false; rows * cols];
        for (position, cell) in free.iter().enumerate() {
            foreground[*cell] = self.is_foreground[position];
        }
        let seed = free[self.seed];
        let inside = component_of(&foreground, [rows, cols], seed);
        Discovery {
            seed: [seed / cols, seed % cols],
            bounds: bounds(&inside, cols),
            score: cells.contrast(&inside, seed),
            cells: inside,
        }
    }
}

fn bounds(cells: &[bool], cols: usize) -> Bounds {
    let mut bounds = Bounds { rows: [usize::MAX, 0], cols: [usize::MAX, 0] };
    for cell in (0..cells.len()).filter(|cell| cells[*cell]) {
        for ([first, end], index) in [(&mut bounds.rows, cell / cols), (&mut bounds.cols, cell % cols)] {
            *first = index.min(*first);
            *end = (index + 1).max(*end);
        }
    }
    bounds
}

#[cfg(test)]
mod tests;
