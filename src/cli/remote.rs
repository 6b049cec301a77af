//! A check on a node, made by its daemon: asked through a port-forward to its admin listener.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

pub(super) use crate::daemon::on_demand::Question;
pub(super) use crate::daemon::schedule::timetable::Tier;
use crate::kubernetes::forward::{Admin, Answer, ForwardError};
use crate::model::text::{clean, printable};
use crate::report::nodes::{FailureKind, NodeFailure};
use crate::report::{Document, READABLE_VERSIONS, Report, SCHEMA_VERSION};

/// A daemon that is at another check has ended it after some seconds, and at most after a minute.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// The daemon's version, as far as it tells.
pub(super) async fn version(admin: &Admin, wait: Duration) -> Result<Option<String>, NodeFailure> {
    #[derive(Deserialize)]
    struct DaemonVersion {
        version: Option<String>,
    }
    let answer = admin
        .ask(Method::GET, "/-/node", None, wait)
        .await
        .map_err(|error| of_forward(&error, admin))?;
    let about: Option<DaemonVersion> = (answer.status == 200)
        .then(|| serde_json::from_slice(&answer.body).ok())
        .flatten();
    Ok(about
        .and_then(|about| about.version)
        .map(|text| printable(&text)))
}

/// Has it checked; waits while the daemon is at another check, but no longer than this in all.
pub(super) async fn check(
    admin: &Admin,
    question: &Question,
    wait: Duration,
) -> Result<Report, NodeFailure> {
    let body: Bytes = serde_json::to_vec(question)
        .map_err(|error| failure(FailureKind::Failed, error.to_string()))?
        .into();
    let end = Instant::now() + wait;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let answer = admin
            .ask(Method::POST, "/-/probe", Some(body.clone()), left)
            .await
            .map_err(|error| of_forward(&error, admin))?;
        if answer.status == 409 && Instant::now() + BUSY_PAUSE < end {
            tokio::time::sleep(BUSY_PAUSE).await;
            continue;
        }
        return read(&answer);
    }
}

fn failure(kind: FailureKind, reason: impl Into<String>) -> NodeFailure {
    NodeFailure {
        kind,
        reason: reason.into(),
    }
}

fn of_forward(error: &ForwardError, admin: &Admin) -> NodeFailure {
    let (kind, todo) = match error {
        ForwardError::Forbidden(_) => {
            let namespace = &admin.namespace;
            let todo = "; it needs get and create of pods/portforward in namespace ";
            (FailureKind::Forbidden, format!("{todo}{namespace}"))
        }
        ForwardError::NoDaemon { .. } => {
            let todo = "; is it the port of its admin_listen (--admin-port)?";
            (FailureKind::NoListener, todo.to_owned())
        }
        ForwardError::Silent(_) => (FailureKind::Silent, String::new()),
        ForwardError::PodGone(_) | ForwardError::Failed(_) | ForwardError::TooLong => {
            (FailureKind::Failed, String::new())
        }
    };
    failure(kind, format!("{error}{todo}"))
}

/// What a daemon says.
fn read(answer: &Answer) -> Result<Report, NodeFailure> {
    let said = |kind, otherwise: &str| {
        let text = answer.text();
        failure(
            kind,
            if text.is_empty() {
                otherwise.to_owned()
            } else {
                text
            },
        )
    };
    match answer.status {
        200 => report(&answer.body),
        403 => Err(said(
            FailureKind::NotAllowed,
            "the daemon does not check this image on demand (on_demand.images)",
        )),
        // axum's own 404 and 405 have no text: it does not know the question.
        404 | 405 if answer.body.is_empty() => Err(failure(
            FailureKind::Failed,
            "the daemon does not know this question; its version is older than this program's",
        )),
        404 => Err(said(FailureKind::NotKnown, "")),
        409 => Err(said(
            FailureKind::Busy,
            "the daemon is at another check all the time",
        )),
        429 => {
            let again = answer
                .retry_after
                .map_or_else(String::new, |seconds| format!("; ask again in {seconds} s"));
            let mut told = said(FailureKind::Busy, "it was asked too often");
            told.reason.push_str(&again);
            Err(told)
        }
        status => Err(said(
            FailureKind::Failed,
            &format!("the daemon answers {status}"),
        )),
    }
}

fn report(body: &[u8]) -> Result<Report, NodeFailure> {
    let unread = |reason: String| failure(FailureKind::Failed, reason);
    let no_report = |error: serde_json::Error| {
        unread(format!(
            "its answer is no report (line {} column {})",
            error.line(),
            error.column()
        ))
    };
    let version = version_of(body).map_err(no_report)?;
    if !READABLE_VERSIONS.contains(&version) {
        return Err(unread(format!(
            "its report has schema_version {version}, and this program reads 1 to {SCHEMA_VERSION}; use the program of the daemon's version"
        )));
    }
    let document = harmless(body).map_err(no_report)?;
    let first = document.reports.into_iter().next();
    first.ok_or_else(|| unread("its answer holds no report".to_owned()))
}

/// The version of a report's form, which is known before the rest of it can be read.
pub(super) fn version_of(report: &[u8]) -> Result<u32, serde_json::Error> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    serde_json::from_slice(report).map(|versioned: Versioned| versioned.schema_version)
}

/// Reads reports that are to be shown on a terminal, and are from elsewhere.
pub(super) fn harmless(reports: &[u8]) -> Result<Document, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(reports)?;
    make_harmless(&mut value);
    serde_json::from_value(value)
}

/// A text of a report is a line or two.
const MAX_TEXT: usize = 16 << 10;

/// In all of its texts: nothing that moves a cursor.
fn make_harmless(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text, MAX_TEXT),
        Value::Array(items) => items.iter_mut().for_each(make_harmless),
        Value::Object(fields) => fields.values_mut().for_each(make_harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::workload::SecretRefs;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            retry_after: Some(30),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn each_refusal_says_what_it_is() {
        for (status, body, kind, words) in [
            (403, "not here: set x\n", FailureKind::NotAllowed, "set x"),
            (404, "no such pod", FailureKind::NotKnown, "no such pod"),
            (404, "", FailureKind::Failed, "older"),
            (405, "", FailureKind::Failed, "older"),
            (409, "busy", FailureKind::Busy, "busy"),
            (
                429,
                "six a minute",
                FailureKind::Busy,
                "six a minute; ask again in 30 s",
            ),
            (500, "", FailureKind::Failed, "500"),
            (200, "{}", FailureKind::Failed, "no report"),
            (
                200,
                "{\"schema_version\": 9}",
                FailureKind::Failed,
                "schema_version 9",
            ),
        ] {
            let told = read(&answer(status, body)).unwrap_err();
            assert_eq!(told.kind, kind, "{status} {body}");
            assert!(told.reason.contains(words), "{told:?}");
        }
    }

    #[test]
    fn a_report_of_another_machine_moves_no_cursor() {
        let mut value = serde_json::json!({"a": [{"b": "\u{1b}[2J"}, 1]});
        make_harmless(&mut value);
        assert_eq!(value.to_string(), "{\"a\":[{\"b\":\"\u{fffd}[2J\"},1]}");
    }

    #[test]
    fn names_alone_travel() {
        let question = Question {
            image: "r.test/app:1".to_owned(),
            pod: None,
            secrets: Some(SecretRefs {
                namespace: "shop".to_owned(),
                names: vec!["pull".to_owned()],
            }),
            tier: Tier::Reach,
        };
        assert_eq!(
            serde_json::to_string(&question).unwrap(),
            r#"{"image":"r.test/app:1","pod":null,"secrets":{"namespace":"shop","names":["pull"]},"tier":"reach"}"#
        );
    }
}
