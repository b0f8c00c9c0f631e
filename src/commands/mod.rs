//! The command line: one file a subcommand. The only modules that use `anyhow` and print to standard output.

mod access;
mod calibrate;
mod extract;
mod features;
mod folder;
mod head;
mod health;
mod import;
mod inputs;
mod journal;
mod labels;
mod load;
mod matching;
mod models;
mod norms;
mod objects;
mod propagate;
mod segment;
mod serve;
mod shard;
mod target;
mod view;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{commands::folder::AllRefused, runtime::Library};

/// Exit status of a failure that would come again; of others it is 1, of wrong flags 2.
const LASTING_FAILURE: u8 = 3;
/// Exit status of a load whose objectives were missed.
const OBJECTIVES_MISSED: u8 = 4;

/// Dense Vision-Transformer features as a gRPC service.
#[derive(Debug, Parser)]
#[command(name = "densevit", disable_version_flag = true, arg_required_else_help = true)]
pub struct Cli {
    /// Print the versions of densevit, ONNX Runtime and its providers.
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of a repository over gRPC.
    Serve(serve::ServeArgs),
    /// Turn weights (safetensors, ONNX or PyTorch) into a model directory that can be served.
    Import(import::ImportArgs),
    /// Measure on photos what an int8 import needs to know.
    Calibrate(calibrate::CalibrateArgs),
    /// Give an imported model a LiFT or a segmentation head, or another one.
    Head(head::HeadArgs),
    /// Extract the features of images into .npy or .safetensors files.
    Extract(extract::ExtractArgs),
    /// Segment images: masks as .png, .json (COCO run lengths or outlines) or .npy files.
    Segment(segment::SegmentArgs),
    /// Draw an image's features (photo, principal components of the grid, of its bilinear double, and after LiFT), its masks, or its objects.
    View(view::ViewArgs),
    /// Find points of one image in another, and draw lines between them.
    Match(matching::MatchArgs),
    /// Carry the labels of a first frame along a video.
    Propagate(propagate::PropagateArgs),
    /// List the models of a server, or of a folder.
    Models(models::ModelsArgs),
    /// Send the load of a profile to a server, and say how it bore it.
    Load(Box<load::LoadArgs>),
    /// Ask whether a server is ready; the exit status says it too.
    Health(health::HealthArgs),
}

/// Runs the command line.
///
/// # Errors
/// What the command reports; `main` prints the chain.
pub fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if cli.version {
        println!("densevit {}", env!("CARGO_PKG_VERSION"));
        match Library::load(None, library_from_environment().as_deref()) {
            Ok(library) => println!("{}", library.versions()),
            Err(error) => println!("ONNX Runtime: not found ({error})"),
        }
        return Ok(());
    }
    match cli.command {
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Import(args)) => import::run(args),
        Some(Command::Calibrate(args)) => calibrate::run(args),
        Some(Command::Head(args)) => head::run(args),
        Some(Command::Extract(args)) => extract::run(&args),
        Some(Command::Segment(args)) => segment::run(&args),
        Some(Command::View(args)) => view::run(&args),
        Some(Command::Match(args)) => matching::run(&args),
        Some(Command::Propagate(args)) => propagate::run(&args),
        Some(Command::Models(args)) => models::run(&args),
        Some(Command::Load(args)) => load::run(&args),
        Some(Command::Health(args)) => health::run(&args),
        None => Ok(Cli::command().print_help()?),
    }
}

/// Exit status of a command that failed: 3 when repeating it would bring the same (images that the server refuses), 4 when a load missed
/// its objectives, else 1.
#[must_use]
pub fn exit_status(error: &anyhow::Error) -> u8 {
    match error {
        error if error.is::<AllRefused>() => LASTING_FAILURE,
        error if error.is::<load::ObjectivesMissed>() => OBJECTIVES_MISSED,
        _ => 1,
    }
}

/// The library that `ORT_DYLIB_PATH` names, if it is set.
fn library_from_environment() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
