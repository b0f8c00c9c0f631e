//! `densevit head`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgGroup, Args, ValueEnum};

use crate::{
    commands::library_from_environment,
    engine::check_runs,
    import::{HeadKind, HeadOptions, SegmentOptions, install_head, install_segmenter},
    manifest::{LiftFile, Manifest, SegmentInput, SegmenterFile, Tap},
    weights::ChannelOrder,
};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    /// The authors' order for the backbone's number of heads.
    Official,
    /// Head-major, as this program computes features.
    Natural,
}

/// What may be said of a LiFT head; files that this project's trainer wrote say it themselves.
#[derive(Debug, Args)]
pub struct HeadFlags {
    /// What the head takes [default: what its file says, else key of the last block].
    #[arg(long, value_name = "FACET:LAYER", value_parser = parse_tap, requires = "lift")]
    lift_tap: Option<Tap>,
    /// Order of the feature channels in the head's file [default: official for keys, queries, values; natural for tokens].
    #[arg(long, value_enum, requires = "lift")]
    lift_order: Option<OrderArg>,
    /// Licence of the head [default: what its file says, else unknown].
    #[arg(long, requires = "lift")]
    lift_license: Option<String>,
    /// Take a head whose file names other weights than this backbone's.
    #[arg(long, requires = "lift")]
    lift_any_backbone: bool,
}

impl HeadFlags {
    /// The head in `source`, as these flags say.
    pub(super) fn options(self, source: PathBuf) -> HeadOptions {
        let natural = |order| matches!(order, OrderArg::Natural).then_some(ChannelOrder::Natural);
        HeadOptions {
            source,
            order: self.lift_order.and_then(natural),
            tap: self.lift_tap,
            license: self.lift_license,
            any_backbone: self.lift_any_backbone,
            drop_reader: false,
        }
    }

    fn are_given(&self) -> bool {
        let said = [self.lift_tap.is_some(), self.lift_order.is_some(), self.lift_license.is_some()];
        self.lift_any_backbone || said.contains(&true)
    }
}

/// What may be said of a segmentation head; files that this project's trainer wrote say it themselves.
#[derive(Debug, Args)]
pub struct SegmentFlags {
    /// What the head takes, in the order of reading, e.g. token:11,token:7,token:5 [default: what its file says, else those of the
    /// published models].
    #[arg(long, value_name = "FACET:LAYER", value_parser = parse_tap, value_delimiter = ',', requires = "segment")]
    segment_taps: Option<Vec<Tap>>,
    /// Attention heads of the decoder [default: what its file says, else channels / 32].
    #[arg(long, value_name = "HEADS", requires = "segment")]
    segment_heads: Option<u32>,
    /// Licence of the head [default: what its file says, else unknown].
    #[arg(long, requires = "segment")]
    segment_license: Option<String>,
    /// Take a head whose file names other weights than this backbone's.
    #[arg(long, requires = "segment")]
    segment_any_backbone: bool,
}

impl SegmentFlags {
    /// The head in `source`, as these flags say.
    pub(super) fn options(self, source: PathBuf) -> SegmentOptions {
        SegmentOptions {
            source,
            taps: self.segment_taps,
            heads: self.segment_heads,
            license: self.segment_license,
            any_backbone: self.segment_any_backbone,
        }
    }

    fn are_given(&self) -> bool {
        let said = [self.segment_taps.is_some(), self.segment_heads.is_some(), self.segment_license.is_some()];
        self.segment_any_backbone || said.contains(&true)
    }
}

/// Flags of `densevit head`.
#[derive(Debug, Args)]
// What is said of either kind of head is said of the one file.
#[command(group = ArgGroup::new("lift").arg("file"), group = ArgGroup::new("segment").arg("file"))]
pub struct HeadArgs {
    /// Model directory: models/NAME/VERSION.
    model: PathBuf,
    /// Weights of the head, as for `densevit import --lift` or `--segment`; which kind it is, the file tells.
    file: PathBuf,
    /// Take out a segmentation head that reads through the `LiFT` head that is replaced.
    #[arg(long)]
    drop_segment: bool,
    #[command(flatten)]
    lift: HeadFlags,
    #[command(flatten)]
    segment: SegmentFlags,
}

/// Gives a model a `LiFT` head or a segmentation head, or another one of its kind.
///
/// # Errors
/// A model that is not in order, a head that does not fit it, a place that cannot be written. The model stays as it was then.
pub fn run(args: HeadArgs) -> anyhow::Result<()> {
    let library = library_from_environment();
    let check = |entry: &_| check_runs(entry, library.as_deref());
    let file = args.file.display().to_string();
    let entry = match HeadKind::of(&args.file)? {
        HeadKind::Lift if args.segment.are_given() => bail!("{file} is a LiFT head: --segment flags say nothing of it"),
        HeadKind::Segment if args.lift.are_given() || args.drop_segment => {
            bail!("{file} is a segmentation head: --lift flags and --drop-segment say nothing of it")
        }
        HeadKind::Lift => {
            let options = HeadOptions { drop_reader: args.drop_segment, ..args.lift.options(args.file) };
            install_head(&args.model, &options, check)?
        }
        HeadKind::Segment => install_segmenter(&args.model, &args.segment.options(args.file), check)?,
    };
    println!("wrote {}", entry.dir.display());
    describe(&entry.manifest);
    Ok(())
}

/// One line about each head of a model that was written.
pub(super) fn describe(manifest: &Manifest) {
    manifest.lift.iter().for_each(describe_lift);
    manifest.segmenter.iter().for_each(describe_segmenter);
}

fn describe_lift(lift: &LiftFile) {
    let (form, parameters, tap) = (lift.form.name(), lift.parameters, lift.tap);
    println!("  {:<22} sha256 {} ({form}, {parameters} parameters, takes {tap})", lift.file, lift.sha256);
}

fn describe_segmenter(segmenter: &SegmenterFile) {
    let SegmenterFile { file, sha256, form, parameters, .. } = segmenter;
    let taps: Vec<String> = segmenter.taps.iter().map(Tap::to_string).collect();
    let after = if segmenter.input == SegmentInput::Lift { " after LiFT" } else { "" };
    let (form, n_classes, taps) = (form.name(), segmenter.classes.len(), taps.join(", "));
    println!("  {file:<22} sha256 {sha256} ({form}, {parameters} parameters, {n_classes} classes, takes {taps}{after})");
}

pub(super) fn parse_tap(text: &str) -> Result<Tap, String> {
    let (facet, layer) =
        text.split_once(':').ok_or_else(|| format!("\"{text}\" is no tap: expected FACET:LAYER, e.g. token:10"))?;
    let layer = layer.parse().map_err(|_error| format!("\"{layer}\" is no block index"))?;
    Ok(Tap { facet: facet.parse()?, layer })
}
