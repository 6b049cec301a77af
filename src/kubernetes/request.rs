//! Single questions to the API server, with the rights of whoever asks: no watch, no cache. Each ends,
//! and says why there is no answer.
//!
//! The `Api` says which objects are meant, and where; its own requests are not used: they take an answer of any
//! length, into memory that is not overwritten.

use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use kube::api::{GetParams, ListParams, ObjectList, Request};
use kube::client::Body;
use kube::core::request;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::client::told;
use super::objects::segment;
use crate::model::text::printable;

/// The longest wait for one answer: a page of a list in a large cluster takes some seconds.
const WAIT: Duration = Duration::from_secs(30);

/// Of one answer: a page of 500 pods has some 10 MiB; etcd takes objects of 1.5 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// What the API server recommends, and kubectl uses.
const PAGE: u32 = 500;

/// Of one list: 200,000 objects, more than a cluster has pods (150,000 by its own limits).
const MAX_PAGES: usize = 400;

const WHOLE: &str = "application/json";

/// Where no more than `PartialObjectMeta` is asked for, nothing is sent that an object holds.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
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

impl RequestError {
    /// Only somebody who gives rights can change it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Unauthorized(_))
    }
}

/// One object.
pub(super) async fn get<T>(objects: Api<T>, name: &str) -> Result<T, RequestError>
where
    T: Resource + DeserializeOwned,
{
    let path = Request::new(objects.resource_url());
    let request = path.get(&segment(name), &GetParams::default());
    let accept = if T::metadata_api() { METADATA } else { WHOLE };
    let body = answer(&objects.into_client(), request, accept).await?;
    read(&body)
}

/// Those that the parameters select, page by page, so that no more is held than what `keep` keeps. Whether all
/// of them were read.
pub(super) async fn list<T>(
    objects: Api<T>,
    selected: ListParams,
    mut keep: impl FnMut(T),
) -> Result<bool, RequestError>
where
    T: Resource + Clone + DeserializeOwned,
{
    let path = Request::new(objects.resource_url());
    let client = objects.into_client();
    let accept = if T::metadata_api() {
        METADATA_LIST
    } else {
        WHOLE
    };
    let mut page_of = selected.limit(PAGE);
    for _ in 0..MAX_PAGES {
        let body = answer(&client, path.list(&page_of), accept).await?;
        let page: ObjectList<T> = read(&body)?;
        page.items.into_iter().for_each(&mut keep);
        page_of.continue_token = page.metadata.continue_.filter(|next| !next.is_empty());
        if page_of.continue_token.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All of them.
pub(super) async fn all<T, U>(objects: Api<T>, selected: ListParams) -> Result<Vec<U>, RequestError>
where
    T: Resource + Clone + DeserializeOwned,
    U: From<T>,
{
    let mut found = Vec::new();
    list(objects, selected, |object| found.push(U::from(object))).await?;
    Ok(found)
}

/// Of what is wrong in an answer nothing is repeated: it may be a Secret's.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(body).map_err(|error| {
        RequestError::Malformed(format!(
            "at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

/// In memory that is overwritten when it is given up.
async fn answer(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, request::Error>,
    accept: &'static str,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let mut request = request.map_err(|error| RequestError::Malformed(error.to_string()))?;
    let accept = HeaderValue::from_static(accept);
    request.headers_mut().insert(ACCEPT, accept);
    let asked = tokio::time::timeout(WAIT, exchange(client, request.map(Body::from)));
    asked.await.unwrap_or_else(|_| {
        Err(RequestError::Silent(format!(
            "no answer in {} s",
            WAIT.as_secs()
        )))
    })
}

async fn exchange(
    client: &Client,
    request: http::Request<Body>,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let silent = |error: kube::Error| RequestError::Silent(printable(&told(&error)));
    let response = client.send(request).await.map_err(silent)?;
    let status = response.status();
    let mut body = response.into_body();
    // Long enough for most: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(silent)?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(RequestError::Malformed(format!(
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
fn refusal(status: StatusCode, body: &[u8]) -> RequestError {
    #[derive(Deserialize)]
    struct StatusMessage {
        message: String,
    }
    let message = match serde_json::from_slice::<StatusMessage>(body) {
        Ok(said) => printable(&said.message),
        Err(_) => status.canonical_reason().unwrap_or("no reason").to_owned(),
    };
    match status {
        StatusCode::FORBIDDEN => RequestError::Forbidden(message),
        StatusCode::UNAUTHORIZED => RequestError::Unauthorized(message),
        StatusCode::NOT_FOUND => RequestError::NotFound(message),
        _ => RequestError::Refused {
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
            RequestError::Refused {
                status: 502,
                message: "Bad Gateway".to_owned()
            }
        );
        assert!(matches!(
            refusal(StatusCode::NOT_FOUND, body),
            RequestError::NotFound(_)
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
