use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use url::Url;

use super::*;

fn proxies(https: &str, no_proxy: &str) -> Proxies {
    Proxies::new("test", true, |name| match name {
        "HTTPS_PROXY" => Some(https.to_owned()),
        "NO_PROXY" => Some(no_proxy.to_owned()),
        _ => None,
    })
}

fn builds() -> Vec<GoBuild> {
    builds::candidates(None)
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint::of(&Url::parse(url).unwrap()).unwrap()
}

fn way(no_proxy: &str, url: &str) -> ProxyRoute {
    let proxies = proxies("http://10.0.0.8:3128", no_proxy);
    proxies.route(&endpoint(url), &builds()).0
}

// ---- Go is the judge ----------------------------------------------------------------------------

/// What real Go answers (`tests/proxies/ask`).
#[derive(Deserialize)]
struct Judged {
    urls: Vec<String>,
    settings: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    set: BTreeMap<String, String>,
    /// By releases of Go, separated by commas.
    answers: BTreeMap<String, Vec<String>>,
}

fn judged() -> Judged {
    serde_json::from_str(include_str!("../../../tests/proxies/answers.json")).unwrap()
}

fn build(release: &str) -> GoBuild {
    let (minor, strict) = match release.split_once(' ') {
        Some((minor, _)) => (minor, true),
        None => (release, false),
    };
    let minor = minor.strip_prefix("1.").unwrap().parse().unwrap();
    GoBuild {
        of: "a test",
        release: (minor, if minor == 24 { 4 } else { 8 }),
        language: if strict { minor } else { 20 },
    }
}

/// The address that is dialed, as the judge says it; it has no answer for a URL whose port is none.
fn dialed(host: &Host, port: u16) -> String {
    let port = if port == 0 {
        String::new()
    } else {
        port.to_string()
    };
    match host.to_string().as_str() {
        "127.0.0.1" => format!(":{port}"),
        name if name.contains(':') && !name.starts_with('[') => format!("[{name}]:{port}"),
        name => format!("{name}:{port}"),
    }
}

/// Our answer in the judge's words.
fn ours(proxies: &Proxies, url: &str, build: &GoBuild) -> String {
    let endpoint = endpoint(url);
    let (route, server) = proxies.route(&endpoint, std::slice::from_ref(build));
    let Some(server) = server else {
        return format!("direct {}:{}", endpoint.host, endpoint.port);
    };
    if matches!(server.proxy.fault, Some(ProxyFault::Cgi { .. })) {
        return "refused".to_owned();
    }
    // What Go reads, also where the check does not dial it.
    let variable = if endpoint.scheme == Scheme::Https {
        &proxies.https
    } else {
        &proxies.http
    };
    let value = variable.as_ref().unwrap().value.expose();
    assert!(route.proxy().is_some(), "{value}");
    let read = variable.as_ref().unwrap().url(build).unwrap().1;
    let login = server.login.as_ref().map_or(String::new(), |login| {
        format!(" {:?} {:?}", login.user.expose(), login.password.expose())
    });
    format!(
        "{} {}{login}",
        read.scheme,
        dialed(&server.host, server.port)
    )
}

#[test]
fn every_setting_is_read_as_go_reads_it() {
    let judged = judged();
    let mut compared = 0;
    let mut wrong = Vec::new();
    for setting in &judged.settings {
        let proxies = Proxies::new("test", true, |name| setting.set.get(name).cloned());
        for (releases, answers) in &setting.answers {
            for release in releases.split(", ") {
                let build = build(release);
                for (url, answer) in judged.urls.iter().zip(answers) {
                    // A port that is no port is 0 here.
                    let answer = answer.replace(":99999", ":").replace(":0", ":");
                    let got = ours(&proxies, url, &build).replace(":0", ":");
                    compared += 1;
                    if !got.eq_ignore_ascii_case(&answer) {
                        wrong.push(format!(
                            "{:?} {url} {release}: Go {answer}, got {got}",
                            setting.set
                        ));
                    }
                }
            }
        }
    }
    assert!(judged.settings.len() >= 60 && compared > 5000, "{compared}");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Where releases of Go differ, a runtime that may have either is undecided; elsewhere it is not.
#[test]
fn what_releases_read_differently_is_undecided() {
    for setting in judged().settings {
        let proxies = Proxies::new("test", true, |name| setting.set.get(name).cloned());
        let both = [build("1.19"), build("1.27"), build("1.27 strict")];
        for (index, url) in judged().urls.iter().enumerate() {
            let answers: Vec<&String> = setting
                .answers
                .iter()
                .filter(|(releases, _)| {
                    let mut releases = releases.split(", ");
                    releases.any(|one| ["1.19", "1.27", "1.27 strict"].contains(&one))
                })
                .map(|(_, answers)| &answers[index])
                .collect();
            let is_same = answers.iter().all(|one| *one == answers[0]);
            let (route, _) = proxies.route(&endpoint(url), &both);
            let fault = route.proxy().and_then(|proxy| proxy.fault.as_ref());
            let is_undecided = fault.is_some_and(ProxyFault::is_undecided);
            // A proxy on loopback has one address here, and all of them in Go.
            assert_eq!(
                is_undecided, !is_same,
                "{:?} {url} {answers:?} {route:?}",
                setting.set
            );
        }
    }
}

// ---- user and password --------------------------------------------------------------------------

#[test]
fn a_character_that_go_does_not_take_in_a_password_is_named_and_nothing_else_of_it() {
    for (password, character, encoded) in [
        ("hunter^canary", "'^'", "%5E"),
        ("hunter#canary", "'#'", "%23"),
        ("hunter/canary", "'/'", "%2F"),
        ("hunter?canary", "'?'", "%3F"),
        ("hunter|canary", "'|'", "%7C"),
        ("hunter\"canary", "'\"'", "%22"),
        ("hunter<canary", "'<'", "%3C"),
        ("hunter canary", "a blank", "%20"),
        ("hunter\u{fc}canary", "'\u{fc}'", "%C3%BC"),
        // Go takes the user for the host, and these for its port.
        ("22#canary", "'#'", "%23"),
        ("1/canary", "'/'", "%2F"),
    ] {
        let value = format!("http://svc:{password}@10.0.0.8:3128");
        let proxies = proxies(&value, "other.test");
        let (route, _) = proxies.route(&endpoint("https://registry.test"), &builds());
        let proxy = route.proxy().unwrap();
        assert_eq!(proxy.to_string(), "http://10.0.0.8:3128", "{password}");
        assert_eq!(
            proxy.fault,
            Some(ProxyFault::Misread {
                variable: "HTTPS_PROXY".to_owned(),
                character: character.to_owned(),
                encoded: encoded.to_owned(),
            }),
            "{password}"
        );
        let shown = format!("{proxies:?} {route:?}");
        assert!(
            !shown.contains("hunter") && !shown.contains("canary"),
            "{shown}"
        );
        let mut secrets = proxies.secrets();
        assert!(
            secrets.any(|secret| secret.expose() == password),
            "{password}"
        );
        // What NO_PROXY excludes needs no proxy.
        let (route, _) = proxies.route(&endpoint("https://a.other.test"), &builds());
        assert!(matches!(route, ProxyRoute::Excepted { .. }), "{route:?}");
        // The advice is good.
        let fixed = value.replace(password, &encoded_as(password));
        let (route, server) =
            self::proxies(&fixed, "").route(&endpoint("https://a.test"), &builds());
        assert_eq!(route.proxy().unwrap().fault, None, "{fixed}");
        assert_eq!(server.unwrap().login.unwrap().password.expose(), password);
    }
}

fn encoded_as(password: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    let encode = |byte: u8| match byte {
        byte if is_plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    password.bytes().map(encode).collect()
}

#[test]
fn go_uses_no_proxy_after_a_percent_sign_without_digits() {
    for value in [
        "http://svc:hunter%ycanary@10.0.0.8:3128",
        "http://svc:hunter%@10.0.0.8:3128",
        "https://svc:%zzhunter@10.0.0.8:3128",
    ] {
        let proxies = proxies(value, "");
        let (route, _) = proxies.route(&endpoint("https://registry.test"), &builds());
        assert_eq!(route, ProxyRoute::Direct);
        let [ignored] = proxies.settings().ignored.as_slice() else {
            panic!("{:?}", proxies.settings());
        };
        assert_eq!(ignored.variable, "HTTPS_PROXY");
        assert!(ignored.reason.contains("because of '%'"), "{ignored}");
        assert!(
            ignored.hint.contains("'%' as %25") && ignored.hint.contains("%%25"),
            "{ignored:?}"
        );
        assert!(!format!("{ignored:?}").contains("hunter"));
    }
}

#[test]
fn a_proxys_login_is_hidden_as_it_travels() {
    let proxies = proxies("http://user:hunter%322@10.0.0.8:3128", "");
    let (_, server) = proxies.route(&endpoint("https://a.test"), &builds());
    let login = server.unwrap().login.unwrap();
    assert_eq!(login.password.expose(), "hunter22");
    let pair = STANDARD.encode("user:hunter22");
    assert_eq!(login.authorization.expose(), format!("Basic {pair}"));
    assert!(!format!("{proxies:?} {login:?}").contains("hunter"));
    let scrub = crate::redact::Scrubber::default();
    for secret in proxies.secrets() {
        scrub.hide(&secret);
    }
    let shown = scrub.clean(&format!("Basic {pair} <{pair}> hunter22"));
    assert_eq!(shown, "*** <***> ***");
}

#[test]
fn a_colon_of_a_password_is_not_the_end_of_a_scheme_and_a_missing_slash_not_a_part_of_a_user() {
    let one = proxies("svc:hunter://canary@10.0.0.8:3128", "");
    let two = proxies("http:/svc:hunter@10.0.0.8:3128", "");
    let is_misread = |proxies: &Proxies| {
        let (route, _) = proxies.route(&endpoint("https://a.test"), &builds());
        assert!(!format!("{route:?}").contains("hunter"), "{route:?}");
        let fault = route.proxy().and_then(|proxy| proxy.fault.as_ref());
        matches!(fault, Some(ProxyFault::Misread { .. }))
    };
    assert!(is_misread(&one));
    assert!(!is_misread(&two));
}

#[test]
fn what_is_no_url_is_reported_and_what_is_one_is_not() {
    for (value, is_reported) in [
        ("http://10.0.0.8:3128", false),
        ("10.0.0.8:3128", false),
        ("proxy.corp", false),
        ("HTTPS://Proxy.corp:8443/", false),
        ("http://[fd12::1]", false),
        ("http://b\u{fc}cher.example:1", false),
        ("socks5://proxy.corp", false),
        ("http://svc:p%5Ew@proxy.corp:3128", false),
        ("http://proxy.corp:3128 ", true),
        ("http://[10.0.0.8:3128", true),
        ("\"http://proxy.corp:3128\"", true),
        ("http//proxy.corp:3128", true),
    ] {
        let settings = proxies(value, "").settings().clone();
        assert_eq!(
            settings.problems.len(),
            usize::from(is_reported),
            "{value} {settings:?}"
        );
        assert_eq!(settings.ignored, [], "{value}");
    }
}

// ---- other variables ----------------------------------------------------------------------------

#[test]
fn variables_that_go_does_not_read_are_reported() {
    let ignored = |set: &[(&str, &str)]| -> Vec<String> {
        let find = |name: &str| {
            set.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        };
        let proxies = Proxies::new("test", true, find);
        let ignored = &proxies.settings().ignored;
        ignored.iter().map(|one| one.variable.clone()).collect()
    };
    let (one, two) = ("http://one:1", "http://two:2");
    assert_eq!(ignored(&[("ALL_PROXY", one)]), ["ALL_PROXY"]);
    assert_eq!(
        ignored(&[("HTTPS_PROXY", one), ("https_proxy", two)]),
        ["https_proxy"]
    );
    assert_eq!(
        ignored(&[("NO_PROXY", "a"), ("no_proxy", "b")]),
        ["no_proxy"]
    );
    // The same in both, or the upper one empty: as it should be.
    assert_eq!(
        ignored(&[("HTTPS_PROXY", one), ("https_proxy", one)]),
        [""; 0]
    );
    assert_eq!(
        ignored(&[("HTTPS_PROXY", ""), ("https_proxy", one)]),
        [""; 0]
    );
    assert_eq!(ignored(&[("https_proxy", one), ("no_proxy", "b")]), [""; 0]);
}

#[test]
fn without_a_proxy_an_exception_is_still_one() {
    let set = |name: &str| (name == "NO_PROXY").then(|| "corp.test".to_owned());
    let route = |url: &str| {
        Proxies::new("test", true, set)
            .route(&endpoint(url), &builds())
            .0
    };
    assert!(matches!(
        route("https://a.corp.test"),
        ProxyRoute::Exempt { .. }
    ));
    assert_eq!(route("https://a.test"), ProxyRoute::Direct);
}

// ---- NO_PROXY -----------------------------------------------------------------------------------

#[test]
fn entries_that_seem_to_mean_a_host_and_do_not_match_are_named() {
    let host = "https://registry.corp.test:5000";
    for (entry, reason) in [
        ("https://registry.corp.test", "no scheme"),
        ("http://registry.corp.test:5000/", "no scheme"),
        ("registry.corp.test/", "a path"),
        ("registry.corp.test:5000/v2", "a path"),
        ("registry.corp.test.", "a dot at its end"),
        ("a.test registry.corp.test", "only commas"),
        ("a.test;.corp.test", "only commas"),
        ("\"registry.corp.test\"", "quotes"),
        ("registry.corp.test:443", "its port is not 5000"),
        (".corp.test:443", "its port is not 5000"),
        (".registry.corp.test", "names below registry.corp.test"),
        ("*.registry.corp.test", "names below registry.corp.test"),
        ("*corp.test", "no other pattern"),
        ("registry.*.test", "no other pattern"),
    ] {
        let ProxyRoute::Proxied { missed, .. } = way(&format!("x.test,{entry}"), host) else {
            panic!("{entry}");
        };
        assert_eq!(missed.len(), 1, "{entry}");
        assert_eq!(missed[0].entry, entry);
        assert!(
            missed[0].reason.contains(reason),
            "{entry}: {}",
            missed[0].reason
        );
    }
    // These match, or mean something else.
    for entry in [
        "",
        "other.test",
        "https://other.test",
        "egistry.corp.test",
        "registry.corp.test.example.com",
        ".other.test:443",
        "10.0.0.0/8",
        "a.test b.test",
        "*registry.corp.test.org",
        "localhost,127.0.0.1,.svc,.cluster.local",
    ] {
        let route = way(entry, host);
        assert!(
            route.proxy().is_some() && route.missed().is_empty(),
            "{entry}: {route:?}"
        );
    }
    for entry in [
        "corp.test",
        "*",
        ".corp.test",
        "registry.corp.test:5000",
        " registry.corp.test ",
    ] {
        assert!(
            matches!(way(entry, host), ProxyRoute::Excepted { .. }),
            "{entry}"
        );
    }
}

#[test]
fn an_entry_of_the_variable_that_is_not_read_is_named() {
    let set = |name: &str| match name {
        "HTTPS_PROXY" => Some("http://10.0.0.8:3128".to_owned()),
        "NO_PROXY" => Some("other.test".to_owned()),
        "no_proxy" => Some("registry.test".to_owned()),
        _ => None,
    };
    let (route, _) =
        Proxies::new("test", true, set).route(&endpoint("https://registry.test"), &builds());
    assert!(route.missed()[0].reason.contains("no_proxy"), "{route:?}");
}

#[test]
fn networks_are_compared_with_a_names_addresses_only_to_be_reported() {
    let endpoint = endpoint("https://registry.corp.test");
    let addresses: [IpAddr; 2] = ["10.30.1.20".parse().unwrap(), "fd00::20".parse().unwrap()];
    let named = |no_proxy: &str| -> Vec<String> {
        let proxies = proxies("http://10.0.0.8:3128", no_proxy);
        let missed = proxies.missed_by_address(&endpoint, &addresses);
        missed.into_iter().map(|one| one.entry).collect()
    };
    assert_eq!(named("a.test,10.0.0.0/8"), ["10.0.0.0/8"]);
    assert_eq!(named("10.30.1.20,fd00::/8"), ["10.30.1.20", "fd00::/8"]);
    assert_eq!(
        named("10.31.0.0/16,10.30.1.20:5000,192.168.0.0/16"),
        [""; 0]
    );
    assert!(!proxies("http://10.0.0.8:3128", "a.test,.b.test").have_networks());
}

proptest! {
    #[test]
    fn any_text_is_read(text in "\\PC{0,200}", host in "[a-z0-9.:]{1,20}") {
        let proxies = proxies(&text, &text);
        if let Ok(url) = Url::parse(&format!("https://{host}/"))
            && let Some(endpoint) = Endpoint::of(&url)
        {
            let _ = proxies.route(&endpoint, &builds());
        }
    }
}
