//! `densevit head`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{
    commands::library_from_environment,
    engine::check_runs,
    import::{HeadOptions, install_head},
    manifest::{LiftFile, Tap},
    weights::ChannelOrder,
};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    /// The authors' order for the backbone's number of heads.
    Official,
    /// Head-major, as this program computes features.
    Natural,
}

/// What may be said of a head; files that this project's trainer wrote say it themselves.
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
        }
    }
}

/// Flags of `densevit head`.
#[derive(Debug, Args)]
pub struct HeadArgs {
    /// Model directory: models/NAME/VERSION.
    model: PathBuf,
    /// Weights of the `LiFT` head, as for `densevit import --lift`.
    lift: PathBuf,
    #[command(flatten)]
    head: HeadFlags,
}

/// Gives a model a `LiFT` head, or another one.
///
/// # Errors
/// A model that is not in order, a head that does not fit it, a place that cannot be written. The model stays as it was then.
pub fn run(args: HeadArgs) -> anyhow::Result<()> {
    let options = args.head.options(args.lift);
    let library = library_from_environment();
    let entry = install_head(&args.model, &options, |entry| check_runs(entry, library.as_deref()))?;
    println!("wrote {}", entry.dir.display());
    entry.manifest.lift.iter().for_each(describe);
    Ok(())
}

/// One line about a head that was written.
pub(super) fn describe(lift: &LiftFile) {
    let (form, parameters, tap) = (lift.form.name(), lift.parameters, lift.tap);
    println!("  {:<22} sha256 {} ({form}, {parameters} parameters, takes {tap})", lift.file, lift.sha256);
}

pub(super) fn parse_tap(text: &str) -> Result<Tap, String> {
    let (facet, layer) =
        text.split_once(':').ok_or_else(|| format!("\"{text}\" is no tap: expected FACET:LAYER, e.g. token:10"))?;
    let layer = layer.parse().map_err(|_error| format!("\"{layer}\" is no block index"))?;
    Ok(Tap { facet: facet.parse()?, layer })
}
