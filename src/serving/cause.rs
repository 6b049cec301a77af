//! `/causes/CODE`: an entry of the catalogue as a page. It is the same text in each role, and the place
//! where the alerts' `runbook_url` leads.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use super::http::{html, plain};
use crate::diagnose::catalogue::{Cause, Entry};
use crate::diagnose::explain;

#[derive(Template)]
#[template(path = "cause.html", config = "src/serving/askama.toml")]
struct CausePage {
    entry: &'static Entry,
    parts: Vec<EntryPart>,
}

/// A heading, and the text below it in pieces, of which some are code.
struct EntryPart {
    heading: &'static str,
    pieces: Vec<(bool, String)>,
}

/// Answers for `/causes/{code}`.
pub async fn page(Path(code): Path<String>) -> Response {
    match code.parse::<Cause>() {
        Ok(cause) => html(render(cause)),
        // The code is not repeated: it is whatever somebody wrote into the address.
        Err(error) => plain(
            StatusCode::NOT_FOUND,
            format!("{error}; pullpath explain lists all\n"),
        ),
    }
}

fn render(cause: Cause) -> askama::Result<String> {
    let entry = cause.entry();
    CausePage {
        entry,
        parts: explain::parts(entry).into_iter().map(entry_part).collect(),
    }
    .render()
}

/// Every second piece of a text is between backticks.
fn entry_part((heading, body): (&'static str, String)) -> EntryPart {
    let pieces = body.split('`').map(str::to_owned);
    EntryPart {
        heading,
        pieces: [false, true].into_iter().cycle().zip(pieces).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_a_page_with_all_of_its_parts() {
        for cause in Cause::ALL {
            let page = render(*cause).unwrap();
            assert!(page.contains(cause.code()), "{page}");
            assert!(!page.contains('`'), "{page}");
            for (heading, _) in explain::parts(cause.entry()) {
                assert!(page.contains(heading), "{}: {heading}", cause.code());
            }
        }
    }
}
