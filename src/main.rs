//! The `pullpath` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    pullpath::cli::main(std::env::args_os())
}
