//! Cuts the outputs of a batch into those of its images, checked against the manifest.

use ort::value::DynValue;

use super::{
    error::RuntimeError,
    session::split,
    values::Values,
    view::{FeatureKey, Features, RunKey},
};
use crate::{
    manifest::{Manifest, io_names},
    tensor::{F32View, FeatureMap},
};

/// The outputs of a batch of so many images.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) n_images: usize,
}

impl Cut<'_> {
    /// Features of each image; `map` is that of the last LiFT pass, or of the backbone without one.
    pub(super) fn features(
        self,
        key: &RunKey,
        features: &FeatureKey,
        (name, map): (&str, DynValue),
        made: &mut Values,
    ) -> Result<Vec<Features>, RuntimeError> {
        let [rows, cols] = self.manifest.grid(features.tap, [key.height, key.width]).map(|cells| cells << features.lift_passes);
        let arch = &self.manifest.architecture;
        let channels = arch.width as usize;
        let maps = self.maps((name, map), [rows, cols, channels])?;
        let cls = (features.cls && arch.has_cls()).then(|| io_names::cls(features.tap));
        let cls = self.tokens(cls, &[channels], made)?;
        let has_registers = features.registers && arch.registers > 0;
        let registers = has_registers.then(|| io_names::registers(features.tap));
        let registers = self.tokens(registers, &[arch.registers as usize, channels], made)?;
        let joined = maps.into_iter().zip(cls).zip(registers);
        Ok(joined.map(|((map, cls), registers)| Features { map, cls, registers }).collect())
    }

    /// Maps of each image, which must be finite.
    pub(super) fn maps(self, (name, value): (&str, DynValue), shape: [usize; 3]) -> Result<Vec<FeatureMap>, RuntimeError> {
        let [rows, cols, channels] = shape;
        let not_finite = || RuntimeError::NotFinite { model: self.manifest.name.clone(), output: name.to_owned() };
        let map = |view: F32View| {
            let map = is_finite(&view).then(|| FeatureMap::new(rows, cols, channels, view)).flatten();
            map.ok_or_else(not_finite)
        };
        self.split(name, value, &shape)?.into_iter().map(map).collect()
    }

    /// Tokens of each image under a name, if there is one.
    fn tokens(self, name: Option<String>, shape: &[usize], made: &mut Values) -> Result<Vec<Option<F32View>>, RuntimeError> {
        let Some((name, value)) = name.and_then(|name| made.take(&name).map(|value| (name, value))) else {
            return Ok(vec![None; self.n_images]);
        };
        Ok(self.split(&name, value, shape)?.into_iter().map(Some).collect())
    }

    fn split(self, output: &str, value: DynValue, shape: &[usize]) -> Result<Vec<F32View>, RuntimeError> {
        let extents = std::iter::once(&self.n_images).chain(shape);
        let expected: Vec<i64> = extents.map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect();
        let (model, output) = (self.manifest.name.clone(), output.to_owned());
        split(value, &expected).map_err(|shape| RuntimeError::Output { model, output, shape, expected })
    }
}

/// Whether no value is NaN or infinite. Compares exponents as integers, which the compiler turns into vector code.
fn is_finite(values: &[f32]) -> bool {
    let largest = values.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    largest < f32::INFINITY.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_finite_values_are_found() {
        assert!(is_finite(&[0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE]));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!is_finite(&[1.0, bad, 2.0]));
        }
    }
}
