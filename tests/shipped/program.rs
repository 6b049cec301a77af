//! The program as the image has it, but unoptimised: tests/shipped/static links it without a C library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(pullpath::cli::main(std::env::args_os()))
}
