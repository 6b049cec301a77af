//! Single questions to the API server, with the rights of whoever asks: no watch, no cache. Each ends,
//! and says why there is no answer.

use std::time::Duration;

use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::client::told;
use crate::model::text::printable;

/// The longest wait for one answer: a page of a list in a large cluster takes some seconds.
const WAIT: Duration = Duration::from_secs(30);

/// Of one answer: a page of 500 pods has some 10 MiB; etcd takes objects of 1.5 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// What the API server recommends, and kubectl uses.
const PAGE: &str = "500";

/// Of one list: 200,000 objects, more than a cluster has pods (150,000 by its own limits).
const MAX_PAGES: usize = 400;

/// Only names and labels are sent, and nothing that an object holds.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AskError {
    /// RBAC; its words name user, verb and resource.
    #[error("the API server forbids it: {0}")]
    Forbidden(String),
    #[error("the API server does not know who asks (401): {0}")]
    Unauthorized(String),
    #[error("the API server has no such object: {0}")]
    NotFound(String),
    #[error("the API server answers {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the API server does not answer: {0}")]
    Silent(String),
    #[error("the API server's answer can't be read: {0}")]
    Malformed(String),
}

impl AskError {
    /// Only somebody who gives rights can change it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Unauthorized(_))
    }
}

/// One object.
pub(super) async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, AskError> {
    let body = answer(client, path, "application/json").await?;
    read(&body)
}

/// Whether there is one; what it holds is not sent.
pub(super) async fn exists(client: &Client, path: &str) -> Result<bool, AskError> {
    match answer(client, path, METADATA).await {
        Ok(_) => Ok(true),
        Err(AskError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A list, page by page, so that no more is held than what `keep` keeps. Whether all of it was read.
pub(super) async fn list<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    selectors: &[(&str, &str)],
    keep: impl FnMut(T),
) -> Result<bool, AskError> {
    pages(client, path, selectors, "application/json", keep).await
}

/// The same, of their metadata alone.
pub(super) async fn list_metadata<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    selectors: &[(&str, &str)],
    keep: impl FnMut(T),
) -> Result<bool, AskError> {
    pages(client, path, selectors, METADATA_LIST, keep).await
}

async fn pages<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    selectors: &[(&str, &str)],
    accept: &str,
    mut keep: impl FnMut(T),
) -> Result<bool, AskError> {
    let mut next = String::new();
    for _ in 0..MAX_PAGES {
        let body = answer(client, &page_of(path, selectors, &next), accept).await?;
        let page: Page<T> = read(&body)?;
        page.items.into_iter().flatten().for_each(&mut keep);
        next = page.metadata.next;
        if next.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn page_of(path: &str, selectors: &[(&str, &str)], next: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", PAGE);
    query.extend_pairs(selectors);
    if !next.is_empty() {
        query.append_pair("continue", next);
    }
    format!("{path}?{}", query.finish())
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    /// `null` where there are none, of metadata at least.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

/// Of what is wrong in an answer nothing is repeated: it may be a Secret's.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(body).map_err(|error| {
        AskError::Malformed(format!(
            "at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

/// In memory that is overwritten when it is given up.
async fn answer(client: &Client, path: &str, accept: &str) -> Result<Zeroizing<Vec<u8>>, AskError> {
    let asked = tokio::time::timeout(WAIT, exchange(client, path, accept));
    asked.await.unwrap_or_else(|_| {
        Err(AskError::Silent(format!(
            "no answer in {} s",
            WAIT.as_secs()
        )))
    })
}

async fn exchange(
    client: &Client,
    path: &str,
    accept: &str,
) -> Result<Zeroizing<Vec<u8>>, AskError> {
    let request = Request::get(path)
        .header(ACCEPT, accept)
        .body(Body::empty())
        .map_err(|error| AskError::Malformed(error.to_string()))?;
    let silent = |error: kube::Error| AskError::Silent(printable(&told(&error)));
    let response = client.send(request).await.map_err(silent)?;
    let status = response.status();
    let mut body = response.into_body();
    // Long enough for most: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| AskError::Silent(printable(&told(&error))))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(AskError::Malformed(format!(
                    "it is longer than {MAX_ANSWER} bytes"
                )));
            }
            append(&mut bytes, data);
        }
    }
    if status.is_success() {
        return Ok(bytes);
    }
    Err(refusal(status, &bytes))
}

/// Grows by copying into new memory and overwriting the old.
fn append(bytes: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if bytes.capacity() - bytes.len() < data.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((bytes.len() + data.len()) * 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(data);
}

/// The `Status` of meta/v1, or what a proxy before the API server says.
fn refusal(status: StatusCode, body: &[u8]) -> AskError {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let message = match serde_json::from_slice::<Said>(body) {
        Ok(said) => printable(&said.message),
        Err(_) => status.canonical_reason().unwrap_or("no reason").to_owned(),
    };
    match status {
        StatusCode::FORBIDDEN => AskError::Forbidden(message),
        StatusCode::UNAUTHORIZED => AskError::Unauthorized(message),
        StatusCode::NOT_FOUND => AskError::NotFound(message),
        _ => AskError::Refused {
            status: status.as_u16(),
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_status_in_the_server_s_words() {
        let body = br#"{"kind":"Status","message":"pods is forbidden: User \"x\" cannot list","code":403}"#;
        let forbidden = refusal(StatusCode::FORBIDDEN, body);
        assert!(forbidden.is_forbidden());
        assert!(forbidden.to_string().contains("User \"x\" cannot list"));
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, b"<html>"),
            AskError::Refused {
                status: 502,
                message: "Bad Gateway".to_owned()
            }
        );
        assert!(matches!(
            refusal(StatusCode::NOT_FOUND, body),
            AskError::NotFound(_)
        ));
    }

    #[test]
    fn what_can_t_be_read_is_not_repeated() {
        let error = read::<Vec<u8>>(br#"["hunter2"]"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn memory_grows_and_holds_all() {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4));
        for part in [&b"abc"[..], b"", b"defgh", b"i"] {
            append(&mut bytes, part);
        }
        assert_eq!(&**bytes, b"abcdefghi");
    }
}
