//! `densevit calibrate`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    arrays::{ArrayRef, ElementType, write_safetensors},
    commands::{
        features::parse_size,
        import::BackboneFlags,
        inputs::{LIMITS, collect},
        library_from_environment,
    },
    import::{CalibrationGraph, ImportOptions, RangesCard, calibration_graph},
    manifest::{Interpolation, ResizePolicy, io_names},
    onnx,
    preprocess::{Recipe, decode, prepare},
    runtime::{Input, Library, PlainGraph, cpu_quota},
    tensor::RgbImage,
};

/// Flags of `densevit calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Weights of the backbone, as for `densevit import`.
    source: PathBuf,
    /// Photos like those that will be asked about, and folders of them; some dozens are enough.
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// File to write.
    #[arg(short, long, value_name = "FILE", default_value = "ranges.safetensors")]
    out: PathBuf,
    /// Sizes of the model's input (height x width), multiples of the patch.
    #[arg(long, value_name = "HxW", value_delimiter = ',', value_parser = parse_size, default_value = "224x224,448x448")]
    sizes: Vec<(u32, u32)>,
    #[command(flatten)]
    backbone: BackboneFlags,
}

/// Measures the ranges of the inputs of a backbone's linear layers on photos, for `densevit import --precision int8`.
///
/// # Errors
/// Weights that cannot be used, a photo that cannot be read, a size that is no multiple of the patch, a file that cannot be written.
pub fn run(args: CalibrateArgs) -> anyhow::Result<()> {
    let photos = collect(&args.photos)?;
    let mut options = ImportOptions::new(args.source, PathBuf::new(), "calibration");
    args.backbone.apply(&mut options);
    let library = Library::load(None, library_from_environment().as_deref())?;
    let mut ranges: Option<Ranges> = None;
    let mut sha256 = String::new();
    let bar = ProgressBar::new((photos.len() * args.sizes.len()) as u64);
    bar.set_style(ProgressStyle::with_template("calibrating {bar:40} {pos}/{len} {msg}")?);
    for &(height, width) in &args.sizes {
        options.baked_size = Some([height, width]);
        let graph = calibration_graph(&options)?;
        sha256.clone_from(&graph.source_sha256);
        let measured = ranges.get_or_insert_with(|| Ranges::new(graph.outputs.clone()));
        let mut session = open(graph, &library)?;
        for photo in &photos {
            bar.set_message(photo.path.display().to_string());
            let image = read(&photo.path, (height, width), options.interpolation)?;
            let values = session.run(&[(io_names::IMAGE, Input::Image(&image))])?;
            measured.add(values.into_iter().map(|array| array.values).collect())?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let Some(ranges) = ranges else { bail!("--sizes names no size") };
    let n_images = u32::try_from(photos.len()).context("more photos than can be counted")?;
    let sizes = args.sizes.iter().map(|(height, width)| [*height, *width]).collect();
    ranges.write(&args.out, &RangesCard { backbone_source_sha256: sha256, n_images, sizes })?;
    println!("wrote {} ({} layer inputs over {n_images} photos)", args.out.display(), ranges.names.len() / 2);
    Ok(())
}

fn open(graph: CalibrationGraph, library: &Library) -> anyhow::Result<PlainGraph> {
    let folder = tempfile::tempdir().context("no place for the graph that measures")?;
    let path = folder.path().join("calibration.onnx");
    if onnx::save(graph.graph, &path, u64::MAX)?.is_some() {
        bail!("the graph keeps its weights in another file");
    }
    Ok(PlainGraph::open(library, &path, graph.outputs, cpu_quota())?)
}

fn read(path: &Path, (height, width): (u32, u32), interpolation: Interpolation) -> anyhow::Result<RgbImage> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let image = decode(&bytes, &LIMITS).with_context(|| format!("cannot use {}", path.display()))?;
    let recipe = Recipe {
        resize: ResizePolicy::Exact { height, width },
        interpolation,
        crop: None,
        patch: 1,
        fill: [0; 3],
        max_input_pixels: LIMITS.max_pixels,
    };
    Ok(prepare(image, &recipe).with_context(|| format!("cannot use {}", path.display()))?.image)
}

/// Smallest and largest values in turn, over all images so far.
struct Ranges {
    names: Vec<String>,
    values: Vec<Vec<f32>>,
}

impl Ranges {
    fn new(names: Vec<String>) -> Self {
        Self { names, values: Vec::new() }
    }

    fn add(&mut self, image: Vec<Vec<f32>>) -> anyhow::Result<()> {
        if image.iter().flatten().any(|value| !value.is_finite()) {
            bail!("the backbone gives values that are not finite");
        }
        if self.values.is_empty() {
            self.values = image;
            return Ok(());
        }
        for (position, (bounds, new)) in self.values.iter_mut().zip(image).enumerate() {
            let pick = if position % 2 == 0 { f32::min } else { f32::max };
            bounds.iter_mut().zip(new).for_each(|(bound, value)| *bound = pick(*bound, value));
        }
        Ok(())
    }

    fn write(&self, path: &Path, card: &RangesCard) -> anyhow::Result<()> {
        let bytes: Vec<Vec<u8>> =
            self.values.iter().map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let arrays = self.names.iter().zip(&self.values).zip(&bytes).map(|((name, values), bytes)| {
            (name.as_str(), ArrayRef { element_type: ElementType::F32, shape: vec![values.len()], data: bytes })
        });
        let (key, card) = card.metadata();
        write_safetensors(path, &arrays.collect::<Vec<_>>(), &[(key.to_owned(), card)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ranges_grow_with_every_image() {
        let mut ranges = Ranges::new(vec!["low".into(), "high".into()]);
        ranges.add(vec![vec![-1.0, 0.0], vec![1.0, 2.0]]).unwrap();
        ranges.add(vec![vec![0.5, -3.0], vec![4.0, 1.0]]).unwrap();
        assert_eq!(ranges.values, [[-1.0, -3.0], [4.0, 2.0]]);
        assert!(ranges.add(vec![vec![f32::NAN, 0.0], vec![0.0, 0.0]]).is_err());
    }
}
