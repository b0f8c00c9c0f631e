//! The command line. The only module that prints to standard output.

mod bench;
mod compose;
mod eval;
mod inspect;
mod lift;
mod pretrain;
mod run;
mod segvit;

use clap::{Parser, Subcommand};

/// Trains the heads that densevit serves, and backbones.
#[derive(Debug, Parser)]
#[command(name = "train", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a LiFT head for a model of the repository.
    Lift(Box<lift::LiftArgs>),
    /// Train a segmentation head for a model of the repository, and its backbone if that is wanted.
    Segvit(Box<segvit::SegvitArgs>),
    /// Compose a data set with exact truth: cut-outs over photos.
    Compose(Box<compose::ComposeArgs>),
    /// Train a backbone from photos without labels, or go on with one: DINO, and SelfPatch on it.
    Pretrain(Box<pretrain::PretrainArgs>),
    /// Measure heads and backbones.
    Eval(eval::EvalArgs),
    /// Time a step, or the extraction of features.
    Bench(bench::BenchArgs),
    /// Weights and exact multiply-accumulates of a backbone and of heads.
    Inspect(inspect::InspectArgs),
}

/// Runs the command line.
///
/// # Errors
/// What the command reports.
pub fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Lift(args) => lift::run(*args),
        Command::Segvit(args) => segvit::run(*args),
        Command::Compose(args) => compose::run(&args),
        Command::Pretrain(args) => pretrain::run(*args),
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
