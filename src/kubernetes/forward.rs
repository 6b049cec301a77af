//! Questions to a daemon through the API server: by port-forward to its pod, so that whoever asks needs
//! the right to that (pods/portforward) and nothing else.

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

use super::client::told;
use super::objects::PodObject;
use crate::model::text::printable;

/// Of one answer: a report is some ten KiB, with a series of a transfer some hundred.
const MAX_ANSWER: usize = 16 << 20;

/// How long the kubelet's own words are waited for after a connection has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl Portforward for PodObject {}

/// What a daemon said.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In seconds.
    pub retry_after: Option<u64>,
    pub body: Bytes,
}

impl Answer {
    /// A refusal in the daemon's words.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        printable(text.trim().chars().take(500).collect::<String>().as_str())
    }
}

/// Why there is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ForwardError {
    /// RBAC; its words name user, verb and resource.
    #[error("the API server forbids the port-forward: {0}")]
    Forbidden(String),
    #[error("the pod is gone: {0}")]
    PodGone(String),
    /// The API server or the node's kubelet can't.
    #[error("the port-forward fails: {0}")]
    Failed(String),
    /// Nobody listens there, or it broke off.
    #[error("the daemon can't be asked at its port {port}: {reason}")]
    NoDaemon { port: u16, reason: String },
    #[error("no answer in {} s", .0.as_secs())]
    Silent(Duration),
    #[error("its answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
}

/// A daemon's admin listener.
#[derive(Clone)]
pub struct Admin {
    pub client: Client,
    pub namespace: String,
    pub pod: String,
    pub port: u16,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({}/{}:{})", self.namespace, self.pod, self.port)
    }
}

impl Admin {
    /// Asks, and waits at most so long for all of the answer.
    ///
    /// # Errors
    /// Why there is no answer of the daemon. Its refusals are answers.
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
        let (stream, words) = (
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
        let answered = match speak(stream, method, path, body, broken).await {
            // The kubelet knows more of it than that the stream ended.
            Err(ForwardError::NoDaemon { reason, .. }) => {
                let kubelet = match words {
                    Some(words) => timeout(LAST_WORDS, words).await.ok().flatten(),
                    None => None,
                };
                let unsaid = || format!("{reason}, and the kubelet did not say why");
                Err(broken(printable(kubelet.unwrap_or_else(unsaid).trim())))
            }
            answered => answered,
        };
        forward.abort();
        answered
    }
}

async fn speak(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
    body: Option<Bytes>,
    broken: impl Fn(String) -> ForwardError,
) -> Result<Answer, ForwardError> {
    let broken = |error: &dyn std::error::Error| broken(told(error));
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
        error => ForwardError::Failed(printable(&told(error))),
    }
}
