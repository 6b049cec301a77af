//! `/causes/CODE`: an entry of the catalogue as a page, the same in each role. The `runbook_url` of alerts
//! leads here.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use super::http::{html, plain};
use crate::diagnose::catalogue::{Cause, Entry};
use crate::diagnose::explain;
use crate::model::settings_source::SettingsSource;

#[derive(Template)]
#[template(path = "cause.html", config = "src/serving/askama.toml")]
struct CausePage {
    entry: &'static Entry,
    parts: Vec<EntryPart>,
}

/// A heading, and the text below it in pieces: `true` for code.
struct EntryPart {
    heading: &'static str,
    pieces: Vec<(bool, String)>,
}

/// Serves `/causes/{code}`; 404 for a code that the catalogue doesn't have.
pub async fn page(Path(code): Path<String>) -> Response {
    match code.parse::<Cause>() {
        Ok(cause) => html(&page_of(cause)),
        // The code is not repeated: it is any text that a client put into the URL.
        Err(error) => plain(
            StatusCode::NOT_FOUND,
            format!("{error}; pullpath explain lists all codes\n"),
        ),
    }
}

fn page_of(cause: Cause) -> CausePage {
    let entry = cause.entry();
    CausePage {
        entry,
        parts: explain::parts(entry).into_iter().map(entry_part).collect(),
    }
}

/// Splits at backticks: every second piece is code.
fn entry_part((heading, body): (&'static str, String)) -> EntryPart {
    // Pages are the daemon's and the cluster role's.
    let body = SettingsSource::Configuration.named(&body);
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
            let page = page_of(*cause).render().unwrap();
            assert!(page.contains(cause.code()), "{page}");
            assert!(!page.contains('`'), "{page}");
            for (heading, _) in explain::parts(cause.entry()) {
                assert!(page.contains(heading), "{}: {heading}", cause.code());
            }
        }
    }
}
