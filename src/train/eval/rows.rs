//! The rows of a table: activations of a backbone as they are, and doubled in some ways.
//!
//! # Design
//! A head doubles one activation only, and papers of a task use another one. So tables have the coarse map and the bilinear one for both, and the
//! head's rows beside those of its own activation.

use anyhow::Context as _;
use densevit::{manifest::Tap, tensor::RgbImage};
use tch::{Device, Tensor};

use crate::{
    backbone::Backbone,
    eval::{Method, to_tensor},
};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is taken from the backbone.
    pub tap: Tap,
    /// Which method doubles it and how often; none as it is.
    doubled: Option<(usize, u32)>,
    /// Activation, method, factor.
    pub name: String,
}

/// All rows.
#[derive(Debug)]
pub struct Rows {
    methods: Vec<Method>,
    rows: Vec<Row>,
    taps: Vec<Tap>,
    device: Device,
}

impl Rows {
    /// `tap` and the taps of heads: as they are, bilinear, and doubled by heads, `passes` times each.
    #[must_use]
    pub fn new(tap: Tap, heads: Vec<(Method, Tap)>, passes: &[u32], device: Device) -> Self {
        let mut taps = vec![tap];
        for (_, own) in &heads {
            if !taps.contains(own) {
                taps.push(*own);
            }
        }
        let (mut methods, mut own_taps) = (vec![Method::Bilinear], vec![None]);
        for (head, own) in heads {
            methods.push(head);
            own_taps.push(Some(own));
        }
        let mut rows = Vec::new();
        for tap in &taps {
            rows.push(Row { tap: *tap, doubled: None, name: format!("{tap}, coarse") });
            for (idx, method) in methods.iter().enumerate().filter(|(idx, _)| own_taps[*idx].is_none_or(|own| own == *tap)) {
                let row = |n: &u32| Row {
                    tap: *tap,
                    doubled: Some((idx, *n)),
                    name: format!("{tap}, {}, {} x", method.name(), 1 << n),
                };
                rows.extend(passes.iter().map(row));
            }
        }
        Self { methods, rows, taps, device }
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The map of each row for an image, by one run of the backbone.
    ///
    /// # Shapes
    /// - output: `[1, C, h, w]` f32 each
    ///
    /// # Errors
    /// When the backbone fails.
    pub fn maps(&self, backbone: &mut Backbone, image: &RgbImage) -> anyhow::Result<Vec<Tensor>> {
        let maps = backbone.taps(image, &self.taps)?;
        let pixels = backbone.normalisation().of(image).to_device(self.device);
        let map = |row: &Row| {
            let place = self.taps.iter().position(|tap| *tap == row.tap).context("a row has no activation")?;
            let coarse = to_tensor(&maps[place]).to_device(self.device);
            Ok(match row.doubled {
                None => coarse,
                Some((method, passes)) => tch::no_grad(|| self.methods[method].apply(&pixels, &coarse, passes)),
            })
        };
        self.rows.iter().map(map).collect()
    }
}

/// A map cell by cell, `[h * w, C]`, and its rows and columns.
///
/// # Errors
/// When it is no map of one image.
pub fn cells(map: &Tensor) -> anyhow::Result<(Vec<f32>, [usize; 2])> {
    let (_, _, rows, cols) = map.size4()?;
    let values = Vec::<f32>::try_from(map.permute([0, 2, 3, 1]).contiguous().view([-1]).to_device(Device::Cpu))?;
    Ok((values, [usize::try_from(rows)?, usize::try_from(cols)?]))
}

#[cfg(test)]
mod tests {
    use densevit::manifest::Facet;

    use super::*;

    #[test]
    fn every_activation_has_its_baselines() {
        let (key, token) = (Tap { facet: Facet::Key, layer: 11 }, Tap { facet: Facet::Token, layer: 10 });
        let names = |tap, heads| -> Vec<String> {
            Rows::new(tap, heads, &[1, 2], Device::Cpu).rows().iter().map(|row| row.name.clone()).collect()
        };
        let both = names(key, vec![(Method::Nearest, token)]);
        assert_eq!(
            both,
            [
                "key of block 11, coarse",
                "key of block 11, bilinear, 2 x",
                "key of block 11, bilinear, 4 x",
                "token of block 10, coarse",
                "token of block 10, bilinear, 2 x",
                "token of block 10, bilinear, 4 x",
                "token of block 10, nearest, 2 x",
                "token of block 10, nearest, 4 x",
            ]
        );
        assert_eq!(names(token, vec![(Method::Nearest, token)]), both[3..]);
        assert_eq!(names(key, Vec::new()), both[..3]);
    }
}
