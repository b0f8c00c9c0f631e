//! `train compose`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    checkpoint,
    commands::run::pair,
    compose::{
        Plan,
        cut_out::{self, Found, Rules},
        folders, images, pairs, sheet,
        split::Split,
        stock::Stock,
        videos,
    },
    datasets::create_folder,
};

/// A layout that can be composed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LayoutArg {
    /// PASCAL VOC: boxes, masks of classes and of objects.
    Voc,
    /// COCO20k: boxes and masks; the test split only.
    Coco,
    /// SPair-71k: keypoints of pairs.
    Spair,
    /// DAVIS 2017: masks of moving objects.
    Davis,
    /// A folder a class, one object an image, as `train eval classify` reads them.
    Folders,
}

/// Flags of `train compose`.
#[derive(Debug, Args)]
pub struct ComposeArgs {
    /// Layout of the set.
    #[arg(value_enum)]
    layout: LayoutArg,
    /// Folders of cut-outs: PNG files with an alpha channel. The folder of a file is its category.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    cut_outs: Vec<PathBuf>,
    /// Folders of photos to lay them over.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    photos: Vec<PathBuf>,
    /// Where the set goes; must be empty or not there.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Same seed and files, same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images, pairs or videos to learn from.
    #[arg(long, default_value_t = 0)]
    train: usize,
    /// The same to choose by.
    #[arg(long, default_value_t = 0)]
    val: usize,
    /// The same to measure on.
    #[arg(long, default_value_t = 0)]
    test: usize,
    /// Frames of a video.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1000))]
    frames: u32,
    /// Rows and columns of images [default: 375,500; videos 480,854].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "H,W")]
    size: Option<Vec<u32>>,
    /// Names of folders that hold drawings.
    #[arg(long, value_delimiter = ',', default_values_t = Rules::default().skip)]
    skip: Vec<String>,
    /// Shorter side that a cut-out must have, in pixels.
    #[arg(long, default_value_t = Rules::default().min_side)]
    min_side: u32,
    /// Different colours that a cut-out must have, as a share of its pixels: drawings have few.
    #[arg(long, default_value_t = Rules::default().min_colours)]
    min_colours: f64,
}

/// `composed.json`: what the set was made of.
#[derive(Debug, Serialize)]
struct Record<'a> {
    made_by: String,
    layout: String,
    plan: &'a Plan,
    rules: &'a Rules,
    /// Cut-outs of each split: file and SHA-256.
    cut_outs: BTreeMap<&'static str, Vec<(String, String)>>,
}

/// Composes a set.
///
/// # Errors
/// Files that cannot be read or written, a stock that does not suffice, no number of anything.
pub fn run(args: &ComposeArgs) -> anyhow::Result<()> {
    let plan = args.plan()?;
    let rules = Rules { skip: args.skip.clone(), min_side: args.min_side, min_colours: args.min_colours, ..Rules::default() };
    let found = cut_out::find(&args.cut_outs, &rules)?;
    print(&found);
    let record = Record {
        made_by: format!("train {} compose", env!("CARGO_PKG_VERSION")),
        layout: args.layout.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
        plan: &Plan { out: PathBuf::new(), ..plan.clone() },
        rules: &rules,
        cut_outs: listed(&found),
    };
    let json = serde_json::to_vec_pretty(&record)?;
    let stock = Stock::new(found, &args.photos)?;
    create_folder(&plan.out)?;
    let pictures = match args.layout {
        LayoutArg::Voc => images::compose_voc(&stock, &plan)?,
        LayoutArg::Coco => images::compose_coco(&stock, &plan)?,
        LayoutArg::Spair => pairs::compose(&stock, &plan)?,
        LayoutArg::Davis => videos::compose(&stock, &plan)?,
        LayoutArg::Folders => folders::compose(&stock, &plan)?,
    };
    checkpoint::write_bytes(&plan.out.join("composed.json"), &json)?;
    let sheet = plan.out.join("sheet.png");
    sheet::write(&sheet, &pictures)?;
    println!("{} holds {:?} of train, val and test; {} shows the first ones", plan.out.display(), plan.counts, sheet.display());
    Ok(())
}

impl ComposeArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        let usual = if self.layout == LayoutArg::Davis { [480, 854] } else { [375, 500] };
        let size = pair("--size", self.size.as_deref(), usual)?;
        ensure!(size.iter().all(|side| (32..=4096).contains(side)), "--size takes sides of 32 to 4096 pixels, not {size:?}");
        let counts = [self.train, self.val, self.test];
        let used = if self.layout == LayoutArg::Coco { &counts[2..] } else { &counts };
        ensure!(used.iter().any(|count| *count > 0), "nothing to compose: --train, --val and --test say how much (coco: --test)");
        ensure!(counts.iter().all(|count| *count <= 100_000), "at most 100000 of each split");
        let is_empty = std::fs::read_dir(&self.out).map_or(true, |mut entries| entries.next().is_none());
        ensure!(is_empty, "{} holds files already", self.out.display());
        let n_frames = usize::try_from(self.frames)?;
        Ok(Plan { out: self.out.clone(), seed: self.seed, counts, size, n_frames })
    }
}

fn listed(found: &Found) -> BTreeMap<&'static str, Vec<(String, String)>> {
    let of = |split: Split| {
        let own = found.cut_outs.iter().filter(|cut_out| cut_out.split() == split);
        let name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (split.name(), own.map(|cut_out| (name(&cut_out.path), cut_out.digest.clone())).collect())
    };
    Split::ALL.map(of).into_iter().collect()
}

fn print(found: &Found) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    found.left_out.iter().for_each(|(_, reason)| *reasons.entry(reason).or_default() += 1);
    let reasons: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let of = |split: Split| found.cut_outs.iter().filter(|cut_out| cut_out.split() == split).count();
    let [train, val, test] = Split::ALL.map(of);
    println!("{} cut-outs (train {train}, val {val}, test {test}); left out: {}", found.cut_outs.len(), reasons.join(", "));
}
