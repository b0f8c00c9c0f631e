//! How a sample of a data set becomes an example: a random view to learn from, or the whole image to measure on.

use densevit::{
    manifest::ResizePolicy,
    preprocess::{Recipe as Resize, prepare},
    tensor::RgbImage,
};

use crate::segmentation::data::{
    DataError,
    classes::Classes,
    labels::Labels,
    layout::Sample,
    view::{Augmentation, Pixels, View, make_view},
};

/// How examples are made.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Of random views.
    pub augmentation: Augmentation,
    /// What the backbone wants of pixels.
    pub pixels: Pixels,
    /// Pixels on a side of a patch.
    pub patch: u32,
    /// Of all views.
    pub seed: u64,
}

impl Recipe {
    /// The view of a sample in an epoch: `idx` is the place of the sample in its split. Always the same for the same three.
    ///
    /// # Errors
    /// [`DataError`], naming the file.
    pub fn view(&self, sample: &Sample, classes: &Classes, (epoch, idx): (u64, usize)) -> Result<View, DataError> {
        let (image, labels) = sample.open(classes)?;
        let mixed = (epoch + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (idx as u64 + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mut random = fastrand::Rng::with_seed(self.seed ^ mixed);
        let made = make_view((&image, &labels), &self.augmentation, self.pixels, &mut random);
        made.map_err(|problem| DataError::Image { path: sample.image.clone(), problem })
    }

    /// The whole image, its shorter side as long as the window's, and the labels as they are.
    ///
    /// # Errors
    /// [`DataError`], naming the file.
    pub fn whole(&self, sample: &Sample, classes: &Classes) -> Result<View, DataError> {
        let (image, labels) = sample.open(classes)?;
        let image = self.fitted(&image).map_err(|problem| DataError::Image { path: sample.image.clone(), problem })?;
        Ok(View { image, labels })
    }

    /// An image, its shorter side as long as the window's, both sides multiples of the patch: the server's `ShortSide`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn fitted(&self, image: &RgbImage) -> Result<RgbImage, String> {
        let [height, width] = self.augmentation.size;
        let resize = Resize {
            resize: ResizePolicy::ShortSide { pixels: height.min(width) },
            interpolation: self.pixels.interpolation,
            crop: None,
            patch: self.patch,
            fill: self.pixels.fill,
            max_input_pixels: u64::MAX,
        };
        prepare(image.clone(), &resize).map(|prepared| prepared.image).map_err(|error| error.to_string())
    }
}

/// Labels of every `stride`-th row and column, from the middle of the first step.
#[must_use]
pub fn strided(labels: &Labels, stride: u32) -> Labels {
    let first = stride.saturating_sub(1) / 2;
    let places = |extent: u32| (first..extent).step_by(stride.max(1) as usize);
    let row = |y: u32| places(labels.width).map(move |x| labels.at(f64::from(y), f64::from(x)));
    let data = places(labels.height).flat_map(row).collect();
    let count = |extent: u32| u32::try_from(places(extent).count()).unwrap_or_default();
    Labels { height: count(labels.height), width: count(labels.width), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn striding_takes_labels_from_the_middle_of_their_steps() {
        let labels = Labels { height: 3, width: 4, data: (0..12).collect() };
        assert_eq!(strided(&labels, 1), labels);
        assert_eq!(strided(&labels, 3), Labels { height: 1, width: 1, data: vec![5] });
        assert_eq!(strided(&labels, 2), Labels { height: 2, width: 2, data: vec![0, 2, 8, 10] });
    }
}
