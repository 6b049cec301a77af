use super::*;

#[test]
fn a_whole_file_is_read() {
    let config = Config::parse(
        "network:
  provider: huawei
  cluster_network: cloud_native2
  cidrs:
    - cidr: 10.8.0.0/16
      class: vpc_peering
      name: shared services
    - {cidr: 'fd12::/16', class: direct_connect_vpn}
    - {cidr: 10.9.0.7, class: intranet}
  service_cidrs: [10.247.0.0/16]
  snat_addresses: [121.36.9.9]
  eip_bandwidth_mbit: 20
  node_external_ips: ['2001:db8::1']
  node_provider_id: 'openstack:///1'
  metadata: off
  baseline: 10.0.0.1:443
  controls: ['www.example.com:443', '[2001:db8::1]:443']
  egress:
    echo: ['https://echo.example.com/ip']
    samples: 6
  pod_annotations: /etc/podinfo/annotations
  expect:
    - {host: '*.example.com', classes: [intranet, vpc_peering]}
",
    )
    .unwrap();
    let network = &config.network;
    let declared = network.declared();
    assert_eq!(declared.cidrs.len(), 3);
    assert_eq!(declared.eip_bandwidth_mbit, Some(20));
    assert_eq!(declared.cidrs[2].cidr.to_string(), "10.9.0.7/32");
    assert_eq!(declared.cidrs[0].name.as_deref(), Some("shared services"));
    assert_eq!(network.metadata, MetadataMode::Off);
    assert_eq!(network.egress.echo.len(), 1);
    assert_eq!(network.controls[1].to_string(), "[2001:db8::1]:443");
    assert_eq!(network.egress.samples, CountWithin(6));
    for empty in ["", "network: {}\n", "# nothing\n"] {
        assert!(Config::parse(empty).is_ok(), "{empty:?}");
    }
}

#[test]
fn the_example_in_the_documentation_is_taken() {
    let text = include_str!("../../docs/paths.md");
    let example = text.split("```yaml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    assert!(example.starts_with("network:"), "{example}");
    let config = Config::parse(example).unwrap();
    assert_eq!(config.network.declared().cidrs.len(), 3);
    assert_eq!(config.network.controls.len(), 1);
}

#[test]
fn what_is_wrong_is_reported_with_its_line_and_the_fix() {
    for (text, line, says) in [
        ("network:\n  cidr: []\n", 2, "cidr"),
        ("nettwork: {}\n", 1, "network"),
        (
            "network:\n  cidrs:\n    - {cidr: 10.8.1.0/16, class: intranet}\n",
            3,
            "write 10.8.0.0/16",
        ),
        (
            "network:\n  cidrs:\n    - {cidr: 10.8.0.0/16, class: vpc}\n",
            3,
            "vpc_peering",
        ),
        (
            "network:\n  cidrs:\n    - {cidr: ten, class: intranet}\n",
            3,
            "10.8.0.0/16",
        ),
        (
            "network:\n  cidrs:\n    - {cidr: 10.8.0.0/16, class: intranet}\n    - {cidr: 10.8.0.0/16, class: vpc_peering}\n",
            4,
            "at line 3",
        ),
        ("network:\n  controls: [example.com]\n", 2, "HOST:PORT"),
        ("network:\n  controls: ['2001:db8::1']\n", 2, "HOST:PORT"),
        ("network:\n  egress: {samples: 99}\n", 2, "1 to 16"),
        ("network:\n  metadata: azure\n", 2, "auto"),
        ("network:\n  baseline: near\n", 2, "10.0.0.1:443"),
        (
            "network:\n  nat64_prefixes: ['2a0a:64::/88']\n",
            2,
            "no prefix of NAT64",
        ),
        (
            "network:\n  snat_addresses: [nat]\n",
            2,
            "not an IP address",
        ),
        ("network: [\n", 1, "key: value"),
        ("targets: {}\n", 1, "a list"),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.what.contains(says), "{text}: {error}");
        assert!(!error.what.contains('\n'), "{error}");
        if line > 0 {
            assert_eq!(
                error.at.map(|(line, _)| line),
                Some(line),
                "{text}: {error}"
            );
        }
    }
    let secret = Config::parse("network: {egress: {echo: ['https://u:hunter2@e.test/']}}");
    assert!(!secret.unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn a_removed_key_names_the_one_that_replaces_it() {
    for text in [
        "network:\n  egress:\n    stun: [stun.example.com]\n",
        "network:\n  metadata: off\n  egress: {samples: 4, stun: []}\n",
    ] {
        let error = Config::parse(text).unwrap_err();
        assert_eq!(error.at.map(|(line, _)| line), Some(3), "{error}");
        let says = "network.egress.stun was removed; use network.egress.echo";
        assert!(error.what.starts_with(says), "{error}");
    }
    // Elsewhere it was never a key.
    let error = Config::parse("network:\n  stun: []\n").unwrap_err();
    assert!(error.what.starts_with("unknown key"), "{error}");
    // `a.b` as `{a: {b: ~}}`.
    let file = |path: &str| {
        let depth = path.split('.').count();
        format!("{{{}: ~{}", path.replace('.', ": {"), "}".repeat(depth))
    };
    for Replaced { old, new, .. } in REPLACED {
        let error = Config::parse(&file(old)).unwrap_err();
        assert!(
            error.what.starts_with(old) && error.what.contains(new),
            "{error}"
        );
        let error = Config::parse(&file(new)).map_err(|error| error.what);
        assert!(!error.is_err_and(|m| m.contains("unknown key")), "{new}");
    }
    let file = serde_json::json!({"a": [{"b": 1}, {"c": {"d": null}}]});
    for (path, has) in [("a.b", true), ("a.c.d", true), ("a.d", false), ("b", false)] {
        assert_eq!(has_key(&file, path), has, "{path}");
    }
}

/// An older ConfigMap ends the program at its start: it explains each key that the changes list.
#[test]
fn each_key_that_the_changes_rename_or_remove_is_explained() {
    let changes = include_str!("../../CHANGELOG.md");
    let rows = changes
        .lines()
        .filter_map(|line| line.strip_prefix("| configuration | "));
    let first_code = |cell: &str| cell.split('`').nth(1).unwrap().to_owned();
    let listed: Vec<(String, String)> = rows
        .map(|row| {
            let (old, new) = row.split_once(" | ").unwrap();
            (first_code(old), first_code(new))
        })
        .collect();
    let mut known: Vec<(String, String)> = REPLACED
        .iter()
        .map(|key| (key.old.to_owned(), key.new.to_owned()))
        .collect();
    let mut listed_sorted = listed.clone();
    listed_sorted.sort();
    known.sort();
    assert_eq!(listed_sorted, known);
    for (old, new) in listed {
        let (section, key) = old.rsplit_once('.').unwrap();
        let mut text = String::from("listen: \":9797\"\n");
        for (depth, name) in section.split('.').enumerate() {
            text = text + &"  ".repeat(depth) + name + ":\n";
        }
        let depth = section.split('.').count();
        text = text + &"  ".repeat(depth) + key + ": 5\n";
        let error = Config::parse(&text).unwrap_err().to_string();
        let line = format!("line {} column {}: {old} ", depth + 2, 2 * depth + 1);
        assert!(error.starts_with(&line) && error.contains(&new), "{error}");
    }
}

#[test]
fn the_path_of_the_key_is_named_and_its_value_is_not() {
    for (text, shown) in [
        (
            "network:\n  metadata: auto\n  metdata: off\n",
            "line 3 column 3: network: unknown key; did you mean metadata?",
        ),
        (
            "network:\n  cidrs:\n  - {cidr: CANARY, class: intranet}\n",
            "line 3 column 12: network.cidrs[0].cidr: not a CIDR; write for example 10.8.0.0/16",
        ),
        (
            "targets:\n- name: a\n  image: 'https://u:CANARY@r.test/a'\n",
            "line 3 column 10: targets[0].image: an image reference does not begin with https:// or another scheme",
        ),
        (
            "targets:\n- name: 'CANARY !'\n  image: r.test/a\n",
            "line 2 column 3: targets[0]: invalid name: it is a label in metrics, so use 1 to 253 letters, digits, \
             '-', '_' or '.'",
        ),
        (
            "cluster:\n  node_rates_mbit: {CANARY: much}\n",
            "line 2 column 29: cluster.node_rates_mbit.*: invalid value; expected u64",
        ),
    ] {
        assert_eq!(
            Config::parse(text).unwrap_err().to_string(),
            shown,
            "{text}"
        );
    }
}

/// A password pasted as any value, of any type, and as a key of any section.
#[test]
fn no_value_and_no_unknown_key_is_repeated() {
    let schema = serde_json::to_value(Config::schema()).unwrap();
    let mut paths = vec![Vec::new()];
    all_paths(&schema, &schema, &[], &mut paths);
    assert!(paths.len() > 80, "{}", paths.len());
    let secrets = [
        "CANARY",
        "'CANARY: x'",
        "[CANARY]",
        "{CANARY: 1}",
        "73313370",
        "-7.331337e9",
        "!CANARY x",
    ];
    let mut found = 0;
    for path in &paths {
        for secret in secrets {
            let mut text = secret.to_owned();
            for key in path.iter().rev() {
                text = if key == "[]" {
                    format!("[{text}]")
                } else {
                    format!("{{{key}: {text}}}")
                };
            }
            let Err(error) = Config::parse(&text) else {
                continue;
            };
            found += 1;
            let shown = error.to_string();
            assert!(
                !shown.contains("CANARY") && !shown.contains("7331"),
                "{text}: {shown}"
            );
        }
    }
    assert!(found > 300, "{found}");
}

/// The path of every key, with `[]` for the entries of a list.
fn all_paths(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    path: &[String],
    found: &mut Vec<Vec<String>>,
) {
    if let Some(name) = schema["$ref"].as_str() {
        let of = root.pointer(name.trim_start_matches('#')).unwrap();
        all_paths(root, of, path, found);
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        for one in schema[key].as_array().into_iter().flatten() {
            all_paths(root, one, path, found);
        }
    }
    if schema["items"].is_object() {
        let path = [path, &["[]".to_owned()]].concat();
        all_paths(root, &schema["items"], &path, found);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(key)].concat();
        found.push(path.clone());
        all_paths(root, value, &path, found);
    }
}

#[test]
fn targets_are_read_and_their_names_are_labels() {
    let config = Config::parse(
        "targets:
  - name: foo
    image: registry.example.com/team/foo:1
    credential: {username: robot, password_file: /etc/p}
    expect: {class: [intranet], throughput_mbit: 100, pull_within: 90s}
    platform: linux/arm64
    transfer: off
",
    )
    .unwrap();
    let target = config.targets.iter().next().unwrap();
    assert_eq!(target.image.0.domain(), "registry.example.com");
    assert_eq!(target.transfer, Some(daemon::Interval(None)));
    for (text, line, says) in [
        (
            "targets:\n  - {name: a, image: r.test/a}\n  - {name: a, image: r.test/b}\n",
            3,
            "at line 2",
        ),
        ("targets:\n  - {name: 'a b', image: r.test/a}\n", 2, "label"),
        (
            "targets:\n  - {name: a, image: 'r.test/A b'}\n",
            2,
            "no white space",
        ),
        ("targets:\n  - {name: a}\n", 2, "image"),
        (
            "targets:\n  - {name: a, image: r.test/a, credential: {username: u}}\n",
            2,
            "password_file",
        ),
        (
            "targets:\n  - {name: a, image: r.test/a, expect: {class: [vpc]}}\n",
            2,
            "vpc_peering",
        ),
        ("schedule: {reach: 5}\n", 1, "90s"),
        ("schedule: {reach: 1s}\n", 1, "10s to 24h"),
        ("schedule: {transfer: never}\n", 1, "off"),
        ("schedule: {transfer: 10s}\n", 1, "5m to 720h"),
        ("budgets: {node_bytes_per_day: much}\n", 1, "16MiB"),
        ("budgets: {rate_limit_floor: 2}\n", 1, "between 0 and 1"),
        ("budgets: {checks_at_once: 0}\n", 1, "1 to 256"),
        ("listen: everywhere\n", 1, "10.0.0.5:9797"),
        ("log: {format: xml}\n", 1, "json"),
        ("on_demand: {images: all}\n", 1, "any"),
        ("on_demand: {per_minute: 0}\n", 1, "1 to 60"),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.what.contains(says), "{text}: {error}");
        assert_eq!(
            error.at.map(|(line, _)| line),
            Some(line),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_target_without_a_name_has_that_of_its_image() {
    let names = |text: &str| {
        let config = Config::parse(text).unwrap();
        config.targets.iter().map(Target::name).collect::<Vec<_>>()
    };
    let images = "targets: [{image: nginx}, {image: 'r.test:5000/a/b:1'}, {image: 'r.test/a-b:1', name: mine}]";
    let expected = [
        "docker.io/library/nginx:latest",
        "r.test:5000/a/b:1",
        "mine",
    ];
    assert_eq!(names(images), expected);
    // A name never depends on the other targets, nor on the order.
    let reverse = "targets: [{image: 'r.test:5000/a/b:1'}, {image: nginx}]";
    assert_eq!(names(reverse), [expected[1], expected[0]]);
    for (text, line) in [
        (
            "targets:\n  - image: nginx\n  - image: docker.io/library/nginx:latest\n",
            3,
        ),
        (
            "targets:\n  - image: r.test/a:1\n  - {image: 'r.test/a:1', platform: linux/arm64}\n",
            3,
        ),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert_eq!(error.at.map(|(line, _)| line), Some(line), "{error}");
        assert!(
            error
                .what
                .contains("give this one or the one at line 2 a name"),
            "{error}"
        );
    }
    let again = "targets: [{image: nginx}, {image: nginx, name: again}]";
    assert_eq!(names(again), [expected[0], "again"]);
}

#[test]
fn images_join_the_targets_once() {
    let config = Config::parse("targets: [{name: mine, image: nginx}]").unwrap();
    let images = ["nginx:latest", "r.test/a", "r.test/a:latest"].map(|text| text.parse().unwrap());
    let config = config.with_images(&images);
    let names: Vec<String> = config.targets.iter().map(Target::name).collect();
    assert_eq!(names, ["mine", "r.test/a:latest"]);
    assert!(config.targets.check().is_ok());
}

#[test]
fn no_single_wait_is_as_long_as_the_check_around_it() {
    let error = Config::parse("schedule: {timeout: 1m, check_timeout: 30s}\n").unwrap_err();
    assert!(
        error.what.contains("schedule.check_timeout (30s)"),
        "{error}"
    );
}

#[test]
fn what_the_cluster_is_asked_for_fits_together() {
    let fails = |text: &str, says: &str| {
        let error = Config::parse(text).unwrap_err();
        assert!(error.what.contains(says), "{text}: {error}");
    };
    fails("kubernetes: {events: pods}\n", "write discover: node");
    fails("kubernetes: {secrets: named}\n", "named_secrets is empty");
    fails("kubernetes: {node: yes}\n", "on");
    for (text, follows) in [
        ("", false),
        ("kubernetes: {node: on}", true),
        ("kubernetes: {discover: node, events: pods}", true),
        ("kubernetes: {discover: node, node: off}", false),
    ] {
        let config = Config::parse(text).unwrap();
        assert_eq!(config.kubernetes.follows_node(), follows, "{text}");
    }
}

/// What a reader of the example takes for a default is one, and no key is left out.
#[test]
fn the_example_has_every_key_with_its_default() {
    let example = Config::parse(Config::EXAMPLE).unwrap();
    let default = Config::default();
    assert_eq!(example.schedule, default.schedule);
    assert_eq!(example.kubernetes, default.kubernetes);
    assert_eq!(example.spread, default.spread);
    assert_eq!(example.cluster, default.cluster);
    assert_eq!(example.budgets, default.budgets);
    assert_eq!(example.history, default.history);
    assert_eq!(example.log, default.log);
    assert_eq!(example.on_demand, default.on_demand);
    assert_eq!(example.vantage, default.vantage);
    // With all comment signs taken off, it is a whole configuration too.
    let keys = |text: &str| {
        let is_key = |line: &&str| {
            let word = line.trim_start_matches(['#', ' ', '-']).split(':').next();
            word.is_some_and(|w| {
                let is_of_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                !w.is_empty() && w.chars().all(is_of_key)
            })
        };
        text.lines()
            .filter(|line| line.contains(':'))
            .filter(is_key)
            .map(|line| {
                line.trim_start_matches(['#', ' ', '-'])
                    .split(':')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect::<std::collections::BTreeSet<String>>()
    };
    let shown = keys(Config::EXAMPLE);
    let schema = serde_json::to_value(Config::schema()).unwrap();
    let mut wanted = Vec::new();
    properties(&schema, &mut wanted);
    // Within one line of the example.
    let inline = ["cidr", "class", "name", "host", "classes"];
    for key in wanted {
        assert!(
            shown.contains(&key) || inline.contains(&key.as_str()),
            "{key} is not in the example"
        );
    }
}

#[test]
fn a_listen_address_may_be_one_of_ipv6_without_brackets() {
    let address = |text: &str| {
        text.parse()
            .map(|ListenAddress(address)| address.to_string())
    };
    assert_eq!(
        address("2a0a:1:1::10:9797").as_deref(),
        Ok("[2a0a:1:1::10]:9797")
    );
    assert_eq!(address("::1:9797").as_deref(), Ok("[::1]:9797"));
    assert_eq!(address("[::1]:9797").as_deref(), Ok("[::1]:9797"));
    assert_eq!(address("10.0.0.5:9797").as_deref(), Ok("10.0.0.5:9797"));
    for wrong in [
        "2a0a:1::10",
        "1:2:3:9797",
        ":70000",
        "9797",
        "::1",
        "node:9797",
    ] {
        assert!(address(wrong).is_err(), "{wrong}: {:?}", address(wrong));
    }
}

fn properties(schema: &serde_json::Value, found: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| properties(value, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| properties(value, found)),
        _ => {}
    }
}
