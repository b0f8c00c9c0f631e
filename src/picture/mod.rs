//! Pictures of feature maps: principal components as colours, panels side by side, captions, legends, PNG.

mod font;
mod legend;
mod panel;
mod pca;
mod text;
mod upsample;

pub use legend::legend;
pub use panel::{Panel, PictureError, side_by_side, write_png};
pub use pca::Pca;
pub use upsample::bilinear_2x;
