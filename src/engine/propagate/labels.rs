//! Labels of the first frame, out of what came.

use bytes::Bytes;

use crate::{
    engine::{ClassMask, FirstLabels, InferError, MaskData},
    masks::{BitMask, LabelFile, MaskError, Palette, Rle},
};

/// Most different labels of a video.
pub(super) const MAX_LABELS: usize = 64;
/// Every value of 8 bits is a label.
pub(super) const N_VALUES: usize = 256;

/// Labels of a frame.
#[derive(Debug)]
pub(super) struct Labelled {
    /// For each pixel the place of its label in `ids`, row by row.
    pub(super) pixels: Vec<u8>,
    /// The labels that there are, ascending.
    pub(super) ids: Vec<u8>,
    /// A colour for each of [`N_VALUES`].
    pub(super) palette: Palette,
}

/// Memory of decoding labels, in bytes a pixel: values of a file as they are stored and in 16 bits.
pub(super) const DECODING_BYTES: u64 = 4;

/// Decodes labels of a frame of `(height, width)` pixels.
pub(super) fn decode(labels: FirstLabels, (height, width): (u32, u32), max_bytes: u64) -> Result<Labelled, InferError> {
    let size = [height as usize, width as usize];
    let mut colors = voc_colors()?;
    let values = match labels {
        FirstLabels::Raw(data) => raw(&data, size)?,
        FirstLabels::Masks(masks) => painted(&masks, size)?,
        FirstLabels::Png(file) => {
            let bad = |error: MaskError| InferError::invalid("labels.png", error.to_string());
            if file.len() as u64 > max_bytes {
                let message = format!("has {} bytes, the limit is {max_bytes} (limits.max_image_bytes)", file.len());
                return Err(InferError::invalid("labels.png", message));
            }
            let LabelFile { values, palette } = LabelFile::read(&file, size).map_err(bad)?;
            let values = values.into_iter().map(u8::try_from).collect::<Result<_, _>>();
            colors.iter_mut().zip(palette).for_each(|(color, own)| *color = own);
            values.map_err(|_deep| InferError::invalid("labels.png", "holds values of more than 8 bits"))?
        }
    };
    let palette = Palette::new(colors).map_err(|error| InferError::internal("colouring the labels", error))?;
    let (pixels, ids) = numbered(values)?;
    Ok(Labelled { pixels, ids, palette })
}

/// Black for 0, then colours that are easily told apart.
fn voc_colors() -> Result<Vec<[u8; 3]>, InferError> {
    let distinct = Palette::distinct(N_VALUES - 1).map_err(|error| InferError::internal("colouring the labels", error))?;
    Ok([&[[0; 3]], distinct.colors()].concat())
}

fn raw(data: &Bytes, [rows, cols]: [usize; 2]) -> Result<Vec<u8>, InferError> {
    if Some(data.len()) == rows.checked_mul(cols) {
        return Ok(data.to_vec());
    }
    let message = format!("has {} bytes, the upright frame has {rows} x {cols} pixels (height x width)", data.len());
    Err(InferError::invalid("labels.raw", message))
}

/// Draws masks one over the other.
fn painted(masks: &[ClassMask], [rows, cols]: [usize; 2]) -> Result<Vec<u8>, InferError> {
    if masks.len() > MAX_LABELS {
        return Err(InferError::invalid("labels.masks", format!("holds {} masks, the limit is {MAX_LABELS}", masks.len())));
    }
    let mut values = vec![0; rows.saturating_mul(cols)];
    for (idx, ClassMask { index, mask, .. }) in masks.iter().enumerate() {
        let bad = |message: String| InferError::invalid(format!("labels.masks[{idx}]"), message);
        let label = u8::try_from(*index).map_err(|_large| bad(format!("has label {index}, the limit is 255 (class_index)")))?;
        let mask = match mask {
            MaskData::Bits(bits) => BitMask::from_bits(rows, cols, bits.to_vec()),
            MaskData::Rle(runs) => Rle::from_coco_string(rows, cols, runs).and_then(|runs| runs.decode()),
            MaskData::Polygons(_) => return Err(bad("must be bits or run lengths".into())),
        };
        let mask = mask.map_err(|error| bad(error.to_string()))?;
        for (row, values) in values.chunks_mut(cols).enumerate() {
            let set = values.iter_mut().enumerate().filter(|(col, _value)| mask.is_set(row, *col));
            set.for_each(|(_col, value)| *value = label);
        }
    }
    Ok(values)
}

/// Replaces labels by their places among those that there are.
fn numbered(mut values: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), InferError> {
    let mut places = [0u8; N_VALUES];
    let mut is_there = [false; N_VALUES];
    values.iter().for_each(|value| is_there[usize::from(*value)] = true);
    let ids: Vec<u8> = (0..=u8::MAX).filter(|value| is_there[usize::from(*value)]).collect();
    if ids.len() > MAX_LABELS {
        return Err(InferError::invalid("labels", format!("holds {} different labels, the limit is {MAX_LABELS}", ids.len())));
    }
    (0..).zip(&ids).for_each(|(place, value)| places[usize::from(*value)] = place);
    values.iter_mut().for_each(|value| *value = places[usize::from(*value)]);
    Ok((values, ids))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn decoded(labels: FirstLabels) -> Result<Labelled, InferError> {
        decode(labels, (2, 3), 1000)
    }

    fn raw(values: &[u8]) -> FirstLabels {
        FirstLabels::Raw(Bytes::copy_from_slice(values))
    }

    #[test]
    fn labels_are_numbered_by_those_that_there_are() {
        let found = decoded(raw(&[0, 255, 7, 7, 0, 0])).unwrap();
        assert_eq!((found.pixels, found.ids), (vec![0, 2, 1, 1, 0, 0], vec![0, 7, 255]));
        assert_eq!(found.palette.colors()[..3], [[0; 3], [128, 0, 0], [0, 128, 0]]);
    }

    #[test]
    fn later_masks_cover_earlier_ones_and_what_none_covers_is_background() {
        let bits = |bits: [u8; 2]| MaskData::Bits(Bytes::copy_from_slice(&bits));
        // Run lengths down the columns: 2 unset, 4 set.
        let runs = MaskData::Rle(Rle::new(2, 3, vec![2, 4]).unwrap().to_coco_string());
        let masks = [(3, runs), (9, bits([0b0010_0000, 0]))].map(|(index, mask)| ClassMask { index, bounds: None, mask });
        let found = decoded(FirstLabels::Masks(masks.to_vec())).unwrap();
        let labels: Vec<u8> = found.pixels.iter().map(|place| found.ids[usize::from(*place)]).collect();
        assert_eq!(labels, [0, 3, 9, 0, 3, 3]);
    }

    #[test]
    fn each_form_of_labels_is_refused_by_its_name() {
        let mask = |index, mask| FirstLabels::Masks(vec![ClassMask { index, bounds: None, mask }]);
        let cases = [
            (raw(&[0; 5]), "labels.raw"),
            (FirstLabels::Png(Bytes::from_static(b"no png")), "labels.png"),
            (FirstLabels::Png(Bytes::from(vec![0; 1001])), "labels.png"),
            (mask(256, MaskData::Rle("6".into())), "labels.masks[0]"),
            (mask(1, MaskData::Rle("~".into())), "labels.masks[0]"),
            (mask(1, MaskData::Bits(Bytes::from_static(&[0]))), "labels.masks[0]"),
            (mask(1, MaskData::Polygons(Vec::new())), "labels.masks[0]"),
        ];
        for (labels, field) in cases {
            assert_eq!(decoded(labels).unwrap_err().field(), Some(field));
        }
        let mask = ClassMask { index: 1, bounds: None, mask: MaskData::Rle("6".into()) };
        assert_eq!(decoded(FirstLabels::Masks(vec![mask; 65])).unwrap_err().field(), Some("labels.masks"));
        let many: Vec<u8> = (0..65).collect();
        let error = decode(raw(&many), (5, 13), 1000).unwrap_err();
        assert_eq!(error.to_string(), "labels: holds 65 different labels, the limit is 64");
    }
}
