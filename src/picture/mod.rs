//! Pictures of feature maps: principal components or numbers as colours, panels side by side, captions, legends, PNG.

mod font;
mod heat;
mod legend;
mod panel;
mod pca;
mod text;
mod upsample;

pub use heat::heat;
pub use legend::legend;
pub use panel::{Panel, PictureError, side_by_side, stacked, write_png};
pub use pca::Pca;
pub use upsample::bilinear_2x;
