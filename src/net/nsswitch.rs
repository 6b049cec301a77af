//! The line `hosts:` of nsswitch.conf, as Go reads it (Go 1.19 to 1.27, `net/nss.go`).

use crate::model::resolver::{NameSource, NameSources};
use crate::model::text::clean;

/// Parses the text of the file.
pub fn parse(text: &str) -> NameSources {
    let mut sources = NameSources::default();
    for line in text.lines() {
        let line = line
            .split_once('#')
            .map_or(line, |(before, _)| before)
            .trim();
        if line.is_empty() {
            continue;
        }
        let database = line.split_once(':').ok_or("a line without a colon");
        let read = database.and_then(|(name, list)| Ok((name, list_of(list)?)));
        match read {
            // Several lines add up.
            Ok(("hosts", list)) => sources.list.extend(list),
            Ok(_) => {}
            // Go reads no further.
            Err(problem) => {
                sources.problem = Some(problem.to_owned());
                break;
            }
        }
    }
    sources
}

fn list_of(mut text: &str) -> Result<Vec<NameSource>, &'static str> {
    let mut list = Vec::new();
    loop {
        text = text.trim();
        if text.is_empty() {
            return Ok(list);
        }
        // Only a space ends a name.
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        text = rest.trim();
        let mut actions = Vec::new();
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or("a bracket is not closed")?;
            for word in inside.split_ascii_whitespace() {
                let plain = word.strip_prefix('!').unwrap_or(word);
                if plain.len() < 3 || !plain.contains('=') {
                    return Err("an action in brackets is not STATUS=ACTION");
                }
                actions.push(clean(&word.to_ascii_lowercase(), WORD_SHOWN));
            }
            text = after;
        }
        list.push(NameSource {
            name: clean(name, WORD_SHOWN),
            actions,
        });
    }
}

/// In characters.
const WORD_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let sources = parse(text);
        let list: Vec<String> = sources.list.iter().map(ToString::to_string).collect();
        let problem = sources.problem.map(|problem| format!("! {problem}"));
        list.into_iter()
            .chain(problem)
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn the_sources_and_their_actions_are_read() {
        for (text, want) in [
            ("", ""),
            ("passwd: files\nhosts:\n", ""),
            ("hosts: files dns # own\n", "files, dns"),
            (
                "  hosts:\tfiles  mdns4_minimal [NOTFOUND=return]  dns\n",
                "files, mdns4_minimal [NOTFOUND=RETURN], dns",
            ),
            (
                "hosts: files resolve [!UNAVAIL=return] dns",
                "files, resolve [!UNAVAIL=RETURN], dns",
            ),
            ("hosts: files\nhosts: dns", "files, dns"),
            (
                "hosts: files [success=return notfound=continue] dns",
                "files [SUCCESS=RETURN NOTFOUND=CONTINUE], dns",
            ),
            (
                "hosts: files\nnonsense\nhosts: dns",
                "files, ! a line without a colon",
            ),
            (
                "hosts: files [NOTFOUND=return dns",
                "! a bracket is not closed",
            ),
            (
                "hosts: files [x] dns",
                "! an action in brackets is not STATUS=ACTION",
            ),
            // A tab does not separate.
            ("hosts: files\tdns", "files dns"),
        ] {
            assert_eq!(shown(text), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s).{0,200}") {
            parse(&text);
        }
    }
}
