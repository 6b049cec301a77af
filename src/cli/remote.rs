//! A check on a node, made by its daemon and requested through a port-forward to the daemon's admin listener.

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

/// How long to wait while a daemon makes another check, which takes some seconds, a minute at most.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// The daemon's version; `None` if it does not report one.
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

/// Requests a check. Waits while the daemon makes another check; `wait` is the timeout for all of it.
pub(super) async fn check(
    admin: &Admin,
    question: &Question,
    wait: Duration,
) -> Result<Report, NodeFailure> {
    let end = Instant::now() + wait;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let answer = ask(admin, "/-/probe", question, left).await?;
        if answer.status == 409 && Instant::now() + BUSY_PAUSE < end {
            tokio::time::sleep(BUSY_PAUSE).await;
            continue;
        }
        return read(&answer);
    }
}

/// The newest report of the daemon's schedule about an image, without a check. An older daemon answers as to a request
/// for a check.
pub(super) async fn known(
    admin: &Admin,
    question: &Question,
    wait: Duration,
) -> Result<Report, NodeFailure> {
    read(&ask(admin, "/-/probe?known=true", question, wait).await?)
}

/// Sends a question to a path of the daemon's admin listener.
async fn ask(
    admin: &Admin,
    path: &str,
    question: &Question,
    wait: Duration,
) -> Result<Answer, NodeFailure> {
    let body: Bytes = serde_json::to_vec(question)
        .map_err(|error| failure(FailureKind::Failed, error.to_string()))?
        .into();
    let answer = admin.ask(Method::POST, path, Some(body), wait).await;
    answer.map_err(|error| of_forward(&error, admin))
}

fn failure(kind: FailureKind, reason: impl Into<String>) -> NodeFailure {
    NodeFailure {
        kind,
        reason: reason.into(),
    }
}

fn of_forward(error: &ForwardError, admin: &Admin) -> NodeFailure {
    let (kind, action) = match error {
        ForwardError::Forbidden(_) => {
            let namespace = &admin.namespace;
            let action = "; you need the rights get and create of pods/portforward in namespace ";
            (FailureKind::Forbidden, format!("{action}{namespace}"))
        }
        ForwardError::NoDaemon { .. } => {
            let action =
                "; check that --admin-port is the port of the daemon's admin_listen".to_owned();
            (FailureKind::NoListener, action)
        }
        ForwardError::Silent(_) => (FailureKind::Silent, String::new()),
        ForwardError::PodGone(_) | ForwardError::Failed(_) | ForwardError::TooLong => {
            (FailureKind::Failed, String::new())
        }
    };
    failure(kind, format!("{error}{action}"))
}

/// The report in a daemon's answer, or why it has none.
fn read(answer: &Answer) -> Result<Report, NodeFailure> {
    let refusal = |kind, otherwise: &str| {
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
        403 => Err(refusal(
            FailureKind::NotAllowed,
            "the daemon does not check this image on demand (on_demand.images)",
        )),
        // axum's own 404 and 405 have no text: the daemon has no such endpoint.
        404 | 405 if answer.body.is_empty() => Err(failure(
            FailureKind::Failed,
            "the daemon does not know this request; its version is older than this program's",
        )),
        404 => Err(refusal(FailureKind::NotKnown, "")),
        409 => Err(refusal(
            FailureKind::Busy,
            "the daemon is busy with other checks",
        )),
        429 => {
            let again = answer
                .retry_after
                .map_or_else(String::new, |seconds| format!("; try again in {seconds} s"));
            let mut busy = refusal(FailureKind::Busy, "it received too many requests");
            busy.reason.push_str(&again);
            Err(busy)
        }
        status => Err(refusal(
            FailureKind::Failed,
            &format!("the daemon returned HTTP {status}"),
        )),
    }
}

fn report(body: &[u8]) -> Result<Report, NodeFailure> {
    let unread = |reason: String| failure(FailureKind::Failed, reason);
    let no_report = |error: serde_json::Error| {
        unread(format!(
            "its answer is not a report (line {} column {})",
            error.line(),
            error.column()
        ))
    };
    let version = version_of(body).map_err(no_report)?;
    if !READABLE_VERSIONS.contains(&version) {
        return Err(unread(format!(
            "its report has schema_version {version}, but this program reads 1 to {SCHEMA_VERSION}; use the program of the daemon's version"
        )));
    }
    let document = harmless(body).map_err(no_report)?;
    let first = document.reports.into_iter().next();
    first.ok_or_else(|| unread("its answer has no report".to_owned()))
}

/// The `schema_version` of a report, read before the rest of it.
pub(super) fn version_of(report: &[u8]) -> Result<u32, serde_json::Error> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    serde_json::from_slice(report).map(|versioned: Versioned| versioned.schema_version)
}

/// Reads reports of another machine for a terminal: control characters are escaped.
pub(super) fn harmless(reports: &[u8]) -> Result<Document, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(reports)?;
    make_harmless(&mut value);
    serde_json::from_value(value)
}

/// The maximum length of one text in bytes; texts in reports have a line or two.
const MAX_TEXT: usize = 16 << 10;

/// Escapes control characters in all texts, so that none moves a cursor.
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
                "six a minute; try again in 30 s",
            ),
            (500, "", FailureKind::Failed, "500"),
            (200, "{}", FailureKind::Failed, "not a report"),
            (
                200,
                "{\"schema_version\": 9}",
                FailureKind::Failed,
                "schema_version 9",
            ),
        ] {
            let failure = read(&answer(status, body)).unwrap_err();
            assert_eq!(failure.kind, kind, "{status} {body}");
            assert!(failure.reason.contains(words), "{failure:?}");
        }
    }

    #[test]
    fn a_report_of_another_machine_moves_no_cursor() {
        let mut value = serde_json::json!({"a": [{"b": "\u{1b}[2J"}, 1]});
        make_harmless(&mut value);
        assert_eq!(value.to_string(), "{\"a\":[{\"b\":\"\\\\u{1b}[2J\"},1]}");
    }

    #[test]
    fn names_alone_travel() {
        let question = Question {
            image: "r.test/app:1".to_owned(),
            pod: None,
            secrets: Some(SecretRefs {
                namespace: "shop".to_owned(),
                names: vec!["pull".to_owned()],
                left_out: 0,
            }),
            tier: Tier::Reach,
        };
        assert_eq!(
            serde_json::to_string(&question).unwrap(),
            r#"{"image":"r.test/app:1","pod":null,"secrets":{"namespace":"shop","names":["pull"]},"tier":"reach"}"#
        );
    }
}
