//! Single requests to the API server, with the rights of the client's user: no watch, no cache. Each has a timeout,
//! and an error says why there is no answer.
//!
//! The `Api` supplies the URL of the objects. Its own request methods are not used: they read answers of any length
//! into memory that is not overwritten afterwards.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, DATE};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::api::{GetParams, ListParams, ObjectList, Request};
use kube::client::Body;
use kube::core::request;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::objects::segment;
use super::sources::with_sources;
use crate::model::text::printable;

/// Timeout of one request: a page of a list in a large cluster takes some seconds.
const WAIT: Duration = Duration::from_secs(30);

/// Upper bound of one answer, in bytes. A page of 500 pods has some 10 MiB; etcd accepts objects of 1.5 MiB.
const MAX_ANSWER: usize = 64 << 20;

/// Objects per page; the API server recommends this, and kubectl uses it.
const PAGE: u32 = 500;

/// Upper bound of one list: 200,000 objects. Kubernetes supports up to 150,000 pods in a cluster.
const MAX_PAGES: usize = 400;

const WHOLE: &str = "application/json";

/// If only `PartialObjectMeta` is requested, the API server sends no content of the object (for instance of a
/// Secret).
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Why a request has no usable answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// HTTP 403 (RBAC). The API server's message names the user, the verb and the resource.
    #[error("the API server forbids it: {0}")]
    Forbidden(String),
    /// HTTP 401: the client's token or certificate is missing, expired or wrong.
    #[error("the API server does not accept the client's credentials (401): {0}")]
    Unauthorized(String),
    /// HTTP 404.
    #[error("the API server has no such object: {0}")]
    NotFound(String),
    /// Any other status that is not a success.
    #[error("the API server answers {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The message of the `Status` object, or the reason phrase of HTTP.
        message: String,
    },
    /// No connection, a connection that broke off, or no answer within 30 s.
    #[error("the API server does not answer: {0}")]
    Silent(String),
    /// Too long, or not the expected JSON. The text repeats nothing of the answer.
    #[error("the API server's answer can't be read: {0}")]
    Malformed(String),
}

impl RequestError {
    /// Whether the client lacks the right (401, 403): repeating the request does not help.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Unauthorized(_))
    }
}

/// Reads one object.
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

/// Lists the selected objects page by page and hands each to `keep`, so that only what `keep` stores is held in
/// memory. Returns `false` if the list was cut off at [`MAX_PAGES`].
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

/// Lists the selected objects, converted to `U`; cut off at [`MAX_PAGES`].
pub(super) async fn all<T, U>(objects: Api<T>, selected: ListParams) -> Result<Vec<U>, RequestError>
where
    T: Resource + Clone + DeserializeOwned,
    U: From<T>,
{
    let mut found = Vec::new();
    list(objects, selected, |object| found.push(U::from(object))).await?;
    Ok(found)
}

/// Parses an answer. An error names only the position: the content may be that of a Secret.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(body).map_err(|error| {
        RequestError::Malformed(format!(
            "at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

/// The API server's version and clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerInfo {
    /// `v1.33.2`; `None` if the answer has none.
    pub version: Option<String>,
    /// The header `Date` of the answer; `None` if it is missing or not a date.
    pub date: Option<SystemTime>,
}

/// Requests `/version`, which each client may read.
///
/// # Errors
/// If the API server does not answer within `limit`.
pub async fn server_info(client: &Client, limit: Duration) -> Result<ServerInfo, RequestError> {
    let silent = |error: kube::Error| RequestError::Silent(printable(&with_sources(&error)));
    let exchange = async {
        let request = http::Request::get("/version").body(Body::empty());
        let request = request.map_err(|error| RequestError::Malformed(error.to_string()))?;
        let response = client.send(request).await.map_err(silent)?;
        let date = response.headers().get(DATE).and_then(|date| {
            let date = jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()?;
            Some(SystemTime::from(date.timestamp()))
        });
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_VERSION).collect();
        let body = body.await.map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        if status == StatusCode::UNAUTHORIZED {
            return Err(refusal(status, &body));
        }
        let fields = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let version = fields["gitVersion"].as_str().map(printable);
        Ok(ServerInfo { version, date })
    };
    let answered = tokio::time::timeout(limit, exchange).await;
    answered.unwrap_or_else(|_| {
        Err(RequestError::Silent(format!(
            "no answer in {} s",
            limit.as_secs()
        )))
    })
}

/// Upper bound of the answer to `/version`, in bytes.
const MAX_VERSION: usize = 64 << 10;

/// Sends a request and returns the answer in memory that is overwritten when it is dropped.
pub(super) async fn answer(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, request::Error>,
    accept: &'static str,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let mut request = request.map_err(|error| RequestError::Malformed(error.to_string()))?;
    let accept = HeaderValue::from_static(accept);
    request.headers_mut().insert(ACCEPT, accept);
    let answered = tokio::time::timeout(WAIT, exchange(client, request.map(Body::from)));
    answered.await.unwrap_or_else(|_| {
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
    let silent = |error: kube::Error| RequestError::Silent(printable(&with_sources(&error)));
    let response = client.send(request).await.map_err(silent)?;
    let status = response.status();
    let mut body = response.into_body();
    // Large enough for most answers: growing would leave copies behind.
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

/// Appends; grows by copying into new memory and overwriting the old.
fn append(bytes: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if bytes.capacity() - bytes.len() < data.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((bytes.len() + data.len()) * 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(data);
}

/// From the `Status` of meta/v1, or from the HTTP status if a proxy in front of the API server answered.
fn refusal(status: StatusCode, body: &[u8]) -> RequestError {
    #[derive(Deserialize)]
    struct StatusMessage {
        message: String,
    }
    let message = match serde_json::from_slice::<StatusMessage>(body) {
        Ok(status) => printable(&status.message),
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
    fn a_refusal_is_reported_by_its_status_in_the_server_s_words() {
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
