//! What this client may do: the API server's own answer (SelfSubjectAccessReview), which each client may request.

use std::fmt;

use http::header::CONTENT_TYPE;
use kube::Client;
use serde::Deserialize;
use serde_json::json;

use super::request::{RequestError, answer};

/// A right, as RBAC names it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// The API group; empty: that of pods and Secrets.
    pub group: &'static str,
    /// In the plural.
    pub resource: &'static str,
    /// For instance `list`.
    pub verb: &'static str,
    /// `None`: in all namespaces, or the objects have none.
    pub namespace: Option<String>,
    /// `None`: all objects.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Whether this client has the right.
///
/// # Errors
/// If the API server does not answer, or forbids the question.
pub async fn has(client: &Client, right: &Right) -> Result<bool, RequestError> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        allowed: bool,
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "group": right.group,
            "resource": right.resource,
            "verb": right.verb,
            "namespace": right.namespace,
            "name": right.name,
        }},
    });
    let request = http::Request::post(REVIEWS)
        .header(CONTENT_TYPE, "application/json")
        .body(review.to_string().into_bytes())
        .map_err(kube::core::request::Error::BuildRequest);
    let body = answer(client, request, "application/json").await?;
    let review: Review = serde_json::from_slice(&body)
        .map_err(|error| RequestError::Malformed(format!("at column {}", error.column())))?;
    Ok(review.status.allowed)
}
