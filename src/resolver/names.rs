//! The full names that a lookup asks for, and which texts are names at all.

/// The names to query, in order, each with its final dot (Go, `dnsConfig.nameList`).
///
/// Empty for a name that is longer than a domain name may be (RFC 1035, 2.3.4), and for one that must not be queried
/// (`.onion`: RFC 7686, 2).
pub fn name_list(host: &str, search: &[String], ndots: usize) -> Vec<String> {
    let is_rooted = host.ends_with('.');
    if host.is_empty()
        || host.len() > LONGEST_NAME
        || (host.len() == LONGEST_NAME && !is_rooted)
        || (is_rooted && is_kept_from_dns(host))
    {
        return Vec::new();
    }
    if is_rooted {
        return vec![host.to_owned()];
    }
    let has_dots = host.bytes().filter(|b| *b == b'.').count() >= ndots;
    let as_written = format!("{host}.");
    let suffixed = search
        .iter()
        .map(|suffix| format!("{as_written}{suffix}"))
        .filter(|name| name.len() <= LONGEST_NAME && !is_kept_from_dns(name));
    let own = Some(as_written.clone()).filter(|name| !is_kept_from_dns(name));
    if has_dots {
        own.into_iter().chain(suffixed).collect()
    } else {
        suffixed.chain(own).collect()
    }
}

/// Whether Go queries the name at all: letters, digits, `-` and `_` in labels of 1 to 63, and not only digits (Go,
/// `isDomainName`; RFC 1035, 2.3.1 with the underscore of RFC 2782).
pub fn is_domain_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    name == "."
        || (labels.len() < LONGEST_NAME
            && labels
                .bytes()
                .any(|b| b.is_ascii_alphabetic() || b == b'_' || b == b'-')
            && labels.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            }))
}

fn is_kept_from_dns(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase().ends_with(".onion")
}

/// With the final dot: 255 octets on the wire (RFC 1035, 2.3.4) minus the root's.
const LONGEST_NAME: usize = 254;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rooted(name: &str) -> String {
        format!("{}.", name.trim_end_matches('.'))
    }

    #[test]
    fn the_list_of_names_is_gos() {
        let search = ["svc.local.".to_owned(), "local.".to_owned()];
        for (host, ndots, want) in [
            (
                "registry.example.com",
                1,
                vec![
                    "registry.example.com.",
                    "registry.example.com.svc.local.",
                    "registry.example.com.local.",
                ],
            ),
            (
                "registry.example.com",
                2,
                vec![
                    "registry.example.com.",
                    "registry.example.com.svc.local.",
                    "registry.example.com.local.",
                ],
            ),
            (
                "registry.example.com",
                5,
                vec![
                    "registry.example.com.svc.local.",
                    "registry.example.com.local.",
                    "registry.example.com.",
                ],
            ),
            ("registry.example.com.", 5, vec!["registry.example.com."]),
            (
                "registry",
                1,
                vec!["registry.svc.local.", "registry.local.", "registry."],
            ),
            (
                "registry",
                0,
                vec!["registry.", "registry.svc.local.", "registry.local."],
            ),
            ("x.Onion", 1, vec!["x.Onion.svc.local.", "x.Onion.local."]),
            ("x.onion.", 1, vec![]),
            ("", 1, vec![]),
        ] {
            assert_eq!(name_list(host, &search, ndots), want, "{host} {ndots}");
        }
        assert_eq!(name_list("x", &["onion.".to_owned()], 1), ["x."]);
    }

    #[test]
    fn names_longer_than_a_domain_name_are_left_out() {
        let search = ["svc.local.".to_owned()];
        let of = |length: usize| "a.".repeat(200)[..length].to_owned();
        assert_eq!(
            name_list(&of(253), &search, 1).len(),
            1,
            "the suffix does not fit"
        );
        assert_eq!(
            name_list(&of(254), &search, 1).len(),
            1,
            "rooted, as it ends in a dot"
        );
        assert!(name_list(&of(255), &search, 1).is_empty());
        assert!(name_list(&"a".repeat(254), &search, 1).is_empty());
    }

    #[test]
    fn domain_names_are_distinguished_from_other_texts() {
        for name in [
            "registry.example.com",
            "registry.example.com.",
            "a",
            "1a",
            "_x._tcp.a",
            "1-1",
            ".",
            "xn--bcher-kva.example",
        ] {
            assert!(is_domain_name(name), "{name}");
        }
        for name in [
            "",
            "..",
            "a..b",
            ".a",
            "-a",
            "a-",
            "a-.b",
            "1.2",
            "a b",
            "a/b",
            "bücher",
            "a\0",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(!is_domain_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_gives_names_that_fit_and_end_in_a_dot(
            host in ".{0,300}", search in prop::collection::vec("[a-z.]{1,120}", 0..5), ndots in 0usize..16
        ) {
            let search: Vec<String> = search.iter().map(|s| rooted(s)).collect();
            let names = name_list(&host, &search, ndots);
            prop_assert!(names.len() <= search.len() + 1);
            for name in names {
                prop_assert!(name.len() <= LONGEST_NAME && name.ends_with('.') && name.starts_with(&host));
            }
        }
    }
}
