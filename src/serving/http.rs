//! HTTP responses, and the security headers of each page.

use std::fmt::Display;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::model::text::visible;

/// The style of all pages.
const STYLE: &str = include_str!("style.css");

/// Serves until `stop` is cancelled, and ends after running requests.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let stopped = async move { stop.cancelled().await };
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await
}

/// No scripts, nothing from other hosts, no frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for a page with a form, which is sent to this server alone.
const FORM_POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Lets the forms of a page be sent to this server.
pub fn with_form(mut response: Response) -> Response {
    let policy = HeaderValue::from_static(FORM_POLICY);
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Adds the security headers to each response, and forbids caching. A page with a form has its own policy.
pub async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A response in plain text.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

/// A response with status 200 and this content type.
pub fn of_type(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], Body::from(body)).into_response()
}

/// A response with this content type, or status 500 with the error.
pub fn made(content_type: &'static str, text: Result<String, impl Display>) -> Response {
    match text {
        Ok(text) => of_type(content_type, text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The content type of the API.
pub const JSON: &str = "application/json";

/// A value as indented JSON.
pub fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_string_pretty(value);
    made(JSON, text.map(|text| text + "\n"))
}

/// The content type of Prometheus' text format, version 0.0.4.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A rendered page, or status 500 with the error. Characters that deceive a reader are escaped, wherever they are from.
pub fn html(page: Result<String, askama::Error>) -> Response {
    let page = page.map(|page| visible(&page).into_owned());
    made("text/html; charset=utf-8", page)
}

/// Serves `/style.css`.
pub async fn style() -> Response {
    of_type("text/css; charset=utf-8", STYLE.to_owned())
}
