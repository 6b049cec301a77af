//! One plain HTTP request to a server on this machine, such as the daemon's listener.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes as Buffer;
use http::{Request, StatusCode};

use super::http::HttpConnection;
use super::tcp;
use crate::model::fault::HttpFault;
use crate::model::step::Step;
use crate::model::units::Bytes;

/// Upper bound of an answer.
const MAX_ANSWER: Bytes = Bytes(1 << 20);

/// An answer with its whole body.
#[derive(Debug)]
pub struct LocalAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// At most 1 MiB.
    pub body: Buffer,
}

/// Sends `GET path`. `limit` bounds each of connecting, the head of the answer, and its body.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn get(at: SocketAddr, path: &str, limit: Duration) -> Result<LocalAnswer, String> {
    let dialed = tcp::connect(&[at.ip()], at.port(), limit).await;
    let Some(stream) = dialed.stream else {
        return Err(match dialed.connect.outcome {
            Step::Failed { fault, .. } => fault.to_string(),
            Step::Done { .. } | Step::Skipped { .. } => "no connection".to_owned(),
        });
    };
    let exchange = async {
        let mut connection = HttpConnection::open(stream.into()).await?;
        let request = Request::get(format!("http://{at}{path}")).body(Buffer::new());
        let request = request.map_err(|error| HttpFault::Other {
            reason: error.to_string(),
        })?;
        let mut response = connection.send(request, limit).await?;
        let body = response.read(MAX_ANSWER, limit).await?;
        Ok::<_, HttpFault>(LocalAnswer {
            status: response.status,
            body,
        })
    };
    exchange.await.map_err(|fault| fault.to_string())
}
