//! Labels of an answer, drawn.

use crate::{
    grpc::client::Segmentation,
    masks::{LabelMap, Labels, OverlayStyle, Palette, overlay},
    tensor::RgbImage,
};

/// The photo under the colours of its classes; the answer is one in labels, with `keep_empty`, at the size of the photo.
///
/// # Errors
/// When the answer does not have the photo's size, or its labels are not those that it names.
pub(super) fn drawn(segmentation: &Segmentation, photo: &RgbImage) -> anyhow::Result<RgbImage> {
    let (map, palette) = labels(segmentation)?;
    Ok(overlay(photo, &map, &palette, &OverlayStyle::default())?)
}

/// Red, green and blue of a colour of the protocol.
pub(super) fn rgb(color: u32) -> [u8; 3] {
    let [_, red, green, blue] = color.to_be_bytes();
    [red, green, blue]
}

/// The labels and the colours of an answer in labels with `keep_empty`.
fn labels(segmentation: &Segmentation) -> anyhow::Result<(LabelMap, Palette)> {
    let header = &segmentation.header;
    let labels = if header.label_bytes == 1 {
        Labels::U8(segmentation.data.to_vec())
    } else {
        Labels::U16(segmentation.data.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]])).collect())
    };
    // Classes that were not asked for keep black: no pixel has them.
    let n_classes = header.classes.iter().map(|class| class.index as usize + 1).max().unwrap_or(1);
    let mut colors = vec![[0; 3]; n_classes];
    for class in &header.classes {
        colors.iter_mut().skip(class.index as usize).take(1).for_each(|color| *color = rgb(class.color));
    }
    let map = LabelMap::new(header.rows as usize, header.cols as usize, n_classes, labels)?;
    Ok((map, Palette::new(colors)?))
}
