//! `train`: see `train --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match train::commands::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("train: {error:#}");
            ExitCode::FAILURE
        }
    }
}
