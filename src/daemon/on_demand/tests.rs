use super::*;
use crate::workload::pod::{ContainerState, ReasonMessage};

fn request(body: &str) -> Request {
    Request::read(body.as_bytes()).unwrap()
}

fn pod(namespace: &str, name: &str, secrets: &[&str], image: &str, waits: bool) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        pull_secrets: secrets.iter().map(|name| (*name).to_owned()).collect(),
        containers: vec![Container {
            name: "app".to_owned(),
            kind: ContainerKind::Container,
            image: image.to_owned(),
            policy: None,
            is_sidecar: false,
            is_present: !waits,
            state: if waits {
                ContainerState::Waiting(ReasonMessage {
                    reason: "ImagePullBackOff".to_owned(),
                    message: String::new(),
                })
            } else {
                ContainerState::Running
            },
        }],
        ..Pod::default()
    }
}

fn planned(body: &str, config: &str, pods: &[Pod]) -> Result<Target, Refused> {
    let config = Config::parse(config).unwrap();
    let targets = Target::all(&config, &[]);
    plan(
        &request(body),
        &config,
        &targets,
        &Ok(pods.iter().collect()),
    )
}

#[test]
fn what_is_no_setting_is_reported_with_the_reason() {
    for (body, says) in [
        ("", "the body can't be read"),
        ("[]", "\"image\""),
        ("{}", "missing field `image`"),
        (
            r#"{"image": "r.test/a", "password": "x"}"#,
            "unknown field `password`",
        ),
        (
            r#"{"image": "r.test/a", "tier": "all"}"#,
            "unknown variant `all`",
        ),
        (
            r#"{"image": "r.test/A b"}"#,
            "image 'r.test/A b' is invalid",
        ),
        (
            r#"{"image": "r.test/a", "pod": {"namespace": "n/../x", "name": "p"}}"#,
            "pod.namespace is 'n/../x'",
        ),
        (
            r#"{"image": "r.test/a", "pod": {"namespace": "n", "name": "p", "uid": "1"}}"#,
            "unknown field `uid`",
        ),
        (
            r#"{"image": "r.test/a", "secrets": {"namespace": "n", "names": []}}"#,
            "1 to 16",
        ),
        (
            r#"{"image": "r.test/a", "secrets": {"namespace": "n", "names": ["a,b"]}}"#,
            "secrets.names is 'a,b'",
        ),
        (
            r#"{"image": "r.test/a", "pod": {"namespace": "n", "name": "p"}, "secrets": {"namespace": "n", "names": ["s"]}}"#,
            "give one of them",
        ),
    ] {
        let refused = Request::read(body.as_bytes()).unwrap_err();
        assert!(refused.contains(says), "{body}: {refused}");
    }
    let whole = request(
        r#"{"image": "r.test/a:1", "pod": null, "secrets": {"namespace": "n", "names": ["s", "t"]}, "tier": "path"}"#,
    );
    assert_eq!(whole.tier, Tier::Path);
    assert_eq!(whole.secrets.unwrap().names, ["s", "t"]);
    assert_eq!(request(r#"{"image": "nginx"}"#).tier, Tier::Reach);
}

#[test]
fn only_what_is_used_here_is_checked_unless_the_operator_says_otherwise() {
    let pods = [pod("shop", "a", &["pull"], "r.test/app:1", false)];
    let configured = "targets: [{name: mine, image: 'r.test/mine:1'}]";
    let ask = |image: &str| format!(r#"{{"image": "{image}"}}"#);
    let not_allowed = |refused: Result<Target, Refused>, says: &str| {
        let Err(Refused::NotAllowed(reason)) = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains(says), "{reason}");
    };
    assert!(planned(&ask("r.test/mine:1"), configured, &pods).is_ok());
    let of_pod = planned(&ask("r.test/app:1"), configured, &pods).unwrap();
    assert_eq!(of_pod.secrets.unwrap().names, ["pull"]);
    assert_eq!(of_pod.uses[0].pod, "a");
    // Another tag is another image.
    not_allowed(
        planned(&ask("r.test/app:2"), configured, &pods),
        "no pod of this node has it; set on_demand.images: any",
    );
    let any = "on_demand: {images: any}";
    let unknown = planned(&ask("r.test/app:2"), any, &pods).unwrap();
    assert_eq!((unknown.secrets, unknown.uses), (None, Vec::new()));
    not_allowed(
        planned(&ask("r.test/app:1"), "on_demand: {images: off}", &pods),
        "is off",
    );
}

#[test]
fn a_pod_brings_its_secrets_and_must_be_here_and_have_the_image() {
    let pods = [
        pod("shop", "a", &["pull", "other"], "r.test/app:1", true),
        pod("bank", "a", &[], "r.test/app:1", false),
    ];
    let ask = |image: &str, pod: &str| {
        format!(r#"{{"image": "{image}", "pod": {{"namespace": "shop", "name": "{pod}"}}}}"#)
    };
    let target = planned(&ask("r.test/app:1", "a"), "", &pods).unwrap();
    assert_eq!(target.secrets.unwrap().names, ["pull", "other"]);
    assert_eq!(target.uses.len(), 1);
    assert!(target.uses[0].waits);
    assert_eq!(
        planned(&ask("r.test/app:1", "b"), "", &pods).unwrap_err(),
        Refused::NoPod("pod shop/b is not on this node".to_owned())
    );
    let other = planned(&ask("r.test/app:2", "a"), "", &pods).unwrap_err();
    assert_eq!(other.as_str(), "not_allowed");
    let any = planned(&ask("r.test/app:2", "a"), "on_demand: {images: any}", &pods).unwrap();
    assert_eq!(any.uses[0].container, "");
    let config = Config::default();
    for (why, says) in [
        (NOT_WATCHED, "kubernetes.discover is off"),
        (NOT_LISTED, "has not listed"),
    ] {
        let refused =
            plan(&request(&ask("r.test/app:1", "a")), &config, &[], &Err(why)).unwrap_err();
        assert!(
            matches!(&refused, Refused::NoPod(reason) if reason.contains(says)),
            "{refused:?}"
        );
    }
}

#[test]
fn secrets_may_be_named_as_far_as_they_are_read_anyway() {
    let pods = [pod("shop", "a", &["pull"], "r.test/app:1", false)];
    let ask = |name: &str| {
        format!(
            r#"{{"image": "r.test/app:1", "secrets": {{"namespace": "shop", "names": ["{name}"]}}}}"#
        )
    };
    let files = "kubernetes: {secrets: discovered, credential: {docker_config: /etc/c}}\n";
    let target = planned(&ask("pull"), files, &pods).unwrap();
    assert_eq!(target.secrets.unwrap().names, ["pull"]);
    assert_eq!(target.credential, crate::config::CredentialFiles::default());
    let refused = planned(&ask("others"), files, &pods).unwrap_err();
    assert!(matches!(&refused, Refused::NotAllowed(reason) if reason.contains("shop/others")));
    let any = format!("{files}on_demand: {{images: any}}\n");
    assert!(planned(&ask("others"), &any, &pods).is_ok());
    // Which of a list are read is said by the report.
    assert!(planned(&ask("others"), "kubernetes: {secrets: none}", &pods).is_ok());
}

#[test]
fn whoever_waits_is_the_one_as_whom_it_is_pulled() {
    let pods = [
        pod("a", "a", &[], "r.test/app:1", false),
        pod("b", "b", &["pull"], "r.test/app:1", true),
    ];
    let target = planned(r#"{"image": "r.test/app:1"}"#, "", &pods).unwrap();
    assert_eq!(target.uses[0].pod, "b");
    assert_eq!(target.uses.len(), 1);
}

#[test]
fn so_many_in_a_minute_and_the_registries_are_bounded() {
    let at = |seconds: u64| Moment(Duration::from_secs(1_000_000 + seconds));
    let mut pace = Pace::default();
    let registry: Arc<str> = Arc::from("r.test");
    for second in 0..3 {
        assert_eq!(pace.may(3, "", at(second * 10)), Ok(()));
        pace.begin(&registry, "shop", at(second * 10));
    }
    assert_eq!(pace.may(3, "", at(30)), Err(Duration::from_secs(30)));
    assert_eq!(pace.may(1, "", at(30)), Err(Duration::from_secs(50)));
    assert_eq!(pace.may(3, "", at(60)), Ok(()));
    for number in 0..100 {
        pace.begin(&Arc::from(format!("r{number}.test")), "", at(60));
    }
    assert_eq!(pace.registries.len(), MOST_REGISTRIES);
    assert!(pace.knows("r99.test") && !pace.knows("r.test"));
}

/// One namespace can't use all checks of a minute up, and one that had none need not wait for it.
#[test]
fn the_last_checks_of_a_minute_are_for_namespaces_that_had_none() {
    let at = |seconds: u64| Moment(Duration::from_secs(1_000_000 + seconds));
    let (mut pace, registry) = (Pace::default(), Arc::from("r.test"));
    for second in 0..7 {
        assert_eq!(pace.may(10, "big", at(second)), Ok(()));
        pace.begin(&registry, "big", at(second));
    }
    assert_eq!(pace.may(10, "big", at(30)), Err(Duration::from_secs(30)));
    assert_eq!(pace.may(10, "shop", at(30)), Ok(()));
    pace.begin(&registry, "shop", at(30));
    assert_eq!(pace.may(10, "shop", at(30)), Err(Duration::from_secs(31)));
    assert_eq!(pace.may(10, "", at(30)), Ok(()));
}
