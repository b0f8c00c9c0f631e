//! `train eval corloc`.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use densevit::{
    discover::{CORNERS, DEFAULT_MAX_CORNERS, DEFAULT_TAU, Method},
    manifest::Facet,
    tensor::RgbImage,
};

use crate::{
    commands::eval::tasks::{TaskArgs, check_sizes, percent},
    datasets::{BoxedImage, coco, voc},
    eval::{
        discovery::{Finder, Protocol, Score, Shown, measure},
        rows::Rows,
    },
    marks::{FOUND, Marks, TRUTH},
};

/// How a data set is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LayoutArg {
    /// PASCAL VOC 2007 or 2012.
    Voc,
    /// COCO20k.
    Coco,
}

/// How images are given to the backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    /// As they are, padded to whole patches: LOST's and TokenCut's.
    Native,
    /// Squeezed to squares: LiFT's.
    Square,
}

/// A way to find a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FinderArg {
    /// As in its paper.
    Lost,
    /// As in its paper.
    Tokencut,
    /// LOST on features less their mean over the image.
    LostCentred,
    /// TokenCut on features less their mean over the image.
    TokencutCentred,
    /// TokenCut with the rule of corners, as `Discover` does it.
    Maskcut,
    /// The same on features less their mean over the image.
    MaskcutCentred,
}

/// Flags of `train eval corloc`.
#[derive(Debug, Args)]
pub struct CorlocArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// How the data are laid out.
    #[arg(long, value_enum, default_value = "voc")]
    layout: LayoutArg,
    /// Split of VOC.
    #[arg(long, default_value = "trainval")]
    split: String,
    /// Leave out truncated and difficult objects of VOC.
    #[arg(long)]
    no_hard: bool,
    /// How images are given.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["square"])]
    protocol: Vec<ProtocolArg>,
    /// Sides of squares, in pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [56, 112, 224, 448])]
    sizes: Vec<u32>,
    /// What finds boxes.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["lost", "tokencut", "maskcut"])]
    finders: Vec<FinderArg>,
    /// LOST: added to every product of two features.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    gram_bias: f32,
    /// TokenCut: cosine above which cells are similar.
    #[arg(long, default_value_t = DEFAULT_TAU)]
    tau: f32,
}

/// Measures and prints a table.
///
/// # Errors
/// A model, head or data set that cannot be used.
pub fn run(args: &CorlocArgs) -> anyhow::Result<()> {
    let (mut backbone, rows) = args.task.open(Facet::Key)?;
    let mut images = match args.layout {
        LayoutArg::Voc => voc::read(&args.task.data, &args.split, args.no_hard)?,
        LayoutArg::Coco => coco::read(&args.task.data)?,
    };
    images.truncate(args.task.limit);
    check_sizes(&args.sizes, backbone.patch())?;
    let finders: Vec<Finder> = args.finders.iter().map(|finder| args.finder(*finder)).collect();
    let squares = args.sizes.iter().map(|size| Protocol::Square(*size));
    let protocols = args.protocol.iter().flat_map(|protocol| match protocol {
        ProtocolArg::Native => vec![Protocol::Native],
        ProtocolArg::Square => squares.clone().collect(),
    });
    let mut all = Vec::new();
    for protocol in protocols {
        let show = |idx: usize, shown: Shown<'_>| args.show((idx, &images, protocol), &rows, &shown);
        let scores = measure(&mut backbone, &rows, (&images, protocol), &finders, show)?;
        print(&scores);
        all.extend(scores);
    }
    args.task.report(&all)
}

impl CorlocArgs {
    fn finder(&self, finder: FinderArg) -> Finder {
        let lost = Method::Lost { gram_bias: self.gram_bias };
        let token_cut = |max_corners| Method::TokenCut { tau: self.tau, max_corners };
        let (name, method, is_centred) = match finder {
            FinderArg::Lost => (format!("LOST (bias {})", self.gram_bias), lost, false),
            FinderArg::LostCentred => (format!("LOST (bias {}), centred", self.gram_bias), lost, true),
            FinderArg::Tokencut => (format!("TokenCut (tau {})", self.tau), token_cut(CORNERS), false),
            FinderArg::TokencutCentred => (format!("TokenCut (tau {}), centred", self.tau), token_cut(CORNERS), true),
            FinderArg::Maskcut => (format!("TokenCut (tau {}), corners", self.tau), token_cut(DEFAULT_MAX_CORNERS), false),
            FinderArg::MaskcutCentred => {
                (format!("TokenCut (tau {}), centred, corners", self.tau), token_cut(DEFAULT_MAX_CORNERS), true)
            }
        };
        Finder { name, method, is_centred }
    }

    /// One panel a row: true boxes, and those of the last finder.
    fn show(
        &self,
        (idx, images, protocol): (usize, &[BoxedImage], Protocol),
        rows: &Rows,
        shown: &Shown<'_>,
    ) -> anyhow::Result<()> {
        let size = if let Protocol::Square(size) = protocol { size.to_string() } else { "native".to_owned() };
        self.task.picture((idx, images.len()), &format!("{size}-{idx:04}"), || {
            let found = shown.found.chunks(self.finders.len().max(1));
            let panel = |(row, found): (&crate::eval::rows::Row, &[Option<[f64; 4]>])| {
                let marks = shown.truth.iter().fold(Marks::new(shown.image), |marks, corners| marks.boxed(*corners, TRUTH));
                let marks = found.last().copied().flatten().into_iter().fold(marks, |marks, corners| marks.boxed(corners, FOUND));
                let image: RgbImage = marks.into_image().context("an image has no pixels")?;
                Ok((row.name.clone(), image))
            };
            rows.rows().iter().zip(found).map(panel).collect()
        })
    }
}

fn print(scores: &[Score]) {
    let Some(first) = scores.first() else { return };
    println!("CorLoc, {}, {} images", first.protocol, first.n_images);
    for score in scores {
        println!("  {:<44} {:<36} {:>6}", score.row, score.finder, percent(score.corloc));
    }
    if scores.iter().any(|score| score.corloc.is_none()) {
        println!("  - more than {} cells", densevit::discover::MAX_CELLS);
    }
}
