//! One training example, or one image to measure on: what the head or the backbone sees, and labels. In memory and on disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use densevit::tensor::RgbImage;
use half::f16;
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use tch::{Kind, Tensor};

use crate::{checkpoint, segmentation::data::labels::Labels};

/// A map of features in half precision.
///
/// # Shapes
/// - `values`: `shape`, `[h, w, C]`
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Extents.
    pub shape: [usize; 3],
    /// Values.
    pub values: Vec<f16>,
}

/// What is given to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The image, for a backbone that learns.
    Pixels(RgbImage),
    /// Features of a frozen one, one a tap.
    Maps(Vec<Map>),
}

/// One example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The image that it comes from, for messages.
    pub name: PathBuf,
    /// What is given to the run.
    pub content: Content,
    /// What should come out.
    pub labels: Labels,
}

impl Map {
    /// Of a tensor `[1, h, w, C]` f32.
    ///
    /// # Errors
    /// When it has other axes.
    pub fn new(map: &Tensor) -> anyhow::Result<Self> {
        let size = map.size();
        ensure!(size.len() == 4 && size[0] == 1, "a map has the shape {size:?}");
        let shape = [usize::try_from(size[1])?, usize::try_from(size[2])?, usize::try_from(size[3])?];
        Ok(Self { shape, values: Vec::<f16>::try_from(map.to_kind(Kind::Half).contiguous().view([-1]))? })
    }

    /// As a tensor `[1, h, w, C]` f32.
    pub fn tensor(&self) -> Tensor {
        let [rows, cols, channels] = self.shape.map(|extent| i64::try_from(extent).unwrap_or(i64::MAX));
        Tensor::from_slice(&self.values).to_kind(Kind::Float).view([1, rows, cols, channels])
    }
}

impl Example {
    /// Bytes that it takes on disk, nearly.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Pixels(image) => image.data().len(),
            Content::Maps(maps) => maps.iter().map(|map| 2 * map.values.len()).sum(),
        };
        (content + self.labels.data.len()) as u64
    }

    /// Writes an example of maps.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let Content::Maps(maps) = &self.content else { anyhow::bail!("only features are kept on disk") };
        let size = vec![self.labels.height as usize, self.labels.width as usize];
        let mut views = vec![("labels".to_owned(), TensorView::new(Dtype::U8, size, &self.labels.data)?)];
        for (idx, map) in maps.iter().enumerate() {
            let view = TensorView::new(Dtype::F16, map.shape.to_vec(), bytemuck::cast_slice(&map.values))?;
            views.push((map_name(idx), view));
        }
        checkpoint::write_bytes(file, &serialize(views, None)?)
    }

    /// Reads what [`Example::write`] wrote; `name` is the image.
    ///
    /// # Errors
    /// When the file is something else.
    pub fn read(file: &Path, name: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("reading {}", file.display()))?;
        let labels = tensors.tensor("labels").with_context(|| format!("{} holds no labels", file.display()))?;
        let &[height, width] = labels.shape() else { anyhow::bail!("{} holds other labels", file.display()) };
        let labels = Labels { height: u32::try_from(height)?, width: u32::try_from(width)?, data: labels.data().to_vec() };
        let half = |pair: &[u8]| f16::from_le_bytes([pair[0], pair[1]]);
        let map = |view: TensorView<'_>| {
            let shape = <[usize; 3]>::try_from(view.shape()).ok()?;
            Some(Map { shape, values: view.data().chunks_exact(2).map(half).collect() })
        };
        let maps = (0..).map_while(|idx| tensors.tensor(&map_name(idx)).ok().and_then(map)).collect();
        Ok(Self { name: name.to_path_buf(), content: Content::Maps(maps), labels })
    }
}

fn map_name(idx: usize) -> String {
    format!("map_{}", idx + 1)
}
