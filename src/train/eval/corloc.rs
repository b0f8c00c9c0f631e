//! CorLoc: the share of images whose one predicted box overlaps an object's by half (Deselaers et al., IJCV 2012).

/// A box in continuous coordinates of the image: `[x0, y0, x1, y1]`.
pub type Box2 = [f64; 4];

/// Overlap at which a box counts.
pub const OVERLAP: f64 = 0.5;

/// Intersection over union of two boxes; 0 for boxes without area.
#[must_use]
pub fn overlap(a: Box2, b: Box2) -> f64 {
    let area = |b: Box2| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - both;
    if union > 0.0 { both / union } else { 0.0 }
}

/// CorLoc over images: the predicted box of each, if there is one, and the boxes of its objects. Images without objects do not count;
/// nothing if none counts.
#[must_use]
pub fn corloc(images: &[(Option<Box2>, Vec<Box2>)]) -> Option<f64> {
    let counted: Vec<_> = images.iter().filter(|(_, objects)| !objects.is_empty()).collect();
    let is_correct = |(predicted, objects): &(Option<Box2>, Vec<Box2>)| {
        predicted.is_some_and(|predicted| objects.iter().any(|object| overlap(predicted, *object) >= OVERLAP))
    };
    let n_correct = counted.iter().filter(|image| is_correct(image)).count();
    (!counted.is_empty()).then(|| n_correct as f64 / counted.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_overlap_counts_and_less_does_not() {
        let object = [0.0, 0.0, 10.0, 10.0];
        // 10 x 5 inside of 10 x 10, 10 x 4.9 inside of it.
        let images =
            [(Some([0.0, 0.0, 10.0, 5.0]), vec![[50.0, 0.0, 60.0, 9.0], object]), (Some([0.0, 0.0, 10.0, 4.9]), vec![object])];
        assert_eq!(corloc(&images), Some(0.5));
    }

    #[test]
    fn images_without_objects_do_not_count_and_without_prediction_are_wrong() {
        let object = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(corloc(&[(None, vec![object]), (Some(object), vec![object]), (Some(object), Vec::new())]), Some(0.5));
        assert_eq!(corloc(&[(None, Vec::new())]), None);
    }

    #[test]
    fn boxes_without_area_overlap_nothing() {
        assert_eq!(overlap([1.0; 4], [1.0; 4]), 0.0);
        assert_eq!(overlap([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]), 1.0 / 3.0);
    }
}
