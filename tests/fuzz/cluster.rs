//! What the fuzz targets do whose input is from a cluster or a node: texts of Events, kubeconfigs, containerd's
//! config.toml, manifests of workloads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pullpath::containerd::behaviour::Behaviour;
use pullpath::containerd::config_files::ConfigFiles;
use pullpath::containerd::config_toml::{self, Stop};
use pullpath::kubernetes::client;
use pullpath::kubernetes::secrets::{Access, SecretKey};
use pullpath::kubernetes::workloads;
use pullpath::lint::judge::{judge, needs};
use pullpath::lint::{Cluster, InspectedSecret, Listed, SecretRead, Unknown};
use pullpath::model::documents;
use pullpath::pull_secret::secret;
use pullpath::pulls::answer::{self, Answers, MOST_ANSWERS, PasteError};
use pullpath::pulls::event;
use pullpath::pulls::failure::{self, ParsedFailure};
use pullpath::pulls::tally::{Limits, Tally};
use pullpath::workload;
use pullpath::workload::pod::Event;
use pullpath::workload::resources::{Account, SecretMetadata, WorkloadKind};
use serde_json::Value;

use crate::logic::{
    CANARY_WORD, assert_hidden, assert_printable, choose, json, spells_canary, texts_of,
};

/// What `shown` of a text leaves at most, in characters.
const MOST_TEXT: usize = 1024;

/// Of a server's message, in characters.
const MOST_MESSAGE: usize = 300;

// ---- texts of Events ----------------------------------------------------------------------------

/// A pasted text; an Event's message with one of the kubelet's reasons; or a text around a URL with a password.
pub(crate) fn event_text(data: &[u8]) {
    let (choice, data) = choose(data);
    let text = String::from_utf8_lossy(data);
    match choice {
        0 => {
            explained(&text);
        }
        1..=9 => reported(REASONS[choice - 1], &text),
        _ if spells_canary(data) => {}
        10..=12 => {
            let (before, after) = text.split_at(text.floor_char_boundary(text.len() / 2));
            let secret = match choice {
                10 => "https://user:canary@registry.example.com/v2/",
                11 => "\"https://registry.example.com/v2/?sig=canary\"",
                _ => "https://registry.example.com/v2/?X-Amz-Signature=canary&y=1",
            };
            hidden(&format!("{before} {secret} {after}"));
        }
        13 => hidden(&format!(
            "{text} Authorization: Bearer canarycanarycanarycanary"
        )),
        _ => hidden(&format!(
            "Failed to pull image \"registry.example.com/a:1\": failed to do request: Get \
             \"https://user:canary@registry.example.com/v2/?token=canary\": {text}"
        )),
    }
}

const REASONS: [&str; 9] = [
    "Failed",
    "BackOff",
    "Pulling",
    "Pulled",
    "FailedCreatePodSandBox",
    "FailedToRetrieveImagePullSecret",
    "ErrImageNeverPull",
    "InspectFailed",
    "Other",
];

fn explained(text: &str) -> Option<Answers> {
    let answers = match answer::explain(text) {
        Ok(answers) => answers,
        Err(PasteError::Empty) => {
            assert!(text.trim().is_empty());
            return None;
        }
        Err(PasteError::TooLong) => return None,
    };
    assert_eq!(answer::explain(text).as_ref(), Ok(&answers));
    assert!(answers.all.len() <= MOST_ANSWERS);
    for one in &answers.all {
        assert!(one.count > 0);
        assert!(one.text.chars().count() <= MOST_TEXT, "{}", one.text);
        for text in [&one.text, &one.hint].into_iter().chain(&one.facts) {
            assert_printable(text);
        }
        for text in [&one.image, &one.node, &one.decider, &one.probe]
            .into_iter()
            .flatten()
        {
            assert_printable(text);
        }
        parsed(&one.failure);
    }
    Some(answers)
}

/// A cause has its confidence, and what is kept of the text is bounded.
fn parsed(failure: &ParsedFailure) {
    assert_eq!(
        failure.cause.is_some(),
        failure.confidence.is_some(),
        "{failure:?}"
    );
    assert!(
        failure.cause.is_some() || failure.or.is_empty(),
        "{failure:?}"
    );
    assert!(
        failure
            .cause
            .is_none_or(|cause| !failure.or.contains(&cause)),
        "{failure:?}"
    );
    let texts = [
        &failure.host,
        &failure.address,
        &failure.server,
        &failure.message,
    ];
    for text in texts.into_iter().flatten() {
        assert_printable(text);
        assert!(text.chars().count() <= MOST_MESSAGE, "{text}");
    }
}

/// The same Event twice, then more often; and what the cluster role keeps of it.
fn reported(reason: &str, text: &str) {
    assert_eq!(event::read(reason, text), event::read(reason, text));
    parsed(&failure::judge("registry.example.com/team/app:1", text));
    let now = Timestamp::from_second(1_700_000_000).expect("a time");
    let limits = Limits {
        max_pairs: 8,
        idle: Duration::from_hours(1),
        node_rates: BTreeMap::new(),
    };
    let mut tally = Tally::new(limits, now);
    tally.begin(now);
    tally.list_begins();
    tally.list_ends(now);
    let event = |uid: &str, count: u64| Event {
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        container: "app".to_owned(),
        node: "node-a".to_owned(),
        reason: reason.to_owned(),
        message: text.to_owned(),
        is_warning: true,
        count,
        first: Some(now),
        last: Some(now),
    };
    for count in [1, 1, 5, 3] {
        tally.take(&event("0a1b2c3d-0000-0000-0000-000000000001", count), now);
    }
    let is_known = event::read(reason, text).is_some();
    let counted: u64 = tally.counts.values().sum();
    // Each occurrence once, however often and in which order the Event is delivered.
    assert_eq!(counted, if is_known { 5 } else { 0 }, "{:?}", tally.counts);
    for one in tally.failing.values() {
        parsed(&one.failure);
        assert!(one.text.chars().count() <= MOST_TEXT);
        assert_printable(&one.text);
        assert_printable(&one.image);
    }
    assert!(tally.pairs.len() <= 8 && tally.unknown.len() <= 20);
    tally.tidy(now);
}

fn hidden(text: &str) {
    let mut shown = String::new();
    for one in explained(text).iter().flat_map(|answers| &answers.all) {
        let _ = write!(shown, "{one:?} ");
    }
    let failure = failure::judge("registry.example.com/a:1", text);
    parsed(&failure);
    let _ = write!(shown, "{failure:?}");
    assert!(!shown.contains(CANARY_WORD), "{text:?}: {shown}");
}

// ---- kubeconfig ---------------------------------------------------------------------------------

/// A kubeconfig, or the rest of one behind something secret.
pub(crate) fn kubeconfig(data: &[u8]) {
    let (choice, data) = choose(data);
    let text = String::from_utf8_lossy(data);
    if choice == 0 {
        let _ = server_of(&text);
        return;
    }
    if spells_canary(data) {
        return;
    }
    let frame = |user: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n- name: c\n  cluster: {{server: 'https://127.0.0.1:1'}}\n\
             contexts:\n- name: a\n  context: {{cluster: c, user: u}}\nusers:\n- name: u\n  user:\n    {user}"
        )
    };
    let whole = match choice {
        1 => frame(&format!("token: canary{text}")),
        2 => frame(&format!("token: \"canary{text}")),
        3 => frame(&format!("password: canary\n    username: {text}")),
        4 => frame(&format!("client-key-data: canary{text}")),
        5 => frame(&format!(
            "exec: {{command: none, env: [{{name: A, value: canary}}], apiVersion: {text}"
        )),
        6 => frame(&format!("token: [canary]\n    {text}")),
        7 => frame(&format!("token: canary\n    token: {text}")),
        8 => format!("clusters: [{{cluster: {{server: 'https://user:canary@{text}"),
        _ => frame(&format!(
            "auth-provider: {{name: x, config: {{a: canary, b: {text}"
        )),
    };
    let shown = match server_of(&whole) {
        Ok(shown) | Err(shown) => shown,
    };
    assert_hidden(&shown);
}

/// The server, or why there is none. No program is run, and no request sent.
fn server_of(text: &str) -> Result<String, String> {
    let read = || wait_for(client::server_of(text, Path::new("/nonexistent")));
    let server = read();
    assert_eq!(server, read());
    if let Err(reason) = &server {
        assert!(!reason.is_empty());
        assert_printable(reason);
    }
    server
}

/// The end of something that waits for nothing.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

// ---- config.toml --------------------------------------------------------------------------------

/// containerd's config.toml as each release reads it, or the rest of one behind a password.
pub(crate) fn config_toml(data: &[u8]) {
    let (choice, data) = choose(data);
    if choice == 0 {
        settings(data, false);
        return;
    }
    if spells_canary(data) {
        return;
    }
    let text = String::from_utf8_lossy(data);
    let section = match choice % 3 {
        0 => "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry",
        1 => "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry",
        _ => "[plugins.cri.registry",
    };
    let whole = match choice {
        1..=3 => {
            format!("{section}.configs.'a'.auth]\nusername = \"u\"\npassword = \"canary{text}")
        }
        4..=6 => format!("{section}.configs.'a'.auth]\npassword = \"canary\"\n{text}"),
        7..=9 => format!("{section}.headers]\nX = [\"canary\", {text}"),
        10..=12 => format!("{section}.mirrors.'a']\nendpoint = [\"https://user:canary@{text}"),
        _ => format!("{section}.auths.'https://a']\nauth = \"canary\"\n{text}"),
    };
    settings(whole.as_bytes(), true);
}

fn settings(bytes: &[u8], hide: bool) {
    let main = Path::new("/nonexistent/config.toml");
    // Its imports would be those of this machine.
    if bytes.windows(6).any(|word| word == b"import") || bytes.contains(&b'\\') {
        return;
    }
    let Ok(files) = ConfigFiles::load(main, bytes) else {
        return;
    };
    for behaviour in Behaviour::candidates(None) {
        let decoded = config_toml::decode(&files, behaviour);
        let notes = config_toml::notes(&files, behaviour);
        let mut shown = format!("{decoded:?} {}", json(&notes));
        let _ = config_toml::pulls_locally(&files, behaviour);
        let _ = config_toml::is_too_new(&files, behaviour);
        match decoded {
            Ok(settings) => {
                let registry = config_toml::validate(settings, behaviour);
                let _ = write!(shown, "{registry:?}");
                if let Err(reason) = &registry {
                    assert_printable(reason);
                }
            }
            Err(Stop::Refused(reason) | Stop::Unseen(reason)) => assert_printable(&reason),
        }
        for note in &notes {
            assert_printable(&note.reason);
        }
        assert!(shown.len() <= 2048 * bytes.len() + 16384, "{}", shown.len());
        if hide {
            assert_hidden(&shown);
        }
    }
}

// ---- manifests of workloads ---------------------------------------------------------------------

/// Manifests, and what lint finds in them as if they were the objects of a cluster.
pub(crate) fn workloads(data: &[u8]) {
    let read = || workload::read(data, "all.yaml");
    match read() {
        Ok(found) => {
            assert!(!found.uses.is_empty());
            for (reference, pod_use) in &found.uses {
                assert_printable(&format!("{reference} {}", json(pod_use)));
                assert_printable(&texts_of(&json(pod_use)));
            }
            for note in &found.notes {
                assert_printable(&note.to_string());
            }
            let again = read().expect("the same again");
            assert_eq!(found.uses, again.uses);
        }
        Err(reason) => {
            assert!(!reason.is_empty());
            assert_printable(&reason);
        }
    }
    let Ok(documents) = documents::read(data) else {
        return;
    };
    lint(documents);
}

fn lint(documents: Vec<Value>) {
    let mut cluster = Cluster {
        workloads: Vec::new(),
        accounts: Listed {
            items: vec![Arc::new(Account {
                namespace: "shop".into(),
                name: "default".into(),
                pull_secrets: Box::default(),
            })],
            unknown: Unknown::default(),
        },
        secrets: Listed {
            items: Vec::new(),
            unknown: Unknown::default(),
        },
        access: Access::Discovered,
        read: BTreeMap::new(),
        not_observed: Vec::new(),
    };
    for document in documents {
        let kind = document["kind"].as_str().unwrap_or_default();
        if kind == "Secret" {
            secret(&mut cluster, &document);
        } else if let Some(kind) = WorkloadKind::ALL.iter().find(|one| one.as_str() == kind)
            && let Ok(Some(workload)) = workloads::of_object(*kind, document)
        {
            cluster.workloads.push(Arc::new(workload));
        }
    }
    let now = Timestamp::from_second(1_700_000_000).expect("a time");
    let needed = needs(&cluster);
    let found = judge(&cluster, now);
    let shown = json(&found.findings);
    assert_eq!(shown, json(&judge(&cluster, now).findings));
    assert_printable(&texts_of(&shown));
    // A workload without an image needs no Secret.
    assert!(needed.is_empty() || !cluster.workloads.is_empty());
}

fn secret(cluster: &mut Cluster, document: &Value) {
    let text = |key: &str| document["metadata"][key].as_str().unwrap_or_default();
    let key = SecretKey {
        namespace: text("namespace").into(),
        name: text("name").into(),
    };
    cluster.secrets.items.push(Arc::new(SecretMetadata {
        namespace: text("namespace").into(),
        name: text("name").into(),
        version: "1".into(),
        is_renewed: false,
    }));
    let content = InspectedSecret::of(&secret::of_manifest(document, "the cluster"));
    cluster
        .read
        .insert(key, SecretRead::Content(Arc::new(content)));
}
