use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde::Deserialize;

use super::answer::{Answer, MOST_ANSWERS, PasteError, explain};
use super::event::{EventKind, PullTimes, duration, read};
use super::failure::{self, ParsedFailure};
use super::judge::{Slow, judge};
use super::paste::MOST_PASTED;
use super::tally::{Limits, Tally, rate};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::reference::Reference;
use crate::model::units::Bytes;
use crate::redact::{MOST_SHOWN, shown};
use crate::workload::pod::Event;

/// A line of tests/data/pulls.yaml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    reason: String,
    message: String,
    says: String,
    image: Option<String>,
    pulling: Option<f64>,
    whole: Option<f64>,
    size: Option<u64>,
    #[serde(default)]
    names: Vec<String>,
    cause: Option<Cause>,
    #[serde(default)]
    or: Vec<Cause>,
    beneath: Option<Cause>,
    leg: Option<String>,
    host: Option<String>,
    address: Option<String>,
    server: Option<String>,
    status: Option<u16>,
    words: Option<String>,
    /// What must not be shown.
    #[serde(default)]
    hides: Vec<String>,
}

const CASES: &str = include_str!("../../tests/data/pulls.yaml");

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(CASES).unwrap()
}

#[test]
fn the_words_of_real_kubelets_and_runtimes_are_understood() {
    let cases = cases();
    assert!(cases.len() > 80, "{}", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(case: &Case) -> Result<(), String> {
    let same = |what: &str, got: String, wanted: String| {
        if got == wanted {
            return Ok(());
        }
        Err(format!(
            "{}\n  {what}: {got}\n  wanted: {wanted}",
            case.message
        ))
    };
    let said = read(&case.reason, &case.message);
    let says = said.as_ref().map_or("nothing", EventKind::as_str);
    same("says", says.to_owned(), case.says.clone())?;
    let Some(said) = said else { return Ok(()) };
    same(
        "image",
        format!("{:?}", said.image()),
        format!("{:?}", case.image.as_deref()),
    )?;
    match &said {
        EventKind::Pulled { took, .. } => {
            let seconds = |duration: Option<Duration>| format!("{duration:?}");
            let wanted =
                |seconds: Option<f64>| format!("{:?}", seconds.map(Duration::from_secs_f64));
            same("pulling", seconds(Some(took.pulling)), wanted(case.pulling))?;
            same("whole", seconds(took.including_waiting), wanted(case.whole))?;
            same(
                "size",
                format!("{:?}", took.size),
                format!("{:?}", case.size.map(Bytes)),
            )
        }
        EventKind::SecretsMissing { names } => same("names", names.join(","), case.names.join(",")),
        EventKind::Failed { image, text }
        | EventKind::SandboxFailed { image, text }
        | EventKind::NotInspected { image, text } => {
            let judged = failure::judge(image, text);
            let wanted = ParsedFailure {
                cause: case.cause,
                or: case.or.clone(),
                beneath: case.beneath,
                leg: judged.leg,
                host: case.host.clone(),
                address: case.address.clone(),
                server: case.server.clone(),
                status: case.status,
                message: case.words.clone(),
                confidence: judged.confidence,
                is_sent: judged.is_sent,
                is_sandbox: false,
            };
            same("judged", format!("{judged:?}"), format!("{wanted:?}"))?;
            let leg = judged.leg.map(|leg| leg.as_str().to_owned());
            same("leg", format!("{leg:?}"), format!("{:?}", case.leg))?;
            let all = format!("{}{judged:?}", shown(text));
            let hidden = case
                .hides
                .iter()
                .all(|secret| !all.contains(secret.as_str()));
            same("hidden", hidden.to_string(), true.to_string())
        }
        _ => Ok(()),
    }
}

/// A line of tests/data/words.yaml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordsCase {
    program: String,
    #[expect(dead_code, reason = "it is for readers")]
    source: String,
    message: String,
    cause: Cause,
    #[serde(default)]
    or: Vec<Cause>,
    confidence: Confidence,
}

const WORDS: &str = include_str!("../../tests/data/words.yaml");

fn words() -> Vec<WordsCase> {
    serde_saphyr::from_str(WORDS).unwrap()
}

/// The answer to the first message of a paste.
fn first(text: &str) -> Answer {
    let mut answers = explain(text).unwrap();
    answers.all.remove(0)
}

#[test]
fn each_message_of_the_table_has_its_cause() {
    let all = words();
    assert!(all.len() >= 300, "{}", all.len());
    let mut wrong = Vec::new();
    for case in &all {
        let answers = explain(&case.message).unwrap().all;
        let failure = &answers[0].failure;
        let got = (
            failure.cause,
            failure.or.clone(),
            failure.confidence,
            answers.len(),
        );
        let wanted = (Some(case.cause), case.or.clone(), Some(case.confidence), 1);
        if got != wanted {
            let program = &case.program;
            wrong.push(format!(
                "{program}: {}\n  {got:?}\n  {wanted:?}",
                case.message
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let high = all
        .iter()
        .filter(|case| case.confidence == Confidence::High);
    assert!(high.count() * 10 >= all.len() * 6, "most words are clear");
    for case in all
        .iter()
        .filter(|case| case.confidence == Confidence::High)
    {
        let variants: &[Cause] = &[Cause::DnsNodata, Cause::ManifestUnsupported];
        let is_variant = |other: &Cause| variants.contains(other);
        assert!(
            case.or.iter().all(is_variant),
            "{}: {:?}",
            case.message,
            case.or
        );
    }
}

/// Other programs report the same errors.
#[test]
fn texts_that_are_not_about_a_pull_have_no_cause() {
    for text in [
        "INFO[0003] Pushing image to registry.example.com/shop/app:2\nWARN[0003] Retrying operation after 1s due to PUT https://registry.example.com/v2/shop/app/manifests/2: MANIFEST_BLOB_UNKNOWN: blob unknown to registry",
        "Error writing blob: Patch \"https://registry.example.com/v2/shop/app/blobs/uploads/5c3f5598\": EOF",
        "ERROR: for web_1  Cannot start service web: error creating overlay mount to /var/lib/docker/overlay2/1a/merged: invalid argument",
        "unable to tag image: Error parsing reference: \"/app:1\" is not a valid repository/tag: invalid reference format",
        r#"Error from server (InternalError): failed calling webhook "images.example.com": Post "https://hook.shop.svc:443/admit-image?timeout=30s": x509: certificate relies on legacy Common Name field"#,
        r#"https://api.example.com/groups/shop?api-version=1: got HTTP response status code 403 error code "AuthorizationFailed": the client does not have authorization"#,
        r#"failed to list *v1.Node: Get "https://10.96.0.1:443/api/v1/nodes?limit=500": dial tcp 10.96.0.1:443: i/o timeout"#,
        "client rate limiter Wait returned an error: context deadline exceeded",
        "  Warning  Failed  20s  kubelet  Error: context deadline exceeded",
        "  Warning  FailedCreatePodSandBox  5s  kubelet  Failed to create pod sandbox: rpc error: code = DeadlineExceeded desc = context deadline exceeded",
        r#"  Warning  Failed  7s  kubelet  Error: failed to reserve container name "app_1": name "app_1" is reserved for "818f""#,
        "    State:          Waiting\n      Reason:       CreateContainerError\n      Message:      context deadline exceeded",
        "FATA[0002] connect: connect endpoint 'unix:///var/run/dockershim.sock', make sure you are running as root and the endpoint has been started: context deadline exceeded: dial unix /var/run/dockershim.sock: connect: no such file or directory",
        r#"connection error: desc = "transport: Error while dialing dial tcp 10.0.0.4:2379: connect: connection refused""#,
        r#"MountVolume.SetUp failed for volume "data": rpc error: code = Unavailable desc = dial unix /var/lib/kubelet/plugins/example/csi.sock: connect: connection refused"#,
    ] {
        let answers = explain(text).unwrap().all;
        let causes: Vec<_> = answers.iter().map(|one| one.failure.cause).collect();
        assert!(causes.iter().all(Option::is_none), "{text}: {causes:?}");
    }
    // The kubelet's own caches, for volumes and variables.
    for text in [
        r#"MountVolume.SetUp failed for volume "kube-api-access-x" : object "shop"/"kube-root-ca.crt" not registered"#,
        r#"MountVolume.SetUp failed for volume "conf" : failed to sync configmap cache: timed out waiting for the condition"#,
        "  Warning  Failed  7s  kubelet  Error: failed to sync secret cache: timed out waiting for the condition",
    ] {
        let answer = first(text);
        assert_eq!(answer.failure.cause, None, "{text}");
        assert!(
            answer.hint.starts_with("This is not about an image"),
            "{answer:?}"
        );
    }
}

/// The error fits, and nothing shows that it is a pull's.
#[test]
fn an_error_of_any_program_is_no_proof() {
    for (text, cause) in [
        (
            "dial tcp 203.0.113.7:443: connect: connection refused",
            Cause::TcpRefused,
        ),
        (
            "x509: certificate signed by unknown authority",
            Cause::TlsUnknownCa,
        ),
        (
            "write /data/app.log: no space left on device",
            Cause::DiskFull,
        ),
        ("context deadline exceeded", Cause::Deadline),
    ] {
        let failure = first(text).failure;
        assert_eq!(failure.cause, Some(cause), "{text}");
        assert_eq!(failure.confidence, Some(Confidence::Medium), "{text}");
        let of_pull = first(&format!(
            "Failed to pull image \"r.example.com/a:1\": {text}"
        ));
        assert_eq!(of_pull.failure.confidence, Some(Confidence::High), "{text}");
    }
}

/// A kubelet's vague line beside the clear one of its runtime.
#[test]
fn of_several_messages_about_an_image_the_clearest_is_first() {
    let text = "E1201 10:00:00.1 1 remote_image.go:108] PullImage \"r.example.com/a:1\" from image service failed: repository r.example.com/a not found: does not exist or no pull access\ntime=\"2026-12-01T10:00:00Z\" level=error msg=\"Not continuing with pull after error: denied: The security token included in the request is invalid\"";
    let answers = explain(text).unwrap().all;
    let causes: Vec<_> = answers.iter().map(|one| one.failure.cause).collect();
    assert_eq!(causes, [Some(Cause::AuthBadCred), Some(Cause::AuthNoCred)]);
}

#[test]
fn no_registry_is_blamed_or_probed_for_a_fault_of_the_node() {
    for case in words() {
        let answer = first(&case.message);
        let is_on_node = failure::is_on_node(case.cause);
        assert_eq!(answer.failure.is_on_node(), is_on_node, "{}", case.message);
        if is_on_node {
            assert_eq!(answer.probe, None, "{}", case.message);
            assert!(!answer.hint.contains("pullpath probe"), "{}", answer.hint);
        } else if let Some(image) = &answer.image
            && image.parse::<Reference>().is_ok()
        {
            let probe = answer.probe.unwrap();
            assert_eq!(probe, format!("pullpath probe {image}"));
        }
    }
}

/// The same error in the forms of other programs: the words decide, not what is around them.
#[test]
fn a_message_has_its_cause_in_every_form_in_which_it_is_pasted() {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let (mut forms, mut wrong) = (0, Vec::new());
    for case in words() {
        let text = case.message.as_str();
        let Some((image, error)) = text
            .strip_prefix("Failed to pull image \"")
            .and_then(|rest| rest.split_once("\": "))
            .filter(|_| !text.contains('\n') && !text.contains('\\'))
        else {
            continue;
        };
        let wrapped: Vec<String> = text
            .chars()
            .collect::<Vec<_>>()
            .chunks(97)
            .map(|line| line.iter().collect())
            .collect();
        let inner = quoted(error);
        for pasted in [
            wrapped.join("\n"),
            format!("  Warning  Failed     3m2s (x4 over 5m)  kubelet            {text}"),
            format!("5m          Warning   Failed    pod/app-1    {text}"),
            format!(
                "5m  Normal  BackOff  pod/app-1  Back-off pulling image \"{image}\"\n5m  Warning  Failed  pod/app-1  {text}\n5m  Warning  Failed  pod/app-1  Error: ErrImagePull"
            ),
            format!(
                "E1201 10:00:00.123456    4242 remote_image.go:180] \"PullImage from image service failed\" err=\"{inner}\" image=\"{image}\""
            ),
            format!(
                "Dec 01 10:00:00 node-1 kubelet[812]: E1201 10:00:00.123456     812 kuberuntime_image.go:55] \"Failed to pull image\" err=\"{inner}\" image=\"{image}\""
            ),
            format!(
                "E1201 10:00:00.123456 812 pod_workers.go:1301] \"Error syncing pod, skipping\" err=\"failed to \\\"StartContainer\\\" for \\\"app\\\" with ErrImagePull: \\\"{}\\\"\" pod=\"shop/app-1\" podUID=\"4c31\"",
                quoted(&inner)
            ),
            format!(
                "time=\"2026-12-01T10:00:00Z\" level=error msg=\"PullImage \\\"{image}\\\" failed\" error=\"{inner}\""
            ),
            format!("FATA[0012] pulling image: {error}"),
            format!("Back-off pulling image \"{image}\": ErrImagePull: {error}"),
        ] {
            let got = first(&pasted).failure.cause;
            if got != Some(case.cause) {
                wrong.push(format!("{pasted}\n  {got:?}, wanted {:?}", case.cause));
            }
            forms += 1;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {forms}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(forms > 1000, "{forms}");
}

#[test]
fn a_paste_of_several_messages_has_an_answer_for_each_and_repeated_ones_once() {
    let refused = |image: &str, port: u16| {
        format!(
            "  Warning  Failed  3m (x4 over 5m)  kubelet  Failed to pull image \"{image}\": rpc error: code = Unknown desc = failed to resolve reference \"{image}\": failed to do request: Head \"https://r.example.com/v2/a/manifests/1\": read tcp 10.0.0.7:{port}->10.0.0.9:443: read: connection reset by peer"
        )
    };
    let text = [
        "Node:             node-7/10.0.0.7".to_owned(),
        "Events:".to_owned(),
        "  Type     Reason   Age   From     Message".to_owned(),
        "  ----     ------   ----  ----     -------".to_owned(),
        "  Normal   Pulling  3m    kubelet  Pulling image \"r.example.com/a:1\"".to_owned(),
        refused("r.example.com/a:1", 4001),
        refused("r.example.com/a:1", 4002),
        refused("r.example.com/b:1", 4003),
        "  Warning  Failed  3m  kubelet  Error: ErrImagePull".to_owned(),
        "  Warning  Failed  3m  kubelet  Failed to pull image \"busybox\": pull QPS exceeded"
            .to_owned(),
        "  Normal   BackOff  3m  kubelet  Back-off pulling image \"busybox\"".to_owned(),
    ]
    .join("\n");
    let answers = explain(&text).unwrap().all;
    let got: Vec<_> = answers
        .iter()
        .map(|one| {
            let image = one.image.as_deref().unwrap();
            (image, one.count, one.failure.cause.unwrap())
        })
        .collect();
    assert_eq!(
        got,
        [
            ("r.example.com/a:1", 2, Cause::TcpReset),
            ("r.example.com/b:1", 1, Cause::TcpReset),
            ("busybox", 1, Cause::KubeletQps),
        ]
    );
    assert_eq!(answers[0].node.as_deref(), Some("node-7"));
    assert!(answers[0].hint.contains("on node-7"), "{}", answers[0].hint);
    assert_eq!(
        answers[0].probe.as_deref(),
        Some("pullpath probe r.example.com/a:1")
    );
}

#[test]
fn what_is_no_failure_of_a_pull_has_no_cause() {
    for text in [
        "hello world",
        "Back-off pulling image \"swr.cn-north-4.myhuaweicloud.com/grp/app:1\"",
        "Error: ImagePullBackOff",
        "Error: secret \"login\" not found",
        "0/3 nodes are available: 3 Insufficient cpu.",
        "Back-off restarting failed container app in pod app-1_shop(4c310869)",
        "Readiness probe failed: Get \"http://10.0.0.7:8080/healthz\": dial tcp 10.0.0.7:8080: connect: connection refused",
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"1a\": plugin type=\"calico\" failed (add): connection is unauthorized: Unauthorized",
        "MountVolume.SetUp failed for volume \"config\" : configmap \"app\" not found",
    ] {
        let answer = first(text);
        assert_eq!(answer.failure.cause, None, "{text}");
        assert_eq!(answer.failure.confidence, None, "{text}");
        assert!(!answer.hint.is_empty(), "{text}");
    }
}

/// A repository may have any words in its name.
#[test]
fn the_words_of_a_name_are_no_words_of_a_message() {
    for name in [
        "envoyproxy/ratelimit",
        "acme/expired-token",
        "a/dial-unix",
        "x/rate-exceeded",
        "b/unexpected-eof",
    ] {
        let image = format!("r.example.com/{name}:1");
        let text = format!(
            "Failed to pull image \"{image}\": rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
        );
        assert_eq!(
            first(&text).failure.cause,
            Some(Cause::ManifestUnknown),
            "{text}"
        );
        let text = format!(
            "Failed to pull image \"{image}\": unexpected status from HEAD request to https://r.example.com/v2/{name}/manifests/1: 503 Service Unavailable"
        );
        assert_eq!(
            first(&text).failure.cause,
            Some(Cause::Registry5xx),
            "{text}"
        );
    }
}

/// What was sent decides what a refusal means.
#[test]
fn a_refusal_without_a_credential_does_not_praise_the_credential() {
    const DENIED: &str = "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed";
    let of = |text: &str| failure::judge("r.example.com/a:1", text);
    assert_eq!(of(DENIED).cause, Some(Cause::AuthNoCred));
    let two =
        format!("[failed to pull image \"a\": {DENIED}, failed to pull image \"a\": {DENIED}]");
    let both = of(&two);
    assert_eq!(
        (both.cause, both.is_sent),
        (Some(Cause::AuthDenied), Some(true))
    );
}

#[test]
fn an_image_of_a_sandbox_needs_no_secret_of_a_pod() {
    let text = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image \"r.example.com/pause:3\": failed to pull image \"r.example.com/pause:3\": failed to pull and unpack image \"r.example.com/pause:3\": failed to resolve reference \"r.example.com/pause:3\": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials";
    let answer = first(text);
    assert_eq!(answer.failure.cause, Some(Cause::AuthNoCred));
    assert!(answer.failure.is_sandbox);
    assert!(
        answer.hint.contains("Secrets of pods do not apply"),
        "{}",
        answer.hint
    );
    assert!(!answer.hint.contains("imagePullSecret"), "{}", answer.hint);
    let mut tally = underway();
    tally.take(&event(1, "FailedCreatePodSandBox", text, 2, 10, 10), at(10));
    assert_eq!(tally.counts["sandbox_failed"], 2);
    assert_eq!(failures(&tally), 2);
}

#[test]
fn secrets_of_a_paste_are_masked_in_all_of_its_answer() {
    let text = "$ docker login -u me -p hunter2 r.example.com\nError response from daemon: Get \"https://me:hunter2@r.example.com/v2/a/manifests/1?sig=hunter2\": error parsing HTTP 500 response body: Authorization: Bearer hunter2hunter2";
    let answers = explain(text).unwrap();
    assert!(!format!("{answers:?}").contains("hunter2"), "{answers:?}");
}

#[test]
fn a_paste_is_bounded_and_hostile_text_costs_no_more_than_its_length() {
    assert_eq!(explain(" \n\t"), Err(PasteError::Empty));
    assert_eq!(
        explain(&"x".repeat(MOST_PASTED + 1)),
        Err(PasteError::TooLong)
    );
    for piece in [
        "x",
        "\"",
        "[",
        "\\\"",
        "://",
        "err=\"",
        "x509: \n",
        "rpc error: code = ",
        "dial tcp: lookup ",
        "project a ",
        "Failed to pull image \"a\": ",
        "error: ",
        "Get \"https://a/v2/\n",
        "\u{1b}[",
    ] {
        let text: String = piece.repeat(MOST_PASTED / piece.len());
        let begun = std::time::Instant::now();
        let answers = explain(&text).unwrap();
        // Without optimization, on a busy machine; a quadratic scan would take an hour.
        assert!(
            begun.elapsed() < Duration::from_mins(2),
            "{piece:?}: {:?}",
            begun.elapsed()
        );
        assert!(answers.all.len() <= MOST_ANSWERS, "{piece:?}");
    }
}

/// Each cause that a message can show has a real text in the table.
#[test]
fn the_table_has_what_is_common() {
    let judged: Vec<Cause> = cases().iter().filter_map(|case| case.cause).collect();
    for cause in [
        Cause::DnsNxdomain,
        Cause::TcpTimeout,
        Cause::TlsUnknownCa,
        Cause::AuthNoCred,
        Cause::AuthBadCred,
        Cause::AuthDenied,
        Cause::ManifestUnknown,
        Cause::RateLimited,
        Cause::RedirectBlob,
        Cause::AuthRealmUnreachable,
        Cause::KubeletQps,
        Cause::DiskFull,
        Cause::Deadline,
        Cause::AuthBadChallenge,
        Cause::AuthTokenFormat,
        Cause::RequestRefused,
        Cause::ContentEncoding,
        Cause::LayerInvalid,
        Cause::ManifestUnsupported,
        Cause::RedirectBroken,
    ] {
        assert!(judged.contains(&cause), "{}", cause.code());
    }
}

#[test]
fn durations_are_those_of_go() {
    for (text, seconds) in [
        ("1.5s", Some(1.5)),
        ("313ms", Some(0.313)),
        ("1m0s", Some(60.0)),
        ("2h3m4s", Some(7384.0)),
        ("0s", Some(0.0)),
        ("5", None),
        ("", None),
        ("s", None),
        ("1.2.3s", None),
        ("-1s", None),
        ("1d", None),
        ("25h", None),
        ("99999999999999999999h", None),
    ] {
        let read = duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(read, seconds, "{text}");
    }
}

#[test]
fn what_signs_or_logs_in_is_not_shown() {
    for (text, wanted) in [
        (
            "Get \"https://me:pass@r.example.com/v2/\": EOF",
            "Get \"https://***@r.example.com/v2/\": EOF",
        ),
        (
            "to https://s.example.com/x?X-Amz-Signature=abc&ns=docker.io: 403 Forbidden",
            "to https://s.example.com/x?X-Amz-Signature=***&ns=docker.io: 403 Forbidden",
        ),
        (
            "Authorization: Bearer abcdefghijkl, and then",
            "Authorization: Bearer ***, and then",
        ),
        ("Basic dXNlcjpwYXNz next", "Basic *** next"),
        ("no basic auth credentials", "no basic auth credentials"),
        ("a eyJhbGciOiJIUzI1NiJ9.e30.abc b", "a *** b"),
        ("password=hunter2 x", "password=*** x"),
        (
            "{\"auth\": \"dTpw\", \"password\":\"hunter2\"}",
            "{\"auth\": \"***\", \"password\":\"***\"}",
        ),
        (
            "docker login -u me -p hunter2 r.example.com",
            "docker login -u me -p *** r.example.com",
        ),
        (
            "crictl pull --creds me:x r/a:1",
            "crictl pull --creds *** r/a:1",
        ),
        ("token ghp_abcdefgh1234 is", "token *** is"),
        ("docker run -p 8080:80 a", "docker run -p 8080:80 a"),
        (
            "incorrect username or password provided",
            "incorrect username or password provided",
        ),
        ("https://a/b, https://c/?d", "https://a/b, https://c/?d"),
        ("x://", "x://"),
    ] {
        assert_eq!(shown(text), wanted);
    }
    assert_eq!(shown(&"x".repeat(5000)).chars().count(), MOST_SHOWN);
    assert!(!shown("a\u{1b}[31m").contains('\u{1b}'));
}

fn took(pulling: f64, whole: f64, size: u64) -> PullTimes {
    PullTimes {
        pulling: Duration::from_secs_f64(pulling),
        including_waiting: Some(Duration::from_secs_f64(whole)),
        size: Some(Bytes(size)),
    }
}

#[test]
fn slow_pulls_are_said_to_queue_or_to_unpack_and_nothing_else() {
    let cause = |pulls: &[PullTimes], node_rate| judge(pulls, node_rate).map(|slow| slow.cause);
    let queueing = [took(5.0, 40.0, 100 << 20); 4];
    assert_eq!(cause(&queueing, None), Some(Cause::SerialPull));
    assert_eq!(cause(&queueing[..2], None), None, "two are chance");
    let short = [took(0.5, 2.0, 100 << 20); 4];
    assert_eq!(cause(&short, None), None, "a wait that nobody minds");
    let pulling = [took(60.0, 61.0, 100 << 20); 4];
    assert_eq!(
        cause(&pulling, None),
        None,
        "nobody knows what the network has"
    );
    assert_eq!(cause(&pulling, Some(12.5e6)), Some(Cause::DiskUnpack));
    assert_eq!(cause(&pulling, Some(3e6)), None, "the network has no more");
    let small = [took(60.0, 61.0, 1 << 20); 4];
    assert_eq!(
        cause(&small, Some(12.5e6)),
        None,
        "handshakes, not unpacking"
    );
    let old = PullTimes {
        including_waiting: None,
        size: None,
        ..pulling[0]
    };
    assert_eq!(
        cause(&[old; 4], Some(12.5e6)),
        None,
        "the time may be waiting"
    );
    assert_eq!(cause(&[], Some(1.0)), None);
}

#[test]
fn a_rate_is_reported_only_of_what_may_be_one() {
    assert_eq!(rate(took(10.0, 10.0, 10_000_000)), Some(1e6));
    assert_eq!(
        rate(took(0.3, 0.3, 64_753_325)),
        None,
        "nothing was fetched"
    );
    assert_eq!(
        rate(took(2.5, 2.5, 1_500_000_000)),
        None,
        "a registry that is slow to say that nothing is new"
    );
    let without = PullTimes {
        including_waiting: None,
        ..took(10.0, 10.0, 1)
    };
    assert_eq!(rate(without), None);
}

#[test]
fn a_hint_says_what_else_it_may_be_and_where_to_ask() {
    let hint =
        |image: &str, text: &str| super::advice::hint(&failure::judge(image, text), image, "n1");
    let denied = hint(
        "r.example.com/a:1",
        "unexpected status from HEAD request to https://r.example.com/v2/a/manifests/1: 403 Forbidden",
    );
    assert!(
        denied.contains("fits fw_403 and auth_no_cred: `pullpath probe r.example.com/a:1` on n1"),
        "{denied}"
    );
    let sure = hint("busybox", "pull QPS exceeded");
    assert_eq!(
        sure,
        format!("No registry is at fault. {}", Cause::KubeletQps.entry().fix)
    );
    assert!(
        hint("busybox", "something")
            .contains("`pullpath probe busybox` on n1: it makes the same requests")
    );
    let mirror = failure::judge(
        "busybox",
        "Head \"https://mirror.example.com/v2/library/busybox/manifests/1?ns=docker.io\": dial tcp 10.1.2.3:443: connect: connection refused",
    );
    let facts = super::advice::facts(&mirror, "busybox");
    assert!(facts[0].contains("not the image's registry"), "{facts:?}");
    assert_eq!(facts[1], "dialed 10.1.2.3:443");
}

// ---- tallies ------------------------------------------------------------------------------------

const LIMITS: Limits = Limits {
    max_pairs: 3,
    idle: Duration::from_hours(1),
    node_rates: BTreeMap::new(),
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn event(uid: u128, reason: &str, message: &str, count: u64, first: i64, last: i64) -> Event {
    Event {
        uid: format!("{uid:032x}"),
        namespace: "shop".to_owned(),
        pod: "app-1".to_owned(),
        container: "app".to_owned(),
        node: "n1".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        is_warning: false,
        count,
        first: Some(at(first)),
        last: Some(at(last)),
    }
}

const FAILED: &str = "Failed to pull image \"r.example.com/a:1\": rpc error: code = Unknown desc = failed to resolve reference: failed to do request: Head \"https://r.example.com/v2/a/manifests/1\": dial tcp 10.0.0.9:443: i/o timeout";
const PULLED: &str = "Successfully pulled image \"r.example.com/a:1\" in 8s (16s including waiting). Image size: 8000000 bytes.";

fn failures(tally: &Tally) -> u64 {
    let all = tally.pairs.values();
    all.flat_map(|pair| pair.failures.values()).sum()
}

fn underway() -> Tally {
    let mut tally = Tally::new(LIMITS, at(0));
    tally.list_begins();
    tally.list_ends(at(0));
    tally
}

#[test]
fn each_occurrence_counts_once() {
    let mut tally = underway();
    let now = at(100);
    tally.take(&event(1, "Failed", FAILED, 1, 10, 10), now);
    tally.take(&event(1, "Failed", FAILED, 1, 10, 10), now);
    assert_eq!(failures(&tally), 1, "shown twice");
    tally.take(&event(1, "Failed", FAILED, 4, 10, 40), now);
    assert_eq!(failures(&tally), 4, "it has risen");
    // A new watch begins, and everything is listed again.
    tally.list_begins();
    tally.take(&event(1, "Failed", FAILED, 5, 10, 50), now);
    tally.list_ends(now);
    assert_eq!(failures(&tally), 5);
    assert_eq!(tally.counts["failed"], 5);
    let key = ("r.example.com".into(), "n1".into());
    assert_eq!(tally.pairs[&key].failures[&Cause::TcpTimeout], 5);
    // Whoever leaves the list is forgotten.
    tally.list_begins();
    tally.list_ends(now);
    tally.take(&event(1, "Failed", FAILED, 1, 60, 60), now);
    assert_eq!(failures(&tally), 6, "another one of the same name");
}

#[test]
fn what_happened_before_is_shown_and_not_counted() {
    let now = at(60);
    let mut tally = Tally::new(LIMITS, at(50));
    tally.list_begins();
    tally.take(&event(1, "Failed", FAILED, 7, 10, 40), now);
    assert_eq!(tally.failing.len(), 0, "the list is not complete");
    // The newest of seven is later, and all of the last three.
    tally.take(&event(2, "Failed", FAILED, 7, 10, 55), now);
    tally.take(&event(3, "Failed", FAILED, 3, 52, 55), now);
    tally.list_ends(now);
    assert_eq!((failures(&tally), tally.failing.len()), (4, 1));
    // From the watch: new, whatever a node's clock shows.
    tally.take(&event(4, "Failed", FAILED, 1, 5, 5), now);
    assert_eq!(failures(&tally), 5);
    // Another replica was at it in between.
    tally.begin(at(80));
    tally.list_begins();
    tally.take(&event(2, "Failed", FAILED, 9, 10, 70), at(90));
    tally.list_ends(at(90));
    assert_eq!(failures(&tally), 5);
}

#[test]
fn a_pull_ends_the_failure_and_is_measured() {
    let mut tally = underway();
    tally.take(&event(1, "Failed", FAILED, 1, 10, 10), at(10));
    tally.take(
        &event(
            2,
            "BackOff",
            "Back-off pulling image \"r.example.com/a:1\"",
            3,
            11,
            30,
        ),
        at(30),
    );
    let failing = tally.failing.values().next().unwrap();
    assert_eq!(
        (failing.last, failing.failure.cause),
        (at(30), Some(Cause::TcpTimeout))
    );
    tally.take(&event(3, "Pulled", PULLED, 1, 40, 40), at(40));
    assert!(tally.failing.is_empty());
    let pair = tally.pairs.values().next().unwrap();
    assert_eq!(
        (
            pair.duration.count(),
            pair.waiting.count(),
            pair.throughput.count()
        ),
        (1, 1, 1)
    );
    assert!((pair.waiting.sum() - 8.0).abs() < 1e-9);
    assert!((pair.throughput.sum() - 1e6).abs() < 1e-3);
    // Again: the node has it now, so the second pull shows no rate.
    tally.take(&event(4, "Pulled", PULLED, 1, 50, 50), at(50));
    let pair = tally.pairs.values().next().unwrap();
    assert_eq!((pair.duration.count(), pair.throughput.count()), (2, 1));
    assert_eq!(tally.newest.len(), 2);
    assert_eq!(tally.newest[0].at, at(50));
}

/// The kubelet reports the images of volumes for the pod: two volumes are distinguished by their image.
#[test]
fn of_two_image_volumes_one_may_be_there_and_the_other_fail() {
    let of_pod = |uid, reason, message: &str, second| Event {
        container: String::new(),
        ..event(uid, reason, message, 1, second, second)
    };
    let mut tally = underway();
    tally.take(&of_pod(1, "Failed", FAILED, 10), at(10));
    let backs_off = "Back-off pulling image \"r.example.com/a:1\"";
    tally.take(&of_pod(2, "BackOff", backs_off, 20), at(20));
    let other = PULLED.replace("a:1", "b:1");
    tally.take(&of_pod(3, "Pulled", &other, 30), at(30));
    let state = event(4, "Failed", "Error: ErrImagePull", 1, 31, 31);
    tally.take(&state, at(31));
    let (key, failing) = tally.failing.iter().next().unwrap();
    assert_eq!(tally.failing.len(), 1, "{:?}", tally.failing);
    assert_eq!(
        (key.container.as_str(), key.volume.as_str()),
        ("", "r.example.com/a:1")
    );
    assert_eq!((failing.last, failing.count), (at(20), 1));
    assert_eq!(tally.newest[0].image, "r.example.com/b:1");
    tally.take(&of_pod(5, "Pulled", PULLED, 40), at(40));
    assert!(tally.failing.is_empty());
}

/// A node that builds has a tag for each build.
#[test]
fn images_beyond_the_bound_are_measured_as_the_first_ones_were() {
    let mut tally = underway();
    for n in 0..400_u32 {
        let text = PULLED.replace("a:1", &format!("a:{n}"));
        let second = 10 + i64::from(n);
        let uid = 1000 + n;
        tally.take(
            &event(uid.into(), "Pulled", &text, 1, second, second),
            at(second),
        );
        let pair = tally.pairs.values().next().unwrap();
        assert_eq!(pair.throughput.count(), u64::from(n) + 1);
    }
}

#[test]
fn a_failure_is_forgotten_when_nobody_speaks_of_it_any_more() {
    let mut tally = underway();
    tally.take(&event(1, "Failed", FAILED, 1, 10, 10), at(10));
    tally.tidy(at(10 + 10 * 60));
    assert_eq!(tally.failing.len(), 1);
    tally.tidy(at(10 + 12 * 60));
    assert_eq!((tally.failing.len(), tally.pairs.len()), (0, 1));
    tally.tidy(at(10 + 61 * 60));
    assert_eq!(tally.pairs.len(), 0, "idle");
}

#[test]
fn whatever_grows_has_a_bound() {
    let mut tally = underway();
    for n in 0..5_u32 {
        let mut one = event(n.into(), "Failed", FAILED, 1, 10, 10);
        one.node = format!("n{n}");
        tally.take(&one, at(10));
    }
    assert_eq!((tally.pairs.len(), tally.uncounted), (3, 2));
    for n in 0..3000_u32 {
        let message =
            format!("Failed to pull image \"r.example.com/a:1\": a text like no other, {n}");
        let mut one = event((100 + n).into(), "Failed", &message, 1, 10, 10);
        one.pod = format!("p{n}");
        tally.take(&one, at(10));
        tally.take(
            &event((9000 + n).into(), "Pulled", PULLED, 1, 10, 10),
            at(10),
        );
    }
    assert_eq!(tally.unknown_texts, 3000);
    assert!(tally.failing.len() <= 1000 && tally.unknown.len() <= 20 && tally.newest.len() <= 200);
}

#[test]
fn a_clock_that_is_ahead_keeps_nothing_alive() {
    let mut tally = underway();
    tally.take(&event(1, "Failed", FAILED, 1, 10, 100_000), at(10));
    tally.tidy(at(10 + 16 * 60));
    assert!(tally.failing.is_empty());
}

/// Real Events of a kubelet 1.20 (containerd 1.7.24), in each version in which the API server had them.
fn real_events() -> Vec<Event> {
    #[derive(Deserialize)]
    struct Line {
        uid: String,
        namespace: String,
        pod: String,
        container: String,
        reason: String,
        message: String,
        count: u64,
        first: Timestamp,
        last: Timestamp,
    }
    let lines = include_str!("../../tests/data/kubelet-events.jsonl").lines();
    let lines = lines.map(|line| serde_json::from_str::<Line>(line).unwrap());
    let event = |line: Line| Event {
        uid: line.uid,
        namespace: line.namespace,
        pod: line.pod,
        container: line.container,
        node: "node-a".to_owned(),
        reason: line.reason,
        message: line.message,
        is_warning: false,
        count: line.count,
        first: Some(line.first),
        last: Some(line.last),
    };
    lines.map(event).collect()
}

/// The newest version of each Event, as a list has it.
fn newest_versions(events: &[Event]) -> Vec<Event> {
    let mut newest: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in events {
        let known = newest.entry(&event.uid).or_insert(event);
        if known.count <= event.count {
            *known = event;
        }
    }
    newest.into_values().cloned().collect()
}

/// Pulls of a kubelet 1.30 beside them: two nodes, images that are pulled again or were present, long waits.
fn modern_events() -> Vec<Event> {
    let pulled = |uid: u32, second: i64| {
        let (image, waited) = (uid % 7, 9 + uid % 11);
        let text = format!(
            "Successfully pulled image \"r.example.com/a:{image}\" in 6s ({waited}s including waiting). Image size: {} bytes.",
            9_000_000 * (1 + uid % 5)
        );
        let text = if uid.is_multiple_of(6) {
            format!("Container image \"r.example.com/a:{image}\" already present on machine")
        } else {
            text
        };
        let mut one = event(uid.into(), "Pulled", &text, 1, second, second);
        one.node = format!("n{}", uid % 2);
        one.pod = format!("p{}", uid % 9);
        one
    };
    (1..80).map(|uid| pulled(uid, i64::from(uid / 2))).collect()
}

/// Everything that the tally holds after a list of these Events.
fn whole_state_after(listed: &[Event], max_pairs: usize) -> String {
    let limits = Limits {
        max_pairs,
        node_rates: BTreeMap::from([("r.example.com".into(), 1e8)]),
        idle: Duration::from_hours(1_000_000),
    };
    let now = listed.iter().filter_map(|event| event.last).max().unwrap();
    let mut tally = Tally::new(limits, at(20));
    tally.list_begins();
    for event in listed {
        tally.take(event, now);
    }
    tally.list_ends(now);
    tally.tidy(now);
    format!("{tally:#?}")
}

/// What the state shows after these Events, if they are listed, or watched in this order.
fn state_after(events: &[Event], is_list: bool) -> String {
    let limits = Limits {
        max_pairs: 100,
        ..LIMITS
    };
    let mut tally = Tally::new(limits, at(0));
    let now = events.iter().filter_map(|event| event.last).max().unwrap();
    tally.list_begins();
    if !is_list {
        tally.list_ends(now);
    }
    for event in events {
        tally.take(event, now);
    }
    if is_list {
        tally.list_ends(now);
    }
    let failures: Vec<_> = tally
        .pairs
        .iter()
        .map(|(key, pair)| (key, &pair.failures))
        .collect();
    let unknown = tally.unknown.iter();
    let unknown: Vec<_> = unknown.map(|one| (one.last, &one.text)).collect();
    format!(
        "{:#?}",
        (
            &tally.failing,
            &tally.secrets,
            &tally.counts,
            failures,
            unknown
        )
    )
}

/// Nothing of what a list shows depends on its order, not even what is left out at a bound.
#[test]
fn all_of_the_state_is_made_from_a_list() {
    let listed = [newest_versions(&real_events()), modern_events()].concat();
    let state = whole_state_after(&listed, 100);
    for word in ["SerialPull", "ManifestUnknown", "images: [", "recent: ["] {
        assert!(state.contains(word), "{word}");
    }
}

/// Another replica watched the pulls; this one takes over and lists them.
#[test]
fn why_pulls_are_slow_is_known_of_pulls_that_another_replica_counted() {
    let mut listed = modern_events();
    let mut tally = Tally::new(LIMITS, at(1000));
    let mut watching = underway();
    for event in &listed {
        watching.take(event, at(100));
    }
    listed.reverse();
    tally.list_begins();
    for event in &listed {
        tally.take(event, at(100));
    }
    tally.list_ends(at(100));
    let slow = |tally: &Tally| -> Vec<Option<Slow>> {
        tally.pairs.values().map(|pair| pair.slow.clone()).collect()
    };
    assert_eq!(slow(&tally), slow(&watching));
    assert!(slow(&tally).iter().all(Option::is_some));
    let counts = |tally: &Tally| -> Vec<u64> {
        let pairs = tally.pairs.values();
        pairs
            .map(|pair| pair.duration.count() + pair.throughput.count())
            .collect()
    };
    assert_eq!(counts(&tally), [0, 0]);
    // It loses the Lease and gets it back: the same pulls are listed again.
    watching.begin(at(1000));
    let (slow_before, counts_before) = (slow(&watching), counts(&watching));
    watching.list_begins();
    for event in &listed {
        watching.take(event, at(100));
    }
    watching.list_ends(at(100));
    assert_eq!(slow(&watching), slow_before);
    assert_eq!(counts(&watching), counts_before);
}

#[test]
fn a_newer_failure_counts_whatever_the_back_off_before_it_in_the_list() {
    let backs_off = "Back-off pulling image \"r.example.com/a:1\"";
    let qps = "Failed to pull image \"r.example.com/a:1\": pull QPS exceeded.";
    let mut tally = underway();
    tally.take(&event(1, "BackOff", backs_off, 9, 11, 60), at(60));
    tally.take(&event(2, "Failed", qps, 1, 10, 10), at(60));
    tally.take(&event(3, "Failed", FAILED, 4, 20, 50), at(60));
    let failing = tally.failing.values().next().unwrap();
    assert_eq!(failing.failure.cause, Some(Cause::TcpTimeout));
    assert_eq!((failing.first, failing.last), (at(10), at(60)));
    assert_eq!(failing.count, 5);
    // The image was there later, and the failure before it is listed after it.
    tally.take(&event(4, "Pulled", PULLED, 1, 70, 70), at(70));
    assert!(tally.failing.is_empty());
    tally.take(&event(5, "Failed", FAILED, 4, 20, 65), at(70));
    assert!(tally.failing.is_empty());
    let missing = |uid, names: &str, second| {
        let text = format!("Unable to retrieve some image pull secrets ({names}); …");
        event(uid, "FailedToRetrieveImagePullSecret", &text, 1, 5, second)
    };
    tally.take(&missing(6, "a, b", 60), at(70));
    tally.take(&missing(7, "b", 30), at(70));
    assert_eq!(tally.secrets.values().next().unwrap().names, ["a", "b"]);
}

/// A pod whose container the kubelet works on has its sandbox.
#[test]
fn a_pull_that_the_kubelet_did_not_try_replaces_no_failure_of_the_same_image() {
    const REFUSED: &str = "Failed to pull image \"r.example.com/a:1\": pull QPS exceeded";
    let other = REFUSED.replace("a:1", "a:2");
    let failed = event(1, "Failed", FAILED, 1, 10, 10);
    let refused = event(2, "Failed", REFUSED, 3, 20, 40);
    let of_other = event(3, "Failed", &other, 1, 50, 50);
    let state = |events: &[&Event]| {
        let mut tally = underway();
        for event in events {
            tally.take(event, at(60));
        }
        let counts = failures(&tally);
        let (_, failing) = tally.failing.pop_first().unwrap();
        (failing.failure.cause.unwrap(), failing.last, counts)
    };
    for order in [[&failed, &refused], [&refused, &failed]] {
        assert_eq!(state(&order), (Cause::TcpTimeout, at(40), 4));
    }
    assert_eq!(
        state(&[&refused]),
        (Cause::KubeletQps, at(40), 3),
        "nothing else is known"
    );
    // The pod has another image now.
    let all = [&failed, &refused, &of_other];
    assert_eq!(state(&all), (Cause::KubeletQps, at(50), 5));
}

#[test]
fn a_sandbox_that_was_made_is_no_failure_any_more() {
    let image = "registry.k8s.io/pause:3.9";
    let text = format!(
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image \"{image}\": failed to pull image \"{image}\": dial tcp 10.0.0.9:443: i/o timeout"
    );
    let failed = Event {
        container: String::new(),
        ..event(1, "FailedCreatePodSandBox", &text, 3, 10, 30)
    };
    let pulling = event(
        2,
        "Pulling",
        "Pulling image \"r.example.com/a:1\"",
        1,
        40,
        40,
    );
    for order in [[&failed, &pulling], [&pulling, &failed]] {
        let mut tally = underway();
        for event in order {
            tally.take(event, at(40));
        }
        assert!(tally.failing.is_empty(), "{:?}", tally.failing);
    }
    let mut tally = underway();
    tally.take(&failed, at(40));
    assert_eq!(tally.failing.len(), 1);
}

/// containerd's socket is down: that is the node's, whatever registry its images are from.
#[test]
fn a_runtime_that_does_not_answer_is_no_failure_of_each_registry() {
    let mut tally = underway();
    for (n, registry) in ["a.test", "b.test", "c.test"].into_iter().enumerate() {
        let text = format!(
            "Failed to inspect image \"{registry}/app:1\": rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing dial unix /run/containerd/containerd.sock: connect: no such file or directory\""
        );
        let one = Event {
            pod: format!("p{n}"),
            ..event(n as u128, "InspectFailed", &text, 1, 10, 10)
        };
        tally.take(&one, at(10));
    }
    assert_eq!(tally.failing.len(), 3);
    let is_of_node = |cause, registry: &str| (cause, registry) == (Some(Cause::RuntimeFault), "");
    let all = tally.failing.values();
    assert!(
        all.clone()
            .all(|one| is_of_node(one.failure.cause, &one.registry)),
        "{:?}",
        tally.failing
    );
    let key = ("".into(), "n1".into());
    assert_eq!(tally.pairs[&key].failures[&Cause::RuntimeFault], 3);
    assert_eq!(tally.pairs.len(), 1);
}

#[test]
fn a_list_has_the_same_result_as_the_watch_before_it() {
    let events = real_events();
    let watched = state_after(&events, false);
    assert!(watched.contains("ManifestUnknown") && watched.contains("KubeletQps"));
    assert_eq!(state_after(&newest_versions(&events), true), watched);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_order_of_events_changes_nothing(
        listed in Just([newest_versions(&real_events()), modern_events()].concat()).prop_shuffle(),
        max_pairs in prop_oneof![Just(2_usize), Just(100)],
    ) {
        let in_order = [newest_versions(&real_events()), modern_events()].concat();
        prop_assert_eq!(
            whole_state_after(&listed, max_pairs),
            whole_state_after(&in_order, max_pairs)
        );
    }
}

proptest! {
    #[test]
    fn no_text_panics(
        reason in prop::sample::select(vec!["Pulled", "Failed", "BackOff", "InspectFailed", "ErrImageNeverPull", "FailedToRetrieveImagePullSecret", "Pulling", ""]),
        message in ".{0,300}",
        image in ".{0,40}",
        count in 0..u64::MAX,
    ) {
        for message in [
            message.clone(),
            format!("Failed to pull image \"{image}\": {message}"),
            format!("Successfully pulled image \"{image}\" in {message}"),
            format!("Back-off pulling image {message}"),
        ] {
            let mut tally = underway();
            tally.take(&event(1, reason, &message, count, 1, 2), at(3));
            tally.tidy(at(4));
            let text = shown(&message);
            prop_assert!(text.chars().count() <= MOST_SHOWN);
            prop_assert!(!text.chars().any(char::is_control));
            let _ = failure::judge(&image, &message);
        }
    }

    /// Pieces of real texts in any order.
    #[test]
    fn no_mixture_of_real_words_panics(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "https://", "http://a@b:1/?x=y&", "dial tcp ", "lookup ", " on ", ": 403 Forbidden", "[", "]", "\"", "\\\"",
            ", rpc error: ", "not found", "?", "://", "Bearer ", "é", "Get \"", "request to ", "(", ")", " in ", "ms", "1.5s",
            "unauthorized: ", "StatusCode: 404", "eyJ", "password=", "=", "&", " including waiting", "Image size: ", " bytes",
        ]), 0..24),
    ) {
        let text = pieces.concat();
        let judged = failure::judge("r.example.com/a:1", &text);
        prop_assert!(judged.cause.is_some() || judged.or.is_empty());
        let _ = shown(&text);
        let _ = read("Failed", &format!("Failed to pull image \"a\": {text}"));
        let _ = read("Pulled", &format!("Successfully pulled image \"a\"{text}"));
        let _ = explain(&text);
    }
}
