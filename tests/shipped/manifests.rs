//! The manifests: they are made, valid, name nothing that is not there, and ask Autopilot for nothing that
//! it refuses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::lab::process::run;

const OVERLAYS: &[&str] = &[
    "any",
    "cce-standard",
    "cce-turbo",
    "cce-autopilot",
    "pod-view",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Made once: kubectl and the schemas.
pub(crate) fn tools() -> PathBuf {
    PathBuf::from(run(&mut Command::new(root().join("tests/shipped/tools"))).trim())
}

/// What is added to Autopilot's overlay, and to no other.
const OF_AUTOPILOT: &[&str] = &["autopilot-by-eip", "autopilot-transfer-test"];

/// Autopilot's overlay with all that is for it.
fn built(folder: &str) -> String {
    let kustomize = |at: &Path| {
        run(Command::new(tools().join("kubectl"))
            .arg("kustomize")
            .arg(at))
    };
    if folder != "overlays/cce-autopilot" {
        return kustomize(&root().join("deploy").join(folder));
    }
    let here = tempfile::tempdir().unwrap();
    let at = here.path().canonicalize().unwrap();
    // kustomize takes no absolute paths.
    let up = "../".repeat(at.components().count() - 1);
    let deploy = format!("{up}{}/deploy", root().strip_prefix("/").unwrap().display());
    let components = OF_AUTOPILOT.iter();
    let components: Vec<String> = components
        .map(|name| format!("{deploy}/components/{name}"))
        .collect();
    let whole = serde_json::json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [format!("{deploy}/{folder}")], "components": components});
    std::fs::write(at.join("kustomization.yaml"), whole.to_string()).unwrap();
    kustomize(&at)
}

/// All objects of an overlay.
fn objects(folder: &str) -> Vec<Value> {
    built(folder)
        .split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str(document)
                .unwrap_or_else(|error| panic!("{folder}: {error}\n{document}"))
        })
        .collect()
}

/// Everywhere in a value, with the keys that lead there.
fn visit<'a>(value: &'a Value, at: &str, see: &mut impl FnMut(&str, &'a Value)) {
    see(at, value);
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| visit(value, &format!("{at}.{key}"), see)),
        Value::Array(list) => list
            .iter()
            .for_each(|value| visit(value, &format!("{at}[]"), see)),
        _ => {}
    }
}

/// Containers of our own program, with the pod they are in.
fn containers(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let mut found = Vec::new();
    for object in objects {
        visit(object, "", &mut |_, value| {
            for list in ["containers", "initContainers"] {
                for container in value
                    .get(list)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    found.push((value, container));
                }
            }
        });
    }
    found
}

#[test]
fn each_overlay_is_made_and_valid_by_the_schemas_of_kubernetes() {
    let folder = tempfile::tempdir().unwrap();
    for overlay in OVERLAYS {
        for (number, object) in objects(&format!("overlays/{overlay}")).iter().enumerate() {
            let file = folder.path().join(format!("{overlay}-{number}.yaml"));
            std::fs::write(&file, object.to_string()).unwrap();
            run(Command::new(tools().join("kubernetes-validate"))
                .args(["--strict", "--quiet"])
                .arg(&file));
        }
    }
    // It would see a key that is none.
    let file = folder.path().join("odd.yaml");
    std::fs::write(
        &file,
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dta": {}}"#,
    )
    .unwrap();
    let output = Command::new(tools().join("kubernetes-validate"))
        .args(["--strict", "--quiet"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn programs_are_called_as_they_can_be_and_read_files_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    for overlay in OVERLAYS {
        let objects = objects(&format!("overlays/{overlay}"));
        let containers = containers(&objects);
        assert!(!containers.is_empty(), "{overlay}");
        for (pod, container) in containers {
            let args: Vec<&str> = container["args"]
                .as_array()
                .unwrap()
                .iter()
                .map(|arg| arg.as_str().unwrap())
                .collect();
            let help = run(Command::new(env!("CARGO_BIN_EXE_pullpath")).args([args[0], "--help"]));
            for flag in args.iter().filter(|arg| arg.starts_with("--")) {
                let name = flag.split('=').next().unwrap();
                assert!(help.contains(name), "{overlay}: {} has no {name}", args[0]);
            }
            // Variables that args and the program use are set.
            let variables: BTreeSet<&str> = container["env"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            for arg in &args {
                if let Some((_, rest)) = arg.split_once("$(") {
                    let name = rest.split(')').next().unwrap();
                    assert!(variables.contains(name), "{overlay}: {arg}");
                }
            }
            // Each mount has its volume, and probes go to a port that is named.
            let volumes: BTreeSet<&str> = pod["volumes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                assert!(
                    volumes.contains(mount["name"].as_str().unwrap()),
                    "{overlay}: {mount}"
                );
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                if let Some(get) = container.get(probe).map(|probe| &probe["httpGet"]) {
                    assert_eq!(get["port"], container["ports"][0]["name"], "{overlay}");
                    assert!(["/healthz", "/readyz"].contains(&get["path"].as_str().unwrap()));
                }
            }
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{overlay}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{overlay}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{overlay}");
            assert_eq!(pod["securityContext"]["runAsUser"], 65532, "{overlay}");
        }
        for object in &objects {
            let Some(config) = object
                .pointer("/data/pullpath.yaml")
                .and_then(Value::as_str)
            else {
                continue;
            };
            let file = folder.path().join("pullpath.yaml");
            std::fs::write(&file, config).unwrap();
            run(Command::new(env!("CARGO_BIN_EXE_pullpath"))
                .args(["config", "check"])
                .arg(&file));
        }
    }
}

/// By its documents (productdesc-cce-autopilot/cce_12_0006, usermanual-cce-autopilot/cce_11_0829).
#[test]
fn the_overlay_of_autopilot_asks_for_nothing_that_autopilot_refuses() {
    let refused = |objects: &[Value]| {
        let mut found = Vec::new();
        for object in objects {
            if object["kind"] == "DaemonSet" {
                found.push("DaemonSet".to_owned());
            }
            if object["metadata"]["namespace"] == "kube-system" {
                found.push("kube-system".to_owned());
            }
            visit(object, "", &mut |at, value| {
                let key = at.rsplit('.').next().unwrap_or_default();
                let is_requested = match key {
                    "hostNetwork" | "hostPID" | "hostIPC" | "privileged" => *value == true,
                    "hostPath"
                    | "hostPort"
                    | "nodeName"
                    | "nodeSelector"
                    | "nodePort"
                    | "affinity"
                    | "allowPrivilegeEscalation" => !value.is_null(),
                    "type" => *value == "NodePort",
                    "add" => at.ends_with("capabilities.add"),
                    _ => false,
                };
                if is_requested {
                    found.push(at.to_owned());
                }
            });
        }
        found
    };
    assert_eq!(
        refused(&objects("overlays/cce-autopilot")),
        Vec::<String>::new()
    );
    // Without its components nothing is bought.
    let alone = run(Command::new(tools().join("kubectl"))
        .arg("kustomize")
        .arg(root().join("deploy/overlays/cce-autopilot")));
    assert!(!alone.contains("pod-with-eip"), "{alone}");
    // The list has teeth.
    let of_nodes = refused(&objects("overlays/cce-standard"));
    for what in [
        "DaemonSet",
        ".spec.template.spec.hostNetwork",
        ".spec.template.spec.volumes[].hostPath",
    ] {
        assert!(
            of_nodes.iter().any(|found| found == what),
            "{what}: {of_nodes:?}"
        );
    }
}

/// A folder that a node lacks is created there: only overlays that know their nodes mount one.
#[test]
fn what_is_for_any_node_mounts_nothing_of_it() {
    for (overlay, mounted) in [("any", false), ("cce-standard", true), ("cce-turbo", true)] {
        let mut found = false;
        for object in &objects(&format!("overlays/{overlay}")) {
            visit(object, "", &mut |at, _| found |= at.ends_with(".hostPath"));
        }
        assert_eq!(found, mounted, "{overlay}");
    }
}

/// It tolerates all taints, so that only this keeps it away.
#[test]
fn no_daemon_goes_to_a_virtual_node() {
    let wanted = serde_json::json!([{"matchExpressions": [
        {"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}]);
    for overlay in ["any", "cce-standard", "cce-turbo", "pod-view"] {
        let objects = objects(&format!("overlays/{overlay}"));
        let mut sets = objects.iter().filter(|one| one["kind"] == "DaemonSet");
        let spec = &sets.next().unwrap()["spec"]["template"]["spec"];
        let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        assert_eq!(spec.pointer(terms), Some(&wanted), "{overlay}");
        assert!(sets.next().is_none(), "{overlay}");
    }
}

#[test]
fn the_pod_s_view_fits_the_level_restricted() {
    let objects = objects("overlays/pod-view");
    let namespace = objects
        .iter()
        .find(|object| object["kind"] == "Namespace")
        .unwrap();
    assert_eq!(
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    for (pod, container) in containers(&objects) {
        assert!(pod.get("hostNetwork").is_none());
        for volume in pod["volumes"].as_array().unwrap() {
            assert!(volume.get("hostPath").is_none(), "{volume}");
        }
        assert_eq!(
            container["securityContext"]["allowPrivilegeEscalation"],
            false
        );
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
    }
}

/// What a plain `kubectl apply` can write down of what it last applied: all annotations of an object together.
const MOST_ANNOTATED: usize = 256 << 10;

#[test]
fn dashboards_and_rules_are_provisioned_by_a_plain_apply() {
    let maps = objects("../dashboards");
    let names: Vec<&str> = maps
        .iter()
        .map(|map| map["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["fleet", "node", "registry"].map(|name| format!("pullpath-dashboard-{name}")),
        "names without a hash: they stay"
    );
    for map in &maps {
        assert_eq!(map["kind"], "ConfigMap");
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        for (name, text) in map["data"].as_object().unwrap() {
            let file = std::fs::read_to_string(root().join("dashboards").join(name)).unwrap();
            assert_eq!(text.as_str().unwrap(), file, "{name}");
            let board: Value = serde_json::from_str(&file).unwrap();
            // No data source of one Grafana is named: the viewer selects it.
            visit(&board, "", &mut |at, value| {
                if at.ends_with(".datasource.uid") {
                    assert_eq!(value, "${datasource}", "{name}: {at}");
                }
            });
        }
    }
    let monitoring = objects("monitoring");
    let kinds: Vec<&str> = monitoring
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["PodMonitor", "PrometheusRule"]);
    for object in maps.iter().chain(&monitoring) {
        let size = object.to_string().len();
        assert!(
            size < MOST_ANNOTATED - 8192,
            "{size}: {}",
            object["metadata"]
        );
    }
}

/// The operator's way and the plain one find the same pods, those of all overlays, and name them alike.
#[test]
fn both_jobs_find_the_pods_of_every_overlay() {
    let read = |name: &str| -> Value {
        let path = root().join("deploy/monitoring").join(name);
        serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let (monitor, plain) = (read("podmonitor.yaml"), read("scrape.yaml"));
    let namespaces = &monitor["spec"]["namespaceSelector"]["matchNames"];
    let discovery = &plain[0]["kubernetes_sd_configs"][0];
    assert_eq!(*namespaces, discovery["namespaces"]["names"]);
    for overlay in OVERLAYS {
        for object in objects(&format!("overlays/{overlay}")) {
            let Some(template) = object.pointer("/spec/template") else {
                continue;
            };
            if template["spec"]["containers"][0]["ports"][0]["name"] == "metrics" {
                let namespace = &object["metadata"]["namespace"];
                let is_found = namespaces.as_array().unwrap().contains(namespace);
                assert!(is_found, "{overlay}: {namespace}");
            }
            // The view of pods is no other series of the node's own.
            let view = &template["metadata"]["labels"]["pullpath.io/view"];
            assert_eq!(*view == "pod", *overlay == "pod-view", "{overlay}");
        }
    }
    // What the operator does by default is first in the plain job.
    let mut relabelled = plain[0]["relabel_configs"].as_array().unwrap().clone();
    let own = relabelled.drain(..2).map(|one| one["action"].clone());
    assert_eq!(own.collect::<Vec<_>>(), ["keep", "drop"]);
    let of_monitor = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"];
    let of_monitor = of_monitor
        .to_string()
        .replace("sourceLabels", "source_labels")
        .replace("targetLabel", "target_label");
    let of_monitor: Value = serde_json::from_str(&of_monitor).unwrap();
    assert_eq!(of_monitor, Value::Array(relabelled));
}

/// Bindings, and the accounts that they bind, keep together whatever an overlay calls them.
#[test]
fn each_binding_gives_its_rights_to_an_account_that_is_there() {
    for overlay in OVERLAYS {
        let objects = objects(&format!("overlays/{overlay}"));
        let named = |kind: &str, name: &Value, namespace: &Value| {
            objects.iter().any(|object| {
                object["kind"] == kind
                    && object["metadata"]["name"] == *name
                    && (object["metadata"]["namespace"] == *namespace)
            })
        };
        let mut accounts = BTreeSet::new();
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            if kind.ends_with("RoleBinding") {
                let role = &object["roleRef"];
                let namespace = &object["metadata"]["namespace"];
                assert!(
                    named(role["kind"].as_str().unwrap(), &role["name"], namespace),
                    "{overlay}: {role}"
                );
                for subject in object["subjects"].as_array().unwrap() {
                    let (name, namespace) = (&subject["name"], &subject["namespace"]);
                    assert!(
                        named("ServiceAccount", name, namespace),
                        "{overlay}: {subject}"
                    );
                }
            }
            visit(object, "", &mut |at, value| {
                if at.ends_with(".serviceAccountName") {
                    let namespace = &object["metadata"]["namespace"];
                    assert!(
                        named("ServiceAccount", value, namespace),
                        "{overlay}: {value}"
                    );
                    accounts.insert(value.as_str().unwrap().to_owned());
                }
                if at.ends_with(".priorityClassName") {
                    assert!(
                        named("PriorityClass", value, &Value::Null),
                        "{overlay}: {value}"
                    );
                }
            });
        }
        assert!(!accounts.is_empty(), "{overlay}");
    }
}

/// Volumes that the level restricted knows, of those that are used here.
const PLAIN: &[&str] = &[
    "configMap",
    "secret",
    "emptyDir",
    "downwardAPI",
    "projected",
];

/// What keeps a pod from a level of Pod Security (the standards of Kubernetes, version latest).
fn keeps_from(level: &str, pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let is_restricted = level == "restricted";
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[key] == true {
            found.push(key.to_owned());
        }
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().unwrap().keys();
        for kind in kinds.filter(|kind| *kind != "name") {
            if kind == "hostPath" || (is_restricted && !PLAIN.contains(&kind.as_str())) {
                found.push(kind.clone());
            }
        }
    }
    let of_pod = &pod["securityContext"];
    for list in ["initContainers", "containers"] {
        for container in pod[list].as_array().into_iter().flatten() {
            let own = &container["securityContext"];
            let either = |at: &str| own.pointer(at).or_else(|| of_pod.pointer(at)).cloned();
            let mut wants = |holds: bool, what: &str| {
                if !holds {
                    found.push(what.to_owned());
                }
            };
            wants(own["privileged"] != true, "privileged");
            wants(
                own.pointer("/capabilities/add").is_none(),
                "capabilities.add",
            );
            if is_restricted {
                wants(
                    own["allowPrivilegeEscalation"] == false,
                    "allowPrivilegeEscalation",
                );
                wants(
                    either("/runAsNonRoot") == Some(Value::Bool(true)),
                    "runAsNonRoot",
                );
                let seccomp = either("/seccompProfile/type");
                wants(
                    seccomp.is_some_and(|kind| kind != "Unconfined"),
                    "seccompProfile",
                );
                let dropped = own.pointer("/capabilities/drop/0");
                wants(dropped.is_some_and(|all| all == "ALL"), "capabilities.drop");
            }
        }
    }
    found
}

#[test]
fn each_namespace_has_the_strictest_level_that_admits_its_pods() {
    const LEVELS: [&str; 3] = ["privileged", "baseline", "restricted"];
    for overlay in OVERLAYS {
        let objects = objects(&format!("overlays/{overlay}"));
        let mut pods: Vec<&Value> = Vec::new();
        for (pod, _) in containers(&objects) {
            pods.push(pod);
        }
        let admits = |level: &str| {
            let kept = |pod: &&Value| level != "privileged" && !keeps_from(level, pod).is_empty();
            !pods.iter().any(kept)
        };
        let strictest = LEVELS
            .into_iter()
            .rev()
            .find(|level| admits(level))
            .unwrap();
        let namespace = objects.iter().find(|object| object["kind"] == "Namespace");
        let labels = &namespace.unwrap()["metadata"]["labels"];
        assert_eq!(
            labels["pod-security.kubernetes.io/enforce"], strictest,
            "{overlay}"
        );
    }
    // hostNetwork and hostPath are all that the node's view costs.
    for object in objects("overlays/cce-standard") {
        if let Some(pod) = object.pointer("/spec/template/spec") {
            let mut kept = keeps_from("restricted", pod);
            kept.retain(|what| what != "hostNetwork" && what != "hostPath");
            assert_eq!(kept, Vec::<String>::new());
        }
    }
}
