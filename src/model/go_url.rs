//! Go's `url.Parse`, with which containerd and the kubelet read URLs.

use std::net::Ipv6Addr;
use std::ops::Range;

/// The parts of a URL that containerd uses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GoUrl {
    /// In lower case; empty if there is none.
    pub scheme: String,
    /// With the port, if it is written; empty in a URL without `//`.
    pub host: String,
    /// Percent-decoded.
    pub path: String,
    /// Where the URL has its user and password; `None` if it has no `@` in front of the host.
    pub userinfo: Option<Range<usize>>,
}

/// What releases of Go do differently with a host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HostRules {
    /// A host has one colon, before its port: Go 1.26 without `urlstrictcolons=0`.
    pub strict_colons: bool,
    /// Brackets hold an IPv6 address: Go 1.24.8, 1.25.2 and 1.26.
    pub strict_brackets: bool,
}

/// `url.Parse`, with the rules before and after `strict_colons` alone.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_url(raw: &str, strict_colons: bool) -> Result<GoUrl, &'static str> {
    let rules = HostRules {
        strict_colons,
        strict_brackets: false,
    };
    parse(raw, rules)
}

/// `url.Parse`.
///
/// # Errors
///
/// If Go refuses the URL. The message gives the reason and repeats nothing of the URL.
pub fn parse(raw: &str, rules: HostRules) -> Result<GoUrl, &'static str> {
    if raw.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("it contains a control character");
    }
    let (raw, fragment) = raw.split_once('#').unwrap_or((raw, ""));
    unescape(fragment, Part::Other)?;
    if raw == "*" {
        return Ok(GoUrl {
            path: raw.to_owned(),
            ..GoUrl::default()
        });
    }
    let (scheme, rest) = scheme_of(raw)?;
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let mut url = GoUrl {
        scheme: scheme.to_ascii_lowercase(),
        ..GoUrl::default()
    };
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            return Ok(url);
        }
        let first = rest.split('/').next().unwrap_or_default();
        if first.contains(':') {
            return Err("its first segment contains a colon, and it has no scheme");
        }
    }
    let has_authority =
        rest.starts_with("//") && (!url.scheme.is_empty() || !rest.starts_with("///"));
    let mut path = rest;
    if has_authority {
        let end = rest[2..].find('/').map_or(rest.len(), |at| at + 2);
        let is_web = matches!(&*url.scheme, "http" | "https");
        let (user, host) = authority(&rest[2..end], rules, is_web)?;
        let start = raw.find("//").map_or(0, |at| at + 2);
        url.userinfo = user.map(|length| start..start + length);
        url.host = host;
        path = &rest[end..];
    }
    url.path = unescape(path, Part::Other)?;
    Ok(url)
}

/// `getScheme`.
fn scheme_of(raw: &str) -> Result<(&str, &str), &'static str> {
    for (at, byte) in raw.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("it begins with a colon and has no scheme"),
            b':' => return Ok((&raw[..at], &raw[at + 1..])),
            _ => return Ok(("", raw)),
        }
    }
    Ok(("", raw))
}

/// Whether Go takes a character in a user and password as it is; a percent sign also needs two digits.
pub fn is_of_userinfo(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c)
}

/// `parseAuthority`: the length of the user and password, and the host.
fn authority(
    text: &str,
    rules: HostRules,
    is_web: bool,
) -> Result<(Option<usize>, String), &'static str> {
    let Some((user, host)) = text.rsplit_once('@') else {
        return Ok((None, host_of(text, rules, is_web)?));
    };
    let host = host_of(host, rules, is_web)?;
    if !user.chars().all(is_of_userinfo) {
        return Err("a character in its user or password must be percent-encoded");
    }
    unescape(user, Part::Other)?;
    Ok((Some(user.len()), host))
}

/// `parseHost`.
fn host_of(host: &str, rules: HostRules, is_web: bool) -> Result<String, &'static str> {
    if rules.strict_brackets && host.rfind('[').is_some_and(|at| at > 0) {
        return Err("its host has a bracket in the middle");
    }
    if host.starts_with('[') {
        let end = host.rfind(']').ok_or("its host has no closing ']'")?;
        check_port(&host[end + 1..])?;
        let decoded = match host[..end].find("%25") {
            Some(zone) => [
                unescape(&host[..zone], Part::Host)?,
                unescape(&host[zone..end], Part::Zone)?,
                unescape(&host[end..], Part::Host)?,
            ]
            .concat(),
            None => unescape(host, Part::Host)?,
        };
        let address = decoded[1..].split([']', '%']).next().unwrap_or_default();
        if rules.strict_brackets && address.parse::<Ipv6Addr>().is_err() {
            return Err("its brackets hold no IPv6 address");
        }
        return Ok(decoded);
    }
    let colon = if rules.strict_colons && is_web {
        host.find(':')
    } else {
        host.rfind(':')
    };
    if let Some(colon) = colon {
        check_port(&host[colon..])?;
    }
    unescape(host, Part::Host)
}

/// `validOptionalPort`.
fn check_port(text: &str) -> Result<(), &'static str> {
    let digits = match text.strip_prefix(':') {
        Some(digits) => digits,
        None if text.is_empty() => text,
        None => return Err("its port is not a number"),
    };
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        Ok(())
    } else {
        Err("its port is not a number")
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Part {
    Host,
    Zone,
    Other,
}

/// `unescape`.
fn unescape(text: &str, part: Part) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let raw = text.as_bytes();
    let hex = |at: usize| {
        let digit = |b: u8| char::from(b).to_digit(16);
        let (high, low) = (digit(*raw.get(at + 1)?)?, digit(*raw.get(at + 2)?)?);
        u8::try_from(high * 16 + low).ok()
    };
    let mut at = 0;
    while at < raw.len() {
        let byte = raw[at];
        if byte == b'%' {
            let value = hex(at)
                .ok_or("it contains a '%' that is not followed by two hexadecimal digits")?;
            let is_percent = &raw[at..at + 3] == b"%25";
            // In a host, only characters beyond ASCII may be encoded.
            if part == Part::Host && value < 0x80 && !is_percent {
                return Err("an ASCII character in its host is percent-encoded");
            }
            if part == Part::Zone && !is_percent && value != b' ' && is_unfit(value) {
                return Err("a character in its zone is percent-encoded");
            }
            bytes.push(value);
            at += 3;
            continue;
        }
        if part != Part::Other && byte < 0x80 && is_unfit(byte) {
            return Err(if byte == b' ' {
                "its host contains a blank"
            } else {
                "its host contains a character that is not allowed"
            });
        }
        bytes.push(byte);
        at += 1;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `shouldEscape` of a host.
fn is_unfit(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte))
}

/// A part of a URL, percent-decoded; unchanged if that fails.
pub fn decoded(text: &str) -> String {
    unescape(text, Part::Other).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The results of Go 1.24 (`u.Scheme`, `u.Host`, `u.Path`), or `None` where it returns an error.
    #[test]
    fn urls_are_parsed_or_refused_as_by_go() {
        for (raw, want) in [
            (
                "https://m.example.com",
                Some(("https", "m.example.com", "")),
            ),
            ("HTTP://M:80/a%20b?x#y", Some(("http", "M:80", "/a b"))),
            ("https://u:p@m:1/x", Some(("https", "m:1", "/x"))),
            ("https://m:", Some(("https", "m:", ""))),
            (
                "https://[fd00::1]:5000/v2",
                Some(("https", "[fd00::1]:5000", "/v2")),
            ),
            (
                "https://[fe80::1%25eth0]",
                Some(("https", "[fe80::1%eth0]", "")),
            ),
            ("https://fd00::1", Some(("https", "fd00::1", ""))),
            ("https://m/a b ", Some(("https", "m", "/a b "))),
            ("https://http://m", Some(("https", "http:", "//m"))),
            ("https://m\u{fc}ller", Some(("https", "m\u{fc}ller", ""))),
            ("https://m%C3%BC", Some(("https", "m\u{fc}", ""))),
            (
                "registry.example.com:5000",
                Some(("registry.example.com", "", "")),
            ),
            (
                "registry.example.com",
                Some(("", "", "registry.example.com")),
            ),
            ("http:m", Some(("http", "", ""))),
            ("", Some(("", "", ""))),
            ("*", Some(("", "", "*"))),
            ("https://m.example.com ", None),
            (" https://m.example.com", None),
            ("https://m:50a0", None),
            ("https://m:1:2a", None),
            ("https://${MIRROR}", None),
            ("https://m|n", None),
            ("https://m%20n", None),
            ("https://m%zz", None),
            ("https://m/%zz", None),
            ("https://u ser@m", None),
            ("https://[fd00::1", None),
            ("https://[fd00::1]x", None),
            ("127.0.0.1:5000", None),
            ("10.0.0.1:5000/x", None),
            (":5000", None),
            ("https://m\n", None),
        ] {
            let got = parse_url(raw, false);
            let got = got
                .as_ref()
                .ok()
                .map(|url| (url.scheme.as_str(), url.host.as_str(), url.path.as_str()));
            assert_eq!(got, want, "{raw}");
        }
        assert!(parse_url("https://fd00::1", true).is_err());
        assert!(parse_url("https://[fd00::1]:80", true).is_ok());
    }

    proptest! {
        #[test]
        fn a_host_that_is_taken_has_no_blank(raw in ".{0,20}", host in "[ -~]{0,20}") {
            let _ = parse_url(&raw, true);
            if let Ok(url) = parse_url(&format!("https://{host}"), false) {
                prop_assert!(!url.host.contains(' '), "{url:?}");
            }
        }
    }
}
