//! `pullpath secret check`: finds problems of pull secrets before a pull uses them.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::error::Error;
use super::input;
use super::output::{FAILURE, Printing, SUCCESS, UNKNOWN};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::documents;
use crate::model::reference::Reference;
use crate::pull_secret::keyring::{self, Keyring};
use crate::pull_secret::secret;
use crate::report::secret::{ImageMatch, SecretDocument, SecretReport};
use crate::report::text::render_secrets;

#[derive(Args, Debug)]
pub(super) struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Find problems that keep a pull secret from working; no request is sent
    Check(Check),
}

/// Exit status: 0 nothing critical, 1 something critical, 2 a file could not be read.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 nothing critical, 1 something critical, 2 a file could not be read or has no Secret."
)]
struct Check {
    /// Files with Secrets (YAML or JSON), as `kubectl get secret NAME -o yaml` prints them; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// An image to pull with the Secrets: check that a server key matches it; repeatable
    #[arg(long, value_name = "REFERENCE")]
    image: Vec<Reference>,

    #[command(flatten)]
    printing: Printing,
}

pub(super) fn run(args: SecretArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let SecretCommand::Check(args) = args.command;
    let now = Timestamp::now();
    let (mut reports, mut notes) = (Vec::new(), Vec::new());
    let mut unread = false;
    for path in &args.files {
        let shown = input::shown(path);
        let bytes = input::read(path, MAX_FILE)
            .map_err(|error| Error::Message(format!("can't read {shown}: {error}")))?;
        let documents = documents::read_each(&bytes);
        let sources = match &documents {
            Ok(documents) => secret::of_documents(documents, &shown),
            Err(_) => secret::read(&bytes, &shown),
        };
        notes.extend(secret::notes(
            documents.as_deref().unwrap_or_default(),
            &sources,
            &shown,
        ));
        for mut source in sources.into_iter().filter(|one| !one.is_for_others) {
            let is_nameless = matches!(&source.source, CredentialSource::SecretFile { name, .. } if name.is_empty());
            let is_docker_config = || documents.as_deref().is_ok_and(secret::has_docker_config);
            if is_nameless && source.problem.is_some() && is_docker_config() {
                // Other commands have an option for it, which the problem names.
                let reason = "it is a docker config, not a Secret".to_owned();
                source.problem = Some(SourceProblem::Malformed { reason });
            }
            // What can't be read is reported as a Secret without a name, with a problem.
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
    let document = SecretDocument::new(now, reports, notes);
    args.printing.print(&document, render_secrets, out)?;
    Ok(if unread {
        UNKNOWN
    } else if document.fails() {
        FAILURE
    } else {
        SUCCESS
    })
}

/// In bytes. A Secret has 1 MiB at most; a file may have several.
const MAX_FILE: u64 = 8 << 20;
