//! `cargo run --example man -- FOLDER`: writes the manual pages of all commands to FOLDER/man, and the completions of
//! the usual shells to FOLDER/completions. A release adds both to its archives.

#![allow(clippy::print_stderr, reason = "it is a program for the terminal")]

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("usage: man FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&folder).display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let (pages, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&pages, &completions] {
        fs::create_dir_all(folder)?;
    }
    clap_mangen::generate_to(pullpath::cli::command(), &pages)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(
            shell,
            &mut pullpath::cli::command(),
            "pullpath",
            &completions,
        )?;
    }
    Ok(())
}
