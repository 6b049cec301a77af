//! How answers are made, and what each page is guarded by.

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

/// Of all pages.
const STYLE: &str = include_str!("style.css");

/// Serves until the stop.
///
/// # Errors
/// Those of accepting.
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

/// A page that runs nothing, loads nothing from elsewhere, and is part of no other.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

pub fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

pub fn of_type(content_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, content_type)], Body::from(body)).into_response()
}

/// A text of this type, or why there is none.
pub fn made(content_type: &'static str, text: Result<String, impl Display>) -> Response {
    match text {
        Ok(text) => of_type(content_type, text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

pub const JSON: &str = "application/json";

pub fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_string_pretty(value);
    made(JSON, text.map(|text| text + "\n"))
}

pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn html(page: Result<String, askama::Error>) -> Response {
    made("text/html; charset=utf-8", page)
}

pub async fn style() -> Response {
    of_type("text/css; charset=utf-8", STYLE.to_owned())
}
