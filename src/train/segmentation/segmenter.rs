//! An image through backbone and head to a label for every pixel, as the server does it: scores at a multiple of the grid, resized
//! bilinearly to the image, of which the largest counts.

use densevit::{preprocess::Rect, tensor::RgbImage};
use tch::{Kind, Tensor};

use crate::{
    data::view::resized,
    segmentation::{
        data::recipe::Recipe,
        features::Features,
        head::{Head, Opened},
        output::{Output, upsampled},
    },
};

/// How an image is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All of it at once.
    Whole,
    /// Windows of the training size, so many rows and columns of pixels apart; scores are averaged where they overlap.
    Slide([u32; 2]),
}

/// Backbone and head.
#[derive(Debug)]
pub struct Segmenter {
    /// Where features come from.
    pub features: Features,
    /// The head.
    pub opened: Opened,
    /// How images are fitted.
    pub recipe: Recipe,
}

/// The label of every pixel, `[B, H, W]` i64, of scores at a multiple of the grid.
pub fn labels(output: &Output, upscale: u32, size: [i64; 2]) -> Tensor {
    let scores = output.scores(output.grid().map(|cells| cells * i64::from(upscale)));
    upsampled(&scores, size).argmax(1, false)
}

/// What a head says of maps, without gradients.
pub fn inferred(head: &Head, maps: &[Tensor]) -> Output {
    tch::no_grad(|| head.forward(maps, false))
}

impl Segmenter {
    /// The label of every pixel of an image, `[H, W]` i64.
    ///
    /// # Errors
    /// When the image cannot be resized or the backbone fails.
    pub fn predict(&mut self, image: &RgbImage, mode: Mode) -> anyhow::Result<Tensor> {
        let size = [i64::from(image.height()), i64::from(image.width())];
        let fitted = self.recipe.fitted(image).map_err(anyhow::Error::msg)?;
        let labels = match mode {
            Mode::Whole => {
                let maps = self.features.maps(&fitted)?;
                labels(&inferred(&self.opened.head, &maps), self.opened.card.upscale, size)
            }
            Mode::Slide(stride) => upsampled(&self.slide(&fitted, stride)?, size).argmax(1, false),
        };
        Ok(labels.squeeze_dim(0))
    }

    /// Mean scores of overlapping windows, `[1, K, H, W]` of the fitted image.
    fn slide(&mut self, image: &RgbImage, stride: [u32; 2]) -> anyhow::Result<Tensor> {
        let size = [image.height(), image.width()];
        let window = [0, 1].map(|axis: usize| self.recipe.augmentation.size[axis].min(size[axis]));
        let places = [0, 1].map(|axis: usize| first_pixels(size[axis], window[axis], stride[axis]));
        let options = (Kind::Float, tch::Device::Cpu);
        let [rows, cols] = size.map(i64::from);
        let sums = Tensor::zeros([1, self.opened.shape.n_classes, rows, cols], options);
        let counts = Tensor::zeros([1, 1, rows, cols], options);
        for top in &places[0] {
            for left in &places[1] {
                let crop =
                    Rect { x: f64::from(*left), y: f64::from(*top), width: f64::from(window[1]), height: f64::from(window[0]) };
                let part = resized(image, window, self.recipe.pixels.interpolation, Some(crop)).map_err(anyhow::Error::msg)?;
                let output = inferred(&self.opened.head, &self.features.maps(&part)?);
                let scores = output.scores(output.grid().map(|cells| cells * i64::from(self.opened.card.upscale)));
                let [height, width] = window.map(i64::from);
                let within = |of: &Tensor| of.narrow(2, i64::from(*top), height).narrow(3, i64::from(*left), width);
                let _added = within(&sums).g_add_(&upsampled(&scores, [height, width]));
                let _added = within(&counts).g_add_scalar_(1.0);
            }
        }
        Ok(sums / counts)
    }
}

/// First pixels of the windows along an axis: a stride apart, the last at the end.
fn first_pixels(side: u32, window: u32, stride: u32) -> Vec<u32> {
    let last = side.saturating_sub(window);
    let mut places: Vec<u32> = (0..last).step_by(stride.max(1) as usize).collect();
    places.push(last);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_an_axis_to_its_end() {
        assert_eq!(first_pixels(100, 40, 30), [0, 30, 60]);
        assert_eq!(first_pixels(101, 40, 30), [0, 30, 60, 61]);
        assert_eq!(first_pixels(40, 40, 30), [0]);
        assert_eq!(first_pixels(90, 40, 0), (0..=50).collect::<Vec<_>>());
    }
}
