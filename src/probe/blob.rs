//! The first bytes of a real layer, and the hosts that the registry redirects its download to.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use url::Url;

use super::auth::{self, Admitted};
use super::leg::{
    Exchange, LineId, Lines, MAX_REDIRECTS, OpenError, clone_request, redirect, untrusted,
};
use super::manifest::path_of;
use super::{Check, SMALL_BODY, trace};
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{BlobFound, ManifestFound, Skip, Step};
use crate::model::fault::{Distrust, HttpFault, Phase};
use crate::model::hosts::RegistryHost;
use crate::model::units::Bytes;
use crate::registry::{error, manifest as oci};

/// Asks for the beginning of a layer and follows the redirects by hand, each to a leg of its own.
///
/// `Authorization` goes to the registry's own endpoint only. The queries of redirects are signed:
/// they are secrets, are put into the scrubber and never into the evidence.
pub(super) async fn first_bytes(
    check: &Check,
    host: &RegistryHost,
    lines: &mut Lines<'_>,
    registry: LineId,
    admitted: &Admitted,
    found: &ManifestFound,
) -> Step<BlobFound, HttpFault> {
    let Some(layer) = oci::witness(&found.layers) else {
        return Step::Skipped {
            reason: Skip::NoLayer,
        };
    };
    let path = path_of(check, host, "blobs", &layer.digest);
    let mut took = Duration::ZERO;
    let mut redirects = Vec::new();
    let mut line = registry;
    let Ok(mut url) = lines.endpoint(registry).url(&path) else {
        let reason = "the path of the layer is no URL".to_owned();
        return Step::Failed {
            fault: HttpFault::Malformed { reason },
            took,
        };
    };
    loop {
        let authorization = admitted.authorization.as_ref().filter(|_| line == registry);
        let enough = check.effort.layer_bytes.get();
        let answered = ask(lines, line, &url, authorization, enough).await;
        took += answered.took;
        let next = match answered.result {
            Err(fault) => return Step::Failed { fault, took },
            Ok(Answered::Bytes {
                range_honoured,
                size,
                first_byte,
            }) => {
                let value = BlobFound {
                    digest: layer.digest.clone(),
                    redirects,
                    range_honoured,
                    size,
                    first_byte,
                };
                return Step::Done { value, took };
            }
            Ok(Answered::Redirect(next)) => next,
        };
        if redirects.len() == MAX_REDIRECTS {
            return Step::Failed {
                fault: HttpFault::TooManyRedirects {
                    limit: MAX_REDIRECTS,
                },
                took,
            };
        }
        trace::hide_query(&next, lines.scrub_mut());
        let Some(endpoint) = Endpoint::of(&next) else {
            return Step::Failed {
                fault: untrusted(&next, Distrust::NotAServer),
                took,
            };
        };
        line = match lines.open(Role::Blob, &endpoint).await {
            Ok(line) => line,
            Err(OpenError::Failed(phase)) => {
                return Step::Skipped {
                    reason: Skip::Blocked {
                        role: Role::Blob,
                        phase,
                    },
                };
            }
            Err(OpenError::Untrusted(reason)) => {
                return Step::Failed {
                    fault: untrusted(&next, reason),
                    took,
                };
            }
        };
        redirects.push(endpoint);
        url = next;
    }
}

/// What one host said to the request.
enum Answered {
    Bytes {
        range_honoured: bool,
        size: Option<Bytes>,
        first_byte: Duration,
    },
    Redirect(Url),
}

async fn ask(
    lines: &mut Lines<'_>,
    line: LineId,
    url: &Url,
    authorization: Option<&HeaderValue>,
    enough: u64,
) -> Exchange<Answered> {
    let mut request = lines.request(line, Method::GET, auth::target(url));
    request.headers_mut().extend(
        HeaderValue::try_from(format!("bytes=0-{}", enough - 1))
            .map(|range| (header::RANGE, range)),
    );
    if let Some(value) = authorization {
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, value.clone());
    }
    let wait = lines.edges().wait;
    let again = clone_request(&request);
    let start = Instant::now();
    let mut head = None;
    let mut error_body = None;
    let result = match lines.send(line, Phase::Blob, request).await {
        Err(fault) => Err(fault),
        Ok(response) => {
            let (status, headers) = (response.status, response.headers.clone());
            head = Some((status, headers.clone()));
            if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
                let range_honoured = status == StatusCode::PARTIAL_CONTENT;
                let size = stated_size(status, &headers);
                response
                    .read_first(Bytes(enough), wait)
                    .await
                    .map(|(_, first)| Answered::Bytes {
                        range_honoured,
                        size,
                        first_byte: first.duration_since(start.into()),
                    })
            } else {
                // A body that can't be read takes nothing from what the status says.
                let body = response
                    .read(Bytes(SMALL_BODY), wait)
                    .await
                    .unwrap_or_default();
                error_body = Some(body.clone());
                match redirect(status, &headers, url, lines.endpoint(line)) {
                    Some(next) => next.map(Answered::Redirect),
                    None => Err(error::fault(status, &headers, &body, lines.scrub())),
                }
            }
        }
    };
    let took = start.elapsed();
    let fault = result.as_ref().err();
    lines.note(
        line,
        Phase::Blob,
        &again,
        head.as_ref(),
        error_body.as_ref(),
        fault,
        took,
    );
    Exchange { result, took }
}

/// The whole size of the layer: behind the slash of `Content-Range` (RFC 9110, 14.4), or the length.
fn stated_size(status: StatusCode, headers: &HeaderMap) -> Option<Bytes> {
    let text = |name| headers.get(name)?.to_str().ok();
    let size = if status == StatusCode::PARTIAL_CONTENT {
        text(header::CONTENT_RANGE)?.rsplit('/').next()?
    } else {
        text(header::CONTENT_LENGTH)?
    };
    size.parse().ok().map(Bytes)
}
