//! Sends requests to a daemon through the API server, by port-forward to its pod. The user needs only the right to
//! create `pods/portforward`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use kube::api::Portforward;
use kube::{Api, Client};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::objects::PodObject;
use super::sources::with_sources;
use crate::model::text::printable;

/// Upper bound of one answer, in bytes. A report has some 10 KiB; with the series of a transfer test, some 100 KiB.
const MAX_ANSWER: usize = 16 << 20;

/// How long to wait for the kubelet's error message after a connection has ended.
const ERROR_WAIT: Duration = Duration::from_millis(500);

impl Portforward for PodObject {}

/// A daemon's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds; `None` if absent or not a number.
    pub retry_after: Option<u64>,
    /// At most 16 MiB.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, at most 500 characters: the daemon's message if it refuses the request.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        printable(text.trim().chars().take(500).collect::<String>().as_str())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ForwardError {
    /// HTTP 401 or 403 (RBAC). The message names the user, the verb and the resource.
    #[error("the API server forbids the port-forward: {0}")]
    Forbidden(String),
    /// HTTP 404.
    #[error("the pod no longer exists: {0}")]
    PodGone(String),
    /// The API server, or the node's kubelet, refuses it or does not answer.
    #[error("the port-forward failed: {0}")]
    Failed(String),
    /// The port is closed in the pod, or the connection broke off.
    #[error("the daemon can't be reached at its port {port}: {reason}")]
    NoDaemon {
        /// The port of the admin listener.
        port: u16,
        /// The kubelet's message, or the error of the connection.
        reason: String,
    },
    /// The time the caller allows has passed.
    #[error("no answer in {} s", .0.as_secs())]
    Silent(Duration),
    /// The body exceeds 16 MiB.
    #[error("its answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

/// A daemon's admin listener, reached by port-forward.
#[derive(Clone)]
pub struct Admin {
    /// Needs the right to create `pods/portforward`.
    pub client: Client,
    /// Namespace of the daemon's pod.
    pub namespace: String,
    /// Name of the daemon's pod.
    pub pod: String,
    /// Port of the admin listener in the pod (from `admin_listen`).
    pub port: u16,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({}/{}:{})", self.namespace, self.pod, self.port)
    }
}

impl Admin {
    /// Sends a request and waits up to `wait` for the whole answer.
    ///
    /// # Errors
    /// If the daemon does not answer. A refusal by the daemon is an answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        wait: Duration,
    ) -> Result<Answer, ForwardError> {
        let exchange = self.exchange(method, path, body);
        let answered = timeout(wait, exchange).await;
        answered.unwrap_or(Err(ForwardError::Silent(wait)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, ForwardError> {
        let pods: Api<PodObject> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut forward = pods
            .portforward(&self.pod, &[self.port])
            .await
            .map_err(|error| refused(&error))?;
        let (stream, message) = (
            forward.take_stream(self.port),
            forward.take_error(self.port),
        );
        let Some(stream) = stream else {
            return Err(ForwardError::Failed("no stream was opened".to_owned()));
        };
        let broken = |reason| ForwardError::NoDaemon {
            port: self.port,
            reason,
        };
        let answered = match send(stream, method, path, body, broken).await {
            // The stream's end has no reason; the kubelet may have sent one.
            Err(ForwardError::NoDaemon { reason, .. }) => {
                let kubelet = match message {
                    Some(message) => timeout(ERROR_WAIT, message).await.ok().flatten(),
                    None => None,
                };
                let unexplained = || format!("{reason}; the kubelet gave no details");
                Err(broken(printable(
                    kubelet.unwrap_or_else(unexplained).trim(),
                )))
            }
            answered => answered,
        };
        forward.abort();
        answered
    }
}

async fn send(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
    body: Option<Bytes>,
    broken: impl Fn(String) -> ForwardError,
) -> Result<Answer, ForwardError> {
    let broken = |error: &(dyn std::error::Error + 'static)| broken(with_sources(error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request
        .body(Full::new(body.unwrap_or_default()))
        .map_err(|error| broken(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = Limited::new(response.into_body(), MAX_ANSWER);
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ForwardError::TooLong
        } else {
            broken(&*error)
        }
    })?;
    Ok(Answer {
        status,
        retry_after,
        body: body.to_bytes(),
    })
}

fn refused(error: &kube::Error) -> ForwardError {
    match error {
        kube::Error::Api(status) => {
            let message = printable(&status.message);
            match status.code {
                401 | 403 => ForwardError::Forbidden(message),
                404 => ForwardError::PodGone(message),
                code => ForwardError::Failed(format!("HTTP {code}, {message}")),
            }
        }
        error => ForwardError::Failed(printable(&with_sources(error))),
    }
}
