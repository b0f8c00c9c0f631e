//! What the evaluations of tasks take.

use std::path::{self, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use densevit::{
    correspond::PropagateOptions,
    import::LiftCard,
    manifest::{Facet, Manifest, Tap},
    picture::{Panel, side_by_side, write_png},
    tensor::RgbImage,
};
use serde::Serialize;
use tch::Device;

use crate::{
    backbone::Backbone,
    checkpoint,
    commands::{
        eval::load_head,
        run::{DEFAULT_MODEL, DeviceArg},
    },
    datasets::create_folder,
    eval::rows::Rows,
};

/// The head beside the versions of a model.
const OWN_HEAD: &str = "lift.safetensors";

/// Model, heads and output of an evaluation.
#[derive(Debug, Args)]
pub(super) struct TaskArgs {
    /// Model directory: models/NAME/VERSION.
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_MODEL)]
    model: PathBuf,
    /// LiFT heads: lift.safetensors of runs [default: the one beside the model's versions, if there is one].
    #[arg(long, value_name = "FILE", num_args = 1..)]
    head: Vec<PathBuf>,
    /// No heads.
    #[arg(long, conflicts_with = "head")]
    no_head: bool,
    /// Facet [default: the task's].
    #[arg(long)]
    facet: Option<Facet>,
    /// Block, 0-based [default: the last].
    #[arg(long)]
    layer: Option<u32>,
    /// How often maps are doubled: rows for each. Every doubling takes four times the memory, 16 times the time of the task.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u32).range(1..=3))]
    passes: Vec<u32>,
    /// The data set.
    #[arg(short, long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Images, pairs or videos at most.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    pub(super) limit: usize,
    /// Write the numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write pictures of what was found here.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// How many.
    #[arg(long, default_value_t = 8)]
    n_pictures: usize,
    /// Where backbone and heads run.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceArg,
}

/// How masks are carried from frame to frame.
#[derive(Debug, Args)]
pub(super) struct PropagateArgs {
    /// How far a cell may have moved, in cells of the map, also of a doubled one.
    #[arg(long, default_value_t = PropagateOptions::default().radius)]
    radius: usize,
    /// Cells that give their masks.
    #[arg(long, default_value_t = PropagateOptions::default().top_k)]
    top_k: usize,
    /// Last frames that give masks, beside the first.
    #[arg(long, default_value_t = PropagateOptions::default().n_frames)]
    n_last_frames: usize,
    /// Temperature of the weights.
    #[arg(long, default_value_t = PropagateOptions::default().temperature)]
    temperature: f32,
}

impl PropagateArgs {
    pub(super) fn options(&self) -> PropagateOptions {
        let Self { radius, top_k, n_last_frames, temperature } = *self;
        PropagateOptions { n_frames: n_last_frames, radius, top_k, temperature }
    }

    /// For tables.
    pub(super) fn label(&self) -> String {
        let Self { radius, top_k, n_last_frames, temperature } = self;
        format!("radius {radius} cells, {top_k} of {n_last_frames} frames and the first, temperature {temperature}")
    }
}

impl TaskArgs {
    /// The backbone, and the rows of the table; `facet` is the one that papers of the task use.
    ///
    /// # Errors
    /// When model or heads cannot be used.
    pub(super) fn open(&self, facet: Facet) -> anyhow::Result<(Backbone, Rows)> {
        let device = self.device.find()?;
        let last = |manifest: &Manifest| manifest.architecture.depth.saturating_sub(1);
        let manifest = densevit::manifest::load_dir(&self.model)?.manifest;
        let tap = Tap { facet: self.facet.unwrap_or(facet), layer: self.layer.unwrap_or_else(|| last(&manifest)) };
        let backbone = Backbone::open(&self.model, |_default| tap, device)?;
        let heads = self.heads(&backbone, device)?;
        println!("{tap} of {}, {} heads", self.model.display(), heads.len());
        Ok((backbone, Rows::new(tap, heads, &self.passes, device)))
    }

    fn heads(&self, backbone: &Backbone, device: Device) -> anyhow::Result<Vec<(crate::eval::Method, Tap)>> {
        let dir = path::absolute(&self.model).with_context(|| format!("reading {}", self.model.display()))?;
        let own = dir.parent().unwrap_or(&dir).join(OWN_HEAD);
        let files = match &self.head[..] {
            [] if self.no_head || !own.is_file() => Vec::new(),
            [] => vec![own],
            given => given.to_vec(),
        };
        let manifest = &backbone.entry().manifest;
        let open = |file: &PathBuf| {
            let card = LiftCard::read(file)?;
            let tap = card.map(|card| card.tap).or_else(|| manifest.lift.as_ref().map(|lift| lift.tap));
            let tap = tap.with_context(|| format!("{} does not say which activation it doubles", file.display()))?;
            ensure!(
                manifest.backbone.offers(tap),
                "{} doubles the {tap}, which {} does not offer",
                file.display(),
                manifest.name
            );
            Ok((load_head(file, backbone, device)?, tap))
        };
        files.iter().map(open).collect()
    }

    /// Writes the numbers, if that is wanted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn report(&self, numbers: &impl Serialize) -> anyhow::Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        checkpoint::write_bytes(file, serde_json::to_string_pretty(numbers)?.as_bytes())
    }

    /// Writes panels side by side for one of `n` things, if it is among those that are wanted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn picture(
        &self,
        (idx, n): (usize, usize),
        name: &str,
        panels: impl FnOnce() -> anyhow::Result<Vec<(String, RgbImage)>>,
    ) -> anyhow::Result<()> {
        let every = n.div_ceil(self.n_pictures.max(1)).max(1);
        let Some(folder) = self.pictures.as_ref().filter(|_| self.n_pictures > 0 && idx.is_multiple_of(every)) else {
            return Ok(());
        };
        create_folder(folder)?;
        let panels: Vec<Panel> = panels()?.into_iter().map(|(caption, image)| Panel { caption, image }).collect();
        Ok(write_png(&folder.join(format!("{name}.png")), &side_by_side(&panels))?)
    }
}

/// Refuses sizes that are no multiples of the patch.
///
/// # Errors
/// Naming the size.
pub(super) fn check_sizes(sizes: &[u32], patch: u32) -> anyhow::Result<()> {
    let bad = sizes.iter().find(|size| **size == 0 || **size % patch != 0);
    ensure!(bad.is_none(), "--sizes: {} is no positive multiple of the patch, {patch}", bad.copied().unwrap_or_default());
    Ok(())
}

/// As percent.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1}", 100.0 * share))
}
