//! Where the settings of a check are from, and how texts name them there.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the settings of a check are from. Texts name a setting as it is written there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingsSource {
    /// The flags of a command.
    #[default]
    CommandLine,
    /// The daemon's configuration.
    Configuration,
}

/// Flags that texts name, and the key of the daemon's configuration, or the command where there is no key.
/// A flag within a command in backticks stays as it is: that is to be run.
pub const KEYS: &[(&str, &str)] = &[
    ("--ca-file", "network.ca_files"),
    ("--compare-direct", "pullpath probe --compare-direct"),
    ("--config", "the configuration"),
    ("--containerd-config", "network.containerd_config"),
    ("--control-url", "pullpath probe --control-url URL"),
    ("--docker-config", "credential.docker_config"),
    ("--expect-pull-within", "expect.pull_within"),
    ("--hosts-dir", "network.hosts_dir"),
    ("--kubelet-version", "kubernetes.node: on"),
    ("--max-bytes", "budgets.transfer_bytes"),
    ("--max-duration", "budgets.transfer_duration"),
    ("--nameserver", "network.nameservers"),
    ("--plain-http", "plain_http"),
    ("--proxy-from", "network.proxy_from"),
    ("--runtime", "kubernetes.node: on"),
    ("--secret-file", "credential.secret_files"),
    ("--timeout", "schedule.timeout"),
];

impl SettingsSource {
    /// Whether this is the default, which is not written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// A text that was written for the command line, with its settings named as they are written here.
    pub fn named(self, text: &str) -> Cow<'_, str> {
        if self == Self::CommandLine || !text.contains("--") {
            return Cow::Borrowed(text);
        }
        let mut named = String::with_capacity(text.len());
        for (index, span) in text.split('`').enumerate() {
            if index > 0 {
                named.push('`');
            }
            // Every second span is in backticks: a flag alone names a setting, one after a word is in a command.
            match index % 2 {
                0 => named.push_str(&with_keys(span, "`")),
                _ if span.starts_with("--") => named.push_str(&with_keys(span, "")),
                _ => named.push_str(span),
            }
        }
        Cow::Owned(named)
    }

    /// [`Self::named`], in place.
    pub fn name_in(self, text: &mut String) {
        if let Cow::Owned(named) = self.named(text) {
            *text = named;
        }
    }
}

/// The text with the keys of [`KEYS`] in place of the flags, with `quote` around commands and lines.
fn with_keys(text: &str, quote: &str) -> String {
    let is_of_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c| !is_of_flag(c)).unwrap_or(from.len());
        let (flag, after) = from.split_at(end);
        named.push_str(before);
        match KEYS.iter().find(|(known, _)| *known == flag) {
            Some((_, key)) if key.contains("pullpath ") || key.contains(": ") => {
                named.extend([quote, key, quote]);
            }
            Some((_, key)) => named.push_str(key),
            None => named.push_str(flag),
        }
        rest = after;
    }
    named.push_str(rest);
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_its_keys_and_leaves_commands() {
        let texts = [
            (
                "give it to this check with --secret-file.",
                "give it to this check with credential.secret_files.",
            ),
            (
                "run `pullpath probe IMAGE --secret-file FILE`, or `--proxy-from`",
                "run `pullpath probe IMAGE --secret-file FILE`, or `network.proxy_from`",
            ),
            (
                "recreate it with --docker-server=x (--compare-direct shows that)",
                "recreate it with --docker-server=x (`pullpath probe --compare-direct` shows that)",
            ),
            (
                "see `--compare-direct`",
                "see `pullpath probe --compare-direct`",
            ),
            (
                "as --runtime, or `--runtime`",
                "as `kubernetes.node: on`, or `kubernetes.node: on`",
            ),
            ("no flag -- a dash", "no flag -- a dash"),
        ];
        for (flags, keys) in texts {
            assert_eq!(SettingsSource::Configuration.named(flags), keys);
            assert_eq!(SettingsSource::CommandLine.named(flags), flags);
        }
    }
}
