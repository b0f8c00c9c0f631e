//! `densevit`: see `densevit --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match densevit::commands::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("densevit: {error:#}");
            ExitCode::from(densevit::commands::exit_status(&error))
        }
    }
}
