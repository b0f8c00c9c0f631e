//! Pictures of feature maps: principal components as colours, panels side by side, captions, PNG.

mod font;
mod panel;
mod pca;
mod upsample;

pub use panel::{Panel, PictureError, side_by_side, write_png};
pub use pca::Pca;
pub use upsample::bilinear_2x;
