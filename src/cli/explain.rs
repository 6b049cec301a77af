//! `pullpath explain`: an entry of the catalogue, or the causes of pasted error messages.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;

use super::error::Error;
use super::input;
use super::output::{Printing, SUCCESS, UNKNOWN};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::explain;
use crate::pulls::answer::{self, PasteError};
use crate::pulls::paste::MOST_PASTED;
use crate::report::explain::{ExplainDocument, render};

#[derive(Args, Debug)]
#[command(
    after_help = "A text may be Events (`kubectl describe pod`, `kubectl get events`), lines of a log, or the\n\
                  output of crictl, ctr, nerdctl, docker, podman, skopeo or a build. Each message gets an\n\
                  answer. No request is sent, and secrets are masked.\n\n\
                  Exit status: 0 each message has a cause, 2 one has none, or the code or text is invalid."
)]
pub(super) struct ExplainArgs {
    /// The code of a cause (one word of a-z, 0-9 and _, for instance tls_unknown_ca), or an error text; `-` reads the text from standard input
    #[arg(value_name = "CODE|TEXT")]
    words: Vec<String>,

    /// The error text
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "words",
        allow_hyphen_values = true
    )]
    text: Option<String>,

    #[command(flatten)]
    printing: Printing,

    /// Print the catalogue as Markdown (docs/causes.md)
    #[arg(long, hide = true, conflicts_with_all = ["words", "text"])]
    markdown: bool,
}

pub(super) fn run(args: &ExplainArgs, out: &mut dyn Write) -> Result<u8, Error> {
    if args.markdown {
        return print(&explain::markdown(), out);
    }
    if let Some(text) = &args.text {
        return answers(args, text, out);
    }
    let given = match args.words.as_slice() {
        [] => return print(&explain::list(), out),
        [one] if one == "-" => {
            let content = input::read(Path::new(one), MOST_PASTED as u64).map_err(|error| {
                let reason = match error.kind() {
                    io::ErrorKind::FileTooLarge => PasteError::TooLong.to_string(),
                    _ => error.to_string(),
                };
                Error::Message(format!("can't read standard input: {reason}"))
            })?;
            return answers(args, &String::from_utf8_lossy(&content), out);
        }
        words => words.join(" "),
    };
    if let Ok(cause) = given.parse::<Cause>() {
        return print(&explain::explain(cause), out);
    }
    if is_code(&given) {
        return Err(no_such_cause(&given));
    }
    answers(args, &given, out)
}

fn print(text: &str, out: &mut dyn Write) -> Result<u8, Error> {
    out.write_all(text.as_bytes()).map_err(Error::Write)?;
    Ok(SUCCESS)
}

fn answers(args: &ExplainArgs, text: &str, out: &mut dyn Write) -> Result<u8, Error> {
    let answers = answer::explain(text).map_err(|error| Error::Message(error.to_string()))?;
    let document = ExplainDocument::new(answers);
    args.printing.print(&document, render, out)?;
    Ok(if document.is_explained() {
        SUCCESS
    } else {
        UNKNOWN
    })
}

/// One word of letters in lower case, digits and `_` is a code, whatever it says.
fn is_code(given: &str) -> bool {
    let is_of_code = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !given.is_empty() && given.bytes().all(is_of_code)
}

/// The error for an unknown code. It suggests codes that contain the given one or begin with the same four
/// letters.
fn no_such_cause(given: &str) -> Error {
    let stem: String = given.chars().take(4).collect();
    let nearest: Vec<&str> = Cause::ALL
        .iter()
        .map(|cause| cause.code())
        .filter(|known| known.contains(given) || (stem.len() == 4 && known.starts_with(&stem)))
        .take(6)
        .collect();
    let near = if nearest.is_empty() {
        String::new()
    } else {
        format!("; similar codes are {}", nearest.join(", "))
    };
    Error::Message(format!(
        "no cause has the code '{given}'{near}; `pullpath explain` lists all, and `pullpath explain --text` explains an error text"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_of_a_code_s_letters_is_a_code_and_anything_else_a_text() {
        for code in ["tls_unknown", "i", "x509"] {
            assert!(is_code(code), "{code}");
        }
        for text in [
            "",
            "i/o timeout",
            "x509: unknown",
            "ErrImagePull",
            "EOF",
            "-",
        ] {
            assert!(!is_code(text), "{text}");
        }
    }

    #[test]
    fn an_unknown_code_gets_suggestions() {
        let typo = no_such_cause("tls_unknown").to_string();
        assert!(typo.contains("similar codes are"), "{typo}");
        assert!(typo.contains("tls_unknown_ca"), "{typo}");
        let strange = no_such_cause("zzzzz").to_string();
        assert!(!strange.contains("similar"), "{strange}");
        assert!(strange.contains("--text"), "{strange}");
    }
}
