//! Rings of pixel corners around the regions of a mask.
//!
//! # Design
//! A corner belongs to an outline where the four pixels around it are one set and three not, three and one, or two that touch only
//! there. Each has one side along its row of corners and one along its column, and along both a corner's partner is simply the next
//! one: one pass from top to bottom joins them, without following borders through the image and without marking pixels. 64 corners
//! are looked at at once, and memory grows with the corners, not with the pixels. Rejected: following each border from pixel to pixel
//! (Suzuki and Abe 1985), which visits every pixel of a border and needs a map of labels as large as the image.
//!
//! Sides are directed with the set pixels on their left as one sees the picture. Where two regions touch at a corner only, two rings
//! pass through it, each around its own region: set pixels are connected along sides (4), others across corners too (8).

use crate::masks::{
    BitMask, MaskError,
    column_runs::{as_u32, word},
};

/// An entry that points nowhere.
const NONE: u32 = u32::MAX;

/// A closed line through pixel corners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Corners `[x, y]` where it turns, from the topmost, of these the leftmost.
    pub(super) corners: Vec<[u32; 2]>,
    /// For a hole, the ring around its region.
    pub(super) around: Option<usize>,
}

/// A corner of a ring.
#[derive(Clone, Copy, Debug)]
struct Node {
    corner: [u32; 2],
    /// The next one of the ring.
    next: u32,
    ring: u32,
    /// Where a hole may begin, a corner of the side to the left of it, which belongs to the region that the hole is in.
    beside: u32,
}

/// Whether the pixels around a corner are set: above left, above right, below left, below right.
type Around = [bool; 4];

/// Corners joined so far.
#[derive(Debug)]
struct Nodes {
    all: Vec<Node>,
    max: u64,
    /// For each column of corners, the corner whose side goes on downwards.
    open_above: Vec<u32>,
    /// The corner whose side goes on to the right.
    open_left: u32,
}

/// All rings of a mask: outer ones counter-clockwise as one sees the picture, holes clockwise; each behind the ring around it.
///
/// # Errors
/// [`MaskError::TooManyPoints`] when they have more than `max_points` corners.
pub(super) fn rings(mask: &BitMask, max_points: u64) -> Result<Vec<Ring>, MaskError> {
    let max = max_points.min(u64::from(NONE - 1));
    let mut nodes = Nodes { all: Vec::new(), max, open_above: vec![NONE; mask.cols() + 1], open_left: NONE };
    // Around the mask, nothing is set.
    let mut above: &[u8] = &[];
    for y in 0..=mask.rows() {
        let below = if y < mask.rows() { mask.row(y) } else { &[] };
        add_corners(&mut nodes, above, below, y, mask.cols())?;
        above = below;
    }
    Ok(collect(nodes.all))
}

/// Adds the corners between two rows of pixels.
fn add_corners(nodes: &mut Nodes, above: &[u8], below: &[u8], y: usize, cols: usize) -> Result<(), MaskError> {
    let (mut last_above, mut last_below) = (0, 0);
    for idx in 0..=cols / 64 {
        let (here_above, here_below) = (word(above, idx), word(below, idx));
        // The pixel to the left of each bit's.
        let left = |word: u64, last: u64| word >> 1 | last << 63;
        let (left_above, left_below) = (left(here_above, last_above), left(here_below, last_below));
        let (crack, left_crack) = (here_above ^ here_below, left_above ^ left_below);
        let touches = crack & left_crack & (here_above ^ left_above);
        let mut turns = (crack ^ left_crack) | touches;
        while turns != 0 {
            let bit = turns.leading_zeros();
            turns ^= 1 << (63 - bit);
            let is_set = |word: u64| word >> (63 - bit) & 1 == 1;
            let around = [left_above, here_above, left_below, here_below].map(is_set);
            nodes.add(idx * 64 + bit as usize, y, around, below)?;
        }
        (last_above, last_below) = (here_above, here_below);
    }
    Ok(())
}

impl Nodes {
    /// Adds the corner at (x, y), or the two of regions that touch there, and joins what can be joined.
    fn add(&mut self, x: usize, y: usize, around: Around, below: &[u8]) -> Result<(), MaskError> {
        let [above_left, above_right, below_left, below_right] = around;
        let (is_left, is_right) = (above_left != below_left, above_right != below_right);
        let (is_up, is_down) = (above_left != above_right, below_left != below_right);
        let first = self.push(x, y)?;
        let (mut left, mut right, mut down) = (first, first, first);
        if is_left && is_right {
            let second = self.push(x, y)?;
            if above_left { (right, down) = (second, second) } else { (left, down) = (second, second) }
        }
        if is_left {
            // Set pixels above: their lower side runs to the right.
            self.join(self.open_left, left, above_left);
        }
        if is_up {
            // Set pixels to the right: their left side runs down.
            self.join(self.open_above[x], first, above_right);
        }
        if is_right {
            self.open_left = right;
        }
        if is_down {
            self.open_above[x] = down;
        }
        if is_right && is_down && !is_left && !below_right {
            // Above left, above right and below left are set: a hole may begin below right. The side to the left of it is open.
            if let Some(node) = self.all.last_mut() {
                node.beside = self.open_above[run_begin(below, x)];
            }
        }
        Ok(())
    }

    fn push(&mut self, x: usize, y: usize) -> Result<u32, MaskError> {
        let idx = as_u32(self.all.len());
        if u64::from(idx) >= self.max {
            return Err(MaskError::TooManyPoints { max: self.max });
        }
        self.all.push(Node { corner: [as_u32(x), as_u32(y)], next: NONE, ring: NONE, beside: NONE });
        Ok(idx)
    }

    /// Joins two neighbours, in the order in which they stand or against it.
    fn join(&mut self, first: u32, second: u32, is_forward: bool) {
        let (from, to) = if is_forward { (first, second) } else { (second, first) };
        if let Some(node) = self.all.get_mut(from as usize) {
            node.next = to;
        }
    }
}

/// First column of the set pixels that end in front of column `end`.
fn run_begin(row: &[u8], end: usize) -> usize {
    let mut idx = end / 64;
    // Bits from `end` on count as set, so that the last unset one is looked for in front of it.
    let mut unset = !(word(row, idx) | u64::MAX >> (end % 64));
    while unset == 0 {
        let Some(before) = idx.checked_sub(1) else { return 0 };
        idx = before;
        unset = !word(row, idx);
    }
    idx * 64 + 64 - unset.trailing_zeros() as usize
}

/// Follows each ring from its first corner.
fn collect(mut nodes: Vec<Node>) -> Vec<Ring> {
    let mut rings: Vec<Ring> = Vec::new();
    for begin in 0..nodes.len() {
        if nodes[begin].ring != NONE {
            continue;
        }
        let around = nodes.get(nodes[begin].beside as usize).map(|beside| beside.ring as usize);
        let around = around.and_then(|beside| rings.get(beside).map(|ring| ring.around.unwrap_or(beside)));
        let number = as_u32(rings.len());
        let mut corners = Vec::new();
        let mut at = begin;
        while let Some(node) = nodes.get_mut(at).filter(|node| node.ring == NONE) {
            node.ring = number;
            corners.push(node.corner);
            at = node.next as usize;
        }
        rings.push(Ring { corners, around });
    }
    rings
}
