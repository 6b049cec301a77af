//! `pullpath secret check`: pull secrets looked at before anybody pulls with them.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{CANNOT_TELL, Error, FAILURE, Output, SUCCESS, When, use_color};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::registry::keyring::{self, Keyring};
use crate::registry::secret;
use crate::report::secret::{ImageMatch, SecretDocument, SecretReport};
use crate::report::text::{self, Style};

#[derive(Args, Debug)]
pub(super) struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Look for what keeps a pull secret from working; no registry is asked
    Check(Check),
}

/// Exit status: 0 nothing critical, 1 something critical, 2 a file could not be read.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 nothing critical, 1 something critical, 2 a file could not be read or holds no Secret."
)]
struct Check {
    /// Secret manifests (YAML or JSON), as `kubectl get secret NAME -o yaml` prints them; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// An image that the Secrets are meant for: is there a server key that matches it? Repeatable
    #[arg(long, value_name = "REFERENCE")]
    image: Vec<Reference>,

    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// When to colour the text
    #[arg(long, value_enum, default_value_t = When::Auto)]
    color: When,
}

pub(super) fn run(args: SecretArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let SecretCommand::Check(args) = args.command;
    let now = Timestamp::now();
    let mut reports = Vec::new();
    let mut unread = false;
    for path in &args.files {
        let bytes = read(path)?;
        let shown = if path == Path::new("-") {
            "standard input".into()
        } else {
            path.to_string_lossy()
        };
        for source in secret::read(&bytes, &shown) {
            // A file without any Secret is told as a nameless one with a problem.
            unread |= matches!(
                (&source.source, &source.problem),
                (CredentialSource::SecretFile { name, .. }, Some(SourceProblem::Malformed { .. })) if name.is_empty()
            );
            let evidence = keyring::source_evidence(&source);
            let ring = Keyring::new(vec![source]);
            let images = args
                .image
                .iter()
                .map(|image| ImageMatch {
                    image: image.clone(),
                    keyring: ring.lookup(image).1,
                })
                .collect();
            reports.push(SecretReport::conclude(evidence, images, now));
        }
    }
    let document = SecretDocument::new(now, reports);
    match args.output {
        Output::Text => {
            let style = Style {
                color: use_color(args.color),
            };
            out.write_all(text::render_secrets(&document, style).as_bytes())
                .map_err(Error::Write)?;
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &document)
                .map_err(|e| Error::Write(e.into()))?;
            out.write_all(b"\n").map_err(Error::Write)?;
        }
    }
    Ok(if unread {
        CANNOT_TELL
    } else if document.fails() {
        FAILURE
    } else {
        SUCCESS
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let shown = printable(&path.to_string_lossy());
    match read {
        Ok(length) if length as u64 > MAX_FILE => Err(Error::Manifest(format!(
            "{shown} is larger than {} MiB; a Secret holds 1 MiB at most",
            MAX_FILE >> 20
        ))),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::Manifest(format!("cannot read {shown}: {error}"))),
    }
}

const MAX_FILE: u64 = 8 << 20;
