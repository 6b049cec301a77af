use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn read(texts: &[&str]) -> Environment {
    let mut environment = Environment::default();
    for (number, text) in texts.iter().enumerate() {
        environment.read(text, &format!("{number}.conf"));
    }
    environment
}

fn set(environment: &Environment) -> Vec<String> {
    let variables = environment.variables.iter();
    let values = variables.filter_map(|(name, _)| Some((name, environment.value(name)?)));
    values
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

// ---- systemd is the judge -----------------------------------------------------------------------

/// What real systemd answers (`tests/proxies/ask-systemd`).
#[derive(Deserialize)]
struct Judged {
    units: Vec<Case>,
    files: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    set: Vec<String>,
    /// systemd's messages about the text.
    #[serde(default)]
    messages: usize,
}

fn judged() -> Judged {
    serde_json::from_str(include_str!("../../../tests/proxies/units.json")).unwrap()
}

#[test]
fn units_are_read_as_systemd_reads_them() {
    let cases = judged().units;
    assert!(cases.len() > 80);
    for case in cases {
        let mut environment = Environment::default();
        environment.read_unit(&case.text, "proxy.conf");
        assert_eq!(set(&environment), case.set, "{:?}", case.text);
        // Of the lines that systemd complains about, only those about proxies are reported.
        let is_of_others = [
            "export ",
            "3128 # by hand",
            "Environment==a",
            "\"\" ",
            "1_PROXY",
        ];
        let is_reported =
            case.messages > 0 && !is_of_others.iter().any(|one| case.text.contains(one));
        // A specifier is replaced without a message.
        let is_replaced = case.text.contains("%n");
        assert_eq!(
            environment.dropped.is_empty(),
            !is_reported && !is_replaced,
            "{:?} {:?}",
            case.text,
            environment.dropped
        );
    }
}

#[test]
fn environment_files_are_read_as_systemd_reads_them() {
    let cases = judged().files;
    assert!(cases.len() > 30);
    for case in cases {
        let mut environment = Environment::default();
        environment.read_file(&case.text, "proxy.env");
        // The judge does not list empty values, and lists a name once.
        let mut all = set(&environment);
        all.retain(|one| !one.ends_with('='));
        all.dedup();
        assert_eq!(all, case.set, "{:?}", case.text);
    }
}

// ---- several files ------------------------------------------------------------------------------

#[test]
fn later_files_win_and_an_empty_value_takes_back_what_was_set() {
    let first = "[Service]\nEnvironment=NO_PROXY=a HTTP_PROXY=x\nEnvironmentFile=/etc/a\n";
    assert_eq!(
        set(&read(&[first, "[Service]\nEnvironment=NO_PROXY=b\n"])),
        ["HTTP_PROXY=x", "NO_PROXY=b"]
    );
    let reset = "[Service]\nEnvironment=\nEnvironment=NO_PROXY=c\nEnvironmentFile=\nEnvironmentFile=-/etc/b\n";
    let all = read(&[first, reset]);
    assert_eq!(set(&all), ["NO_PROXY=c"]);
    assert_eq!(
        all.includes,
        [Include {
            path: "/etc/b".to_owned(),
            may_be_absent: true,
            of: "1.conf".to_owned(),
        }]
    );
    let unset = "[Service]\nUnsetEnvironment=HTTP_PROXY NO_PROXY=other\n";
    assert_eq!(set(&read(&[first, unset])), ["NO_PROXY=a"]);
    assert_eq!(
        set(&read(&[first, unset, "[Service]\nUnsetEnvironment=\n"])),
        ["NO_PROXY=a", "HTTP_PROXY=x"]
    );
}

#[test]
fn a_dropped_line_is_named_with_its_file_and_number_and_without_its_value() {
    for (line, variable, reason, hint) in [
        (
            "Environment=\u{201c}HTTPS_PROXY=http://svc:hunter22@h:1\u{201d}",
            "HTTPS_PROXY",
            "typographic",
            "straight quotes",
        ),
        (
            "Environment=HTTPS_PROXY=http://svc:hunter%5E22@h:1",
            "HTTPS_PROXY",
            "specifier",
            "each % as %%",
        ),
        (
            "Environment=\"HTTPS_PROXY=http://svc:hunter22@h:1",
            "HTTPS_PROXY",
            "not closed",
            "double quotes",
        ),
        (
            "HTTPS_PROXY=http://svc:hunter22@h:1",
            "HTTPS_PROXY",
            "does not know the key HTTPS_PROXY",
            "Environment=",
        ),
        (
            "Enviroment=NO_PROXY=hunter22",
            "NO_PROXY",
            "does not know the key Enviroment",
            "Environment=",
        ),
        (
            "Environment=HTTPS_PROXY=http://svc:hunter 22@h:1",
            "HTTPS_PROXY",
            "what follows a blank",
            "double quotes",
        ),
        (
            "Environment=NO_PROXY=a.test, hunter22.test",
            "NO_PROXY",
            "follows a blank",
            "quotes",
        ),
        (
            "Environment=HTTPS_PROXY=http://svc:hunter%m22@h:1",
            "HTTPS_PROXY",
            "replaces",
            "%%",
        ),
        (
            "EnvironmentFile=default/proxy",
            "HTTPS_PROXY and NO_PROXY",
            "no absolute path",
            "whole path",
        ),
    ] {
        let all = read(&[&format!("# c\n[Service]\n{line}\n")]);
        let [dropped] = all.dropped.as_slice() else {
            panic!("{line} {:?}", all.dropped);
        };
        assert_eq!(dropped.variable, variable, "{line}");
        assert!(dropped.reason.starts_with("0.conf, line 3: "), "{dropped}");
        assert!(dropped.reason.contains(reason), "{dropped}");
        assert!(dropped.hint.contains(hint), "{dropped:?}");
        assert!(!format!("{all:?}").contains("hunter"), "{all:?}");
    }
    let passing = read(&["[Service]\nPassEnvironment=HOME HTTPS_PROXY\n"]);
    assert!(passing.passed.unwrap().contains("HTTPS_PROXY"));
    // Other lines are nobody's concern here.
    let unit = "[Unit]\nDescription=HTTPS_PROXY of containerd\n[Service]\nExecStart=/bin/containerd \"x\nEnvironment=A=\u{201c}b c\u{201d}\nPassEnvironment=HOME\n";
    let all = read(&[unit]);
    assert_eq!((all.dropped.len(), all.passed), (0, None));
}

#[test]
fn a_file_without_sections_is_an_environment_file() {
    assert_eq!(
        set(&read(&["HTTPS_PROXY=http://a:1\n"])),
        ["HTTPS_PROXY=http://a:1"]
    );
    assert_eq!(
        set(&read(&["Environment=HTTPS_PROXY=http://a:1\n"])),
        [""; 0]
    );
    let exported = read(&["export HTTPS_PROXY=http://a:1\n"]);
    assert!(
        exported.dropped[0].reason.contains("export"),
        "{:?}",
        exported.dropped
    );
}

proptest! {
    #[test]
    fn any_text_is_read(text in "\\PC{0,200}", line in "[\\[\\]=\"'\\\\%A-Z_ \n#]{0,80}") {
        let _ = read(&[&text, &line]);
        let mut environment = Environment::default();
        environment.read_unit(&line, "x");
        environment.read_file(&line, "x");
    }
}
