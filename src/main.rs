//! The `pullpath` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(pullpath::cli::main(std::env::args_os()))
}
