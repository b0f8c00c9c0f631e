//! A position table for one size of the model's input.

use crate::{
    graph::{Baked, position},
    import::{ImportError, ImportOptions},
    weights::Recognised,
};

/// The table for the size that the options name; none where sizes stay free.
pub(super) fn baked(recognised: &Recognised, options: &ImportOptions) -> Result<Option<Baked>, ImportError> {
    let Some([height, width]) = options.baked_size else { return Ok(None) };
    let patch = recognised.weights.arch.patch;
    if height == 0 || width == 0 || !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        let problem = format!("{height} x {width} are no multiples of the patch size, {patch}");
        return Err(ImportError::Option { option: "--bake", problem });
    }
    let (rows, cols) = ((height / patch) as usize, (width / patch) as usize);
    let position = position::interpolate(recognised.weights.position.view(), rows, cols, recognised.variant);
    Ok(Some(Baked { height, width, position }))
}
