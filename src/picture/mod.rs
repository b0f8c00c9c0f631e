//! Pictures of feature maps and of what is found in them: principal components or numbers as colours, boxes, lines, panels side by side and
//! in rows, captions, legends, PNG.

mod drawing;
mod font;
mod heat;
mod histograms;
mod hues;
mod legend;
mod pairs;
mod panel;
mod pca;
mod sheet;
mod text;
mod upsample;

pub use drawing::Drawing;
pub use heat::heat;
pub use histograms::histograms;
pub use hues::hues;
pub use legend::legend;
pub use pairs::{Pair, pairs};
pub use panel::{Panel, PictureError, side_by_side, stacked, write_png};
pub use pca::Pca;
pub use sheet::sheet;
pub use upsample::bilinear_2x;
