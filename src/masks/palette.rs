//! Colours of classes.

use crate::masks::{LabelMap, MaskError, class_set::MAX_CLASSES};

/// Colour of void pixels: that of PASCAL VOC's "don't care" borders.
pub const VOID_COLOR: [u8; 3] = [224, 224, 192];

/// One colour a class, RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Palette {
    colors: Vec<[u8; 3]>,
}

impl Palette {
    /// The colours of a model's classes, in its order.
    ///
    /// # Errors
    /// [`MaskError::ClassCount`].
    pub fn new(colors: Vec<[u8; 3]>) -> Result<Self, MaskError> {
        if colors.is_empty() || colors.len() > MAX_CLASSES {
            return Err(MaskError::ClassCount { n_classes: colors.len() });
        }
        Ok(Self { colors })
    }

    /// Colours that are easily told apart, for classes that have none: those of PASCAL VOC from its first object class on, where the
    /// bits of the number, three by three, are the highest bits of red, green and blue.
    ///
    /// # Errors
    /// [`MaskError::ClassCount`].
    pub fn distinct(n_classes: usize) -> Result<Self, MaskError> {
        Self::new((1..=n_classes.min(MAX_CLASSES + 1)).map(voc_color).collect())
    }

    /// The colours.
    #[must_use]
    pub fn colors(&self) -> &[[u8; 3]] {
        &self.colors
    }

    /// The colour of a label that is a class.
    pub(super) fn color(&self, label: u16) -> Option<[u8; 3]> {
        self.colors.get(usize::from(label)).copied()
    }

    /// Refuses labels of another number of classes.
    pub(super) fn check(&self, map: &LabelMap) -> Result<(), MaskError> {
        if self.colors.len() == map.n_classes() {
            return Ok(());
        }
        Err(MaskError::ForeignClasses { expected: self.colors.len(), n_classes: map.n_classes() })
    }
}

fn voc_color(number: usize) -> [u8; 3] {
    let mut color = [0; 3];
    for place in 0..8 {
        for (channel, level) in color.iter_mut().enumerate() {
            *level |= u8::from(number >> (3 * place + channel) & 1 == 1) << (7 - place);
        }
    }
    color
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn colours_are_those_of_pascal_voc() {
        // aeroplane, bicycle, bird and tvmonitor of VOC's colour map.
        let palette = Palette::distinct(20).unwrap();
        assert_eq!(palette.colors()[..3], [[128, 0, 0], [0, 128, 0], [128, 128, 0]]);
        assert_eq!(palette.colors()[19], [0, 64, 128]);
        assert!(matches!(Palette::distinct(0), Err(MaskError::ClassCount { .. })));
        assert!(matches!(Palette::distinct(usize::MAX), Err(MaskError::ClassCount { .. })));
    }
}
