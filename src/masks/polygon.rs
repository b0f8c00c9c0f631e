//! Regions of a mask as polygons.

use crate::masks::{
    BitMask, ClassSet, LabelMap, MaskError, MaskLimits, exclusive::mask_of_class, outline::rings, simplify::simplified,
};

/// A region of pixels that are connected along their sides.
///
/// Points are `[x, y]`, whole numbers of pixels from the top left corner of the mask: pixel (row, col) is the square from `[col, row]`
/// to `[col + 1, row + 1]`, so x goes from 0 to the number of columns. The last point of a ring is joined to the first, which is not
/// repeated. No three points in a row lie on a line. A ring may pass twice through a point, where its region touches itself at a
/// corner; it never crosses itself.
///
/// Filled by the even-odd rule, or by the winding number, the polygons of a mask are the mask, pixel by pixel, at a tolerance of 0.
/// With one, rings may cross themselves or each other, and regions beside each other no longer share their border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polygon {
    /// The outer border, counter-clockwise as one sees the picture (its top row first).
    pub outer: Vec<[u32; 2]>,
    /// Borders of what the region surrounds, clockwise.
    pub holes: Vec<Vec<[u32; 2]>>,
}

/// The polygons of a mask, by their topmost points. Corners that lie within `tolerance_px` of the simplified line are left out (0: none
/// is); what becomes thinner than a triangle by that is, too.
///
/// # Errors
/// [`MaskError::Tolerance`], [`MaskError::TooManyPoints`].
pub fn polygons_of_mask(mask: &BitMask, tolerance_px: f64, limits: &MaskLimits) -> Result<Vec<Polygon>, MaskError> {
    check_tolerance(tolerance_px)?;
    let mut budget = Budget { n_left: limits.max_points, max: limits.max_points };
    polygons(mask, tolerance_px, &mut budget)
}

/// The polygons of some classes, a list a class, in the order of the set. The limit is on all of them together.
///
/// # Errors
/// [`MaskError::ForeignClasses`], as [`polygons_of_mask`].
pub fn polygons_of_labels(
    map: &LabelMap,
    classes: &ClassSet,
    tolerance_px: f64,
    limits: &MaskLimits,
) -> Result<Vec<Vec<Polygon>>, MaskError> {
    classes.check(map.n_classes())?;
    check_tolerance(tolerance_px)?;
    let mut budget = Budget { n_left: limits.max_points, max: limits.max_points };
    let is_present = map.presence();
    let polygons = |class: &u16| match is_present.get(usize::from(*class)) {
        // One mask after the other: memory for one.
        Some(true) => polygons(&mask_of_class(map, *class)?, tolerance_px, &mut budget),
        _ => Ok(Vec::new()),
    };
    classes.classes().iter().map(polygons).collect()
}

/// Corners that may still be made.
#[derive(Debug)]
struct Budget {
    n_left: u64,
    max: u64,
}

fn check_tolerance(tolerance_px: f64) -> Result<(), MaskError> {
    if tolerance_px.is_finite() && tolerance_px >= 0.0 { Ok(()) } else { Err(MaskError::Tolerance { tolerance_px }) }
}

fn polygons(mask: &BitMask, tolerance_px: f64, budget: &mut Budget) -> Result<Vec<Polygon>, MaskError> {
    let rings = rings(mask, budget.n_left).map_err(|_above| MaskError::TooManyPoints { max: budget.max })?;
    budget.n_left = budget.n_left.saturating_sub(rings.iter().map(|ring| ring.corners.len() as u64).sum());
    let mut polygons = Vec::new();
    // For each ring, the place of its polygon; rings stand behind the ring around them.
    let mut places = Vec::with_capacity(rings.len());
    for ring in rings {
        let corners = if tolerance_px > 0.0 { simplified(&ring.corners, tolerance_px) } else { ring.corners };
        let is_area = corners.len() >= 3;
        match ring.around {
            None => {
                places.push(is_area.then_some(polygons.len()));
                if is_area {
                    polygons.push(Polygon { outer: corners, holes: Vec::new() });
                }
            }
            Some(around) => {
                places.push(None);
                let place = places.get(around).copied().flatten().filter(|_| is_area);
                if let Some(polygon) = place.and_then(|place| polygons.get_mut(place)) {
                    polygon.holes.push(corners);
                }
            }
        }
    }
    Ok(polygons)
}

#[cfg(test)]
mod tests;
