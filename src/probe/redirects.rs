//! Redirects as Go's `http.Client` follows them (net/http, client.go), which containerd uses.

use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::model::fault::HttpFault;

/// Go's client and containerd make this many requests for one, including the redirects between them.
pub(super) const MAX_REQUESTS: usize = 10;

/// More redirects than are followed.
pub(super) const TOO_MANY: HttpFault = HttpFault::TooManyRedirects {
    limit: MAX_REQUESTS - 1,
};

/// The target of a redirect.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Redirect {
    pub url: Url,
    pub method: Method,
}

/// The redirect in a response; `None` if it is none.
///
/// # Errors
/// If `Location` is not a URL.
pub(super) fn next(
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
    from: &Url,
) -> Option<Result<Redirect, HttpFault>> {
    let method = match status.as_u16() {
        301..=303 if *method != Method::GET && *method != Method::HEAD => Method::GET,
        301..=303 | 307 | 308 => method.clone(),
        _ => return None,
    };
    // Without a Location, it is a normal response.
    let location = headers.get(LOCATION).filter(|value| !value.is_empty())?;
    let url = location.to_str().ok().and_then(|text| from.join(text).ok());
    let url = url.ok_or_else(|| HttpFault::malformed("the Location of a redirect is not a URL"));
    Some(url.map(|url| Redirect { url, method }))
}

/// Decides whether the `Authorization` of the first request is sent to the target of a redirect.
#[derive(Clone, Debug)]
pub(super) struct Sensitive {
    first: Url,
    before: Url,
    stripped: bool,
}

impl Sensitive {
    pub(super) fn new(first: &Url) -> Self {
        Self {
            first: first.clone(),
            before: first.clone(),
            stripped: false,
        }
    }

    /// Whether it is sent to the next server. Go's rule before 1.21.8 and 1.22.1 compares each server with the one
    /// before it, including ports; the later rule (`across_ports`) compares host names with the first, and never sends
    /// it again once it was omitted.
    pub(super) fn is_sent_to(&self, to: &Url, across_ports: bool) -> bool {
        if across_ports {
            !self.stripped && is_at_or_below(&self.first, to)
        } else {
            self.before.port_or_known_default() == to.port_or_known_default()
                && is_at_or_below(&self.before, to)
        }
    }

    /// The client has followed the redirect to `to`.
    pub(super) fn followed(&mut self, to: &Url) {
        self.stripped |= !is_at_or_below(&self.first, to);
        self.before = to.clone();
    }
}

/// The same host, or one below it in the DNS tree.
fn is_at_or_below(parent: &Url, to: &Url) -> bool {
    let (Some(parent), Some(sub)) = (parent.host_str(), to.host_str()) else {
        return false;
    };
    // An address has no names below it.
    let is_name = matches!(to.host(), Some(url::Host::Domain(_)));
    let is_below = sub.strip_suffix(parent).is_some_and(|s| s.ends_with('.'));
    sub == parent || (is_name && is_below)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn authorization_goes_to_the_same_host_and_below_it() {
        for (to, with_ports, without_ports) in [
            ("https://reg.test/x", true, true),
            ("https://REG.test:443/x", true, true),
            ("https://s3.reg.test/x", true, true),
            ("https://s3.reg.test:8443/x", false, true),
            ("https://reg.test:8443/x", false, true),
            ("http://reg.test/x", false, true),
            ("https://other.test/x", false, false),
            ("https://xreg.test/x", false, false),
            ("https://test/x", false, false),
        ] {
            let sensitive = Sensitive::new(&url("https://reg.test/v2/"));
            assert_eq!(sensitive.is_sent_to(&url(to), false), with_ports, "{to}");
            assert_eq!(sensitive.is_sent_to(&url(to), true), without_ports, "{to}");
        }
        let address = Sensitive::new(&url("https://10.0.0.1/v2/"));
        assert!(address.is_sent_to(&url("https://10.0.0.1:5000/"), true));
        assert!(!address.is_sent_to(&url("https://10.0.0.2/"), true));
    }

    #[test]
    fn once_left_out_it_comes_back_by_the_old_rule_only() {
        let mut sensitive = Sensitive::new(&url("https://reg.test/v2/"));
        let cdn = url("https://cdn.test/a");
        assert!(!sensitive.is_sent_to(&cdn, false) && !sensitive.is_sent_to(&cdn, true));
        sensitive.followed(&cdn);
        let (again, back) = (url("https://cdn.test/b"), url("https://reg.test/c"));
        assert!(sensitive.is_sent_to(&again, false) && !sensitive.is_sent_to(&again, true));
        assert!(!sensitive.is_sent_to(&back, false) && !sensitive.is_sent_to(&back, true));
    }

    #[test]
    fn methods_change_as_in_go() {
        for (method, status, becomes) in [
            (Method::HEAD, 301, Some(Method::HEAD)),
            (Method::GET, 302, Some(Method::GET)),
            (Method::POST, 301, Some(Method::GET)),
            (Method::POST, 303, Some(Method::GET)),
            (Method::POST, 307, Some(Method::POST)),
            (Method::POST, 308, Some(Method::POST)),
            (Method::GET, 300, None),
            (Method::GET, 304, None),
            (Method::GET, 200, None),
        ] {
            let mut headers = HeaderMap::new();
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                next(&method, status, &headers, &url("https://a.test/x/y")),
                None
            );
            headers.insert(LOCATION, HeaderValue::from_static("../z?q=1"));
            let found = next(&method, status, &headers, &url("https://a.test/x/y"));
            assert_eq!(
                found.map(|redirect| redirect.unwrap()),
                becomes.map(|method| Redirect {
                    url: url("https://a.test/z?q=1"),
                    method
                }),
                "{status}"
            );
        }
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("https://[::1/"));
        assert!(matches!(
            next(
                &Method::GET,
                StatusCode::FOUND,
                &headers,
                &url("https://a.test/")
            ),
            Some(Err(HttpFault::Malformed { .. }))
        ));
    }
}
