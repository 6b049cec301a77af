//! The lab itself: that its real servers behave as the other tests take for granted, by the word of
//! curl alone, without the program under test.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "real/stack.rs"]
mod stack;
mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use lab::netns::{Netns, owner};
use lab::process::{listens, run};
use stack::{
    Grants, Mode, PASSWORD, REPOSITORY, Registry, Stack, TAG, TokenKnobs, USER, local, push,
};
use support::image::{Image, OCI_INDEX};

/// The status, the lower-case head and the body that curl gets, without following redirects.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn curl(args: &[&str]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*"]);
    command.args(["--max-time", "10", "--write-out", "%{http_code}"]);
    command.arg("--dump-header").arg(&head);
    let status = run(command.arg("--output").arg(&body).args(args));
    let read = |file: &Path| std::fs::read(file).unwrap_or_default();
    Answer {
        status: status.parse().unwrap(),
        head: String::from_utf8_lossy(&read(&head)).to_lowercase(),
        body: String::from_utf8_lossy(&read(&body)).into_owned(),
    }
}

/// curl as a client of the stack: its names, its authority.
fn curl_stack(stack: &Stack, args: &[&str]) -> Answer {
    let nginx = &stack.nginx;
    let names: Vec<String> = [
        ("registry.test", nginx.registry),
        ("auth.test", nginx.auth),
        ("blobs.test", nginx.blobs),
    ]
    .iter()
    .map(|(name, port)| format!("{name}:{port}:127.0.0.1"))
    .collect();
    let mut all = vec!["--cacert", stack.pki.ca_file.to_str().unwrap()];
    for name in &names {
        all.extend(["--resolve", name.as_str()]);
    }
    all.extend(args);
    curl(&all)
}

#[test]
fn a_server_is_ready_when_it_listens_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(listens(std::process::id(), port));
    // A port in use, and one without a listener.
    assert!(!listens(1, port));
    drop(listener);
    assert!(!listens(std::process::id(), port));
    let (one, other) = (lab::free_port(), lab::free_port());
    assert_ne!(one, other);
}

#[test]
fn namespaces_are_swept_by_the_process_that_made_them() {
    for (name, pid) in [
        ("pullpath-4711-0", Some(4711)),
        ("pullpath-bench-4711", Some(4711)),
        ("pullpath-bench", None),
        ("pullpath-", None),
        ("other-4711-0", None),
    ] {
        assert_eq!(owner(name), pid, "{name}");
    }
    let netns = Netns::new();
    let is_there = |name: &str| {
        run(Command::new("ip").args(["netns", "list"]))
            .lines()
            .any(|line| line.split_whitespace().next() == Some(name))
    };
    let name = netns.name.clone();
    assert!(is_there(&name));
    drop(netns);
    assert!(!is_there(&name));
    // Also when the test fails.
    let name = std::thread::spawn(|| {
        let netns = Netns::new();
        std::panic::panic_any(netns.name.clone());
    })
    .join()
    .unwrap_err()
    .downcast::<String>()
    .unwrap();
    assert!(!is_there(&name));
}

#[test]
fn docker_registry_asks_for_what_its_mode_says() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("storage");
    let image = Image::multi(11);
    let open = Registry::start(folder.path(), "open", &storage, &Mode::Open, None);
    let at = |port: u16, path: &str| format!("http://{}{path}", local(port));
    let to = format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", open.port);
    push(folder.path(), &image, &to, &[]);
    assert_eq!(curl(&[&at(open.port, "/v2/")]).status, 200);
    let manifest = format!("/v2/{REPOSITORY}/manifests/{TAG}");
    let accept = format!("Accept: {OCI_INDEX}");
    let answer = curl(&["-H", &accept, &at(open.port, &manifest)]);
    assert_eq!(answer.status, 200);
    // Pushed byte for byte.
    assert_eq!(answer.body.as_bytes(), &image.top().bytes[..]);
    let digest = format!("docker-content-digest: {}", image.top().digest);
    assert!(answer.head.contains(&digest), "{}", answer.head);

    let basic = Registry::start(folder.path(), "basic", &storage, &Mode::Htpasswd, None);
    let user = format!("{USER}:{PASSWORD}");
    let wrong = format!("{USER}:wrong");
    let url = at(basic.port, &manifest);
    let answer = curl(&[&url]);
    assert_eq!(answer.status, 401);
    assert!(answer.head.contains("www-authenticate: basic realm="));
    assert_eq!(curl(&["-u", &wrong, &url]).status, 401);
    assert_eq!(curl(&["-u", &user, "-H", &accept, &url]).status, 200);

    // The words for what is not there.
    for (path, code) in [
        (
            format!("/v2/{REPOSITORY}/manifests/absent"),
            "MANIFEST_UNKNOWN",
        ),
        ("/v2/no/such/manifests/1.0".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/no/such/tags/list".to_owned(), "NAME_UNKNOWN"),
    ] {
        let answer = curl(&[&at(open.port, &path)]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains(code), "{path}: {}", answer.body);
    }
}

#[test]
fn the_stack_takes_its_tokens_redirects_its_layers_and_guards_them() {
    let stack = Stack::start("abc");
    let base = format!("https://registry.test:{}", stack.nginx.registry);
    let answer = curl_stack(&stack, &[&format!("{base}/v2/")]);
    assert_eq!(answer.status, 401);
    let realm = format!(
        "bearer realm=\"https://auth.test:{}/token\"",
        stack.nginx.auth
    );
    assert!(answer.head.contains(&realm), "{}", answer.head);

    let scope = format!("service=lab-registry&scope=repository:{REPOSITORY}:pull");
    let token_url = format!("https://auth.test:{}/token", stack.nginx.auth);
    let by_get = format!("{token_url}?{scope}");
    let user = format!("{USER}:{PASSWORD}");
    assert_eq!(curl_stack(&stack, &[&by_get]).status, 401);
    let wrong = format!("{USER}:wrong");
    assert_eq!(curl_stack(&stack, &["-u", &wrong, &by_get]).status, 401);
    let token_of = |answer: &Answer, field: &str| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        format!("Authorization: Bearer {}", body[field].as_str().unwrap())
    };
    let by_get = token_of(&curl_stack(&stack, &["-u", &user, &by_get]), "token");
    let form = format!("grant_type=password&username={USER}&password={PASSWORD}&{scope}");
    let by_post = token_of(
        &curl_stack(&stack, &["-d", &form, &token_url]),
        "access_token",
    );

    let layer = &stack.image.platform("amd64").layers[0];
    let blob = format!("{base}/v2/{REPOSITORY}/blobs/{}", layer.digest);
    let manifest = format!("{base}/v2/{REPOSITORY}/manifests/{TAG}");
    let accept = format!("Accept: {OCI_INDEX}");
    for token in [&by_get, &by_post] {
        let answer = curl_stack(&stack, &["-H", token, "-H", &accept, &manifest]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body.as_bytes(), &stack.image.top().bytes[..]);
    }
    // The layer is elsewhere, and only for who has the signature; a range is honoured.
    let answer = curl_stack(&stack, &["-H", &by_get, &blob]);
    assert_eq!(answer.status, 307);
    let location = answer
        .head
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .replace("x-amz-signature", "X-Amz-Signature");
    assert!(location.starts_with(&format!("https://blobs.test:{}/", stack.nginx.blobs)));
    let first = curl_stack(&stack, &["--range", "0-0", &location]);
    assert_eq!(first.status, 206);
    let whole = format!("content-range: bytes 0-0/{}", layer.bytes.len());
    assert!(first.head.contains(&whole), "{}", first.head);
    let unsigned = location.split_once('?').unwrap().0;
    assert_eq!(curl_stack(&stack, &[unsigned]).status, 403);
}

#[test]
fn tokens_without_the_right_or_with_a_strange_signature_are_refused_by_the_registry() {
    for (grants, error) in [
        (Grants::Nothing, "insufficient_scope"),
        (Grants::Forged, "invalid_token"),
    ] {
        let stack = Stack::with_tokens(TokenKnobs {
            grants,
            answers_post: false,
        });
        let token_url = format!(
            "https://auth.test:{}/token?service=lab-registry&scope=repository:{REPOSITORY}:pull",
            stack.nginx.auth
        );
        assert_eq!(curl_stack(&stack, &["-d", "a=b", &token_url]).status, 405);
        let user = format!("{USER}:{PASSWORD}");
        let answer = curl_stack(&stack, &["-u", &user, &token_url]);
        assert_eq!(answer.status, 200);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let token = format!("Authorization: Bearer {}", body["token"].as_str().unwrap());
        let manifest = format!(
            "https://registry.test:{}/v2/{REPOSITORY}/manifests/{TAG}",
            stack.nginx.registry
        );
        let answer = curl_stack(&stack, &["-H", &token, &manifest]);
        assert_eq!(answer.status, 401);
        assert!(answer.head.contains(error), "{}", answer.head);
    }
}
