#!/usr/bin/env python3
"""Compares Helm's chart with the manifests for kustomize, and checks what else is promised of the chart.

    chart.py TEST     with HELM, KUBECTL, VALIDATE and PULLPATH in the environment (tests/adopt.rs)
"""
import copy
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/chart"
DISTRIBUTIONS = yaml.safe_load((ROOT / "deploy/distributions.yaml").read_text())
OVERLAYS = ["any", "cce-standard", "cce-turbo", "cce-autopilot", "pod-view"]
NAMESPACES = {"pod-view": "pullpath-pod-view"}
# What Helm recommends on every object; the manifests don't have them.
OF_HELM = {"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"}
NAMED = {"app.kubernetes.io/name", "app.kubernetes.io/component"}
LINT = {"lint": {"enabled": True}}

# Components, with the chart's values for each, and the keys of the configuration that belong to it: the chart sets both
# the right and the key.
COMPONENTS = {
    "ask": ({"ask": {"enabled": True}}, {}),
    "pod-events": ({"podEvents": {"enabled": True}}, {"kubernetes": {"events": "pods"}}),
    "spread": ({"spread": {"enabled": True}}, {"spread": {"transfers": "leases", "namespace": "pullpath-spread"}}),
    "secrets-discovered": ({"secrets": {"mode": "discovered"}}, {"kubernetes": {"secrets": "discovered"}}),
    "secrets-named": (
        {"secrets": {"mode": "named", "named": [{"namespace": "shop", "names": ["pull"]}]}},
        {"kubernetes": {"secrets": "named", "named_secrets": [{"namespace": "shop", "names": ["pull"]}]}}),
    "lint": (LINT, {}),
    "image-pull-secret": ({"imagePullSecrets": [{"name": "pullpath-image"}]}, {}),
    "network-policy": ({"networkPolicy": {"enabled": True}}, {}),
    "service-monitor": ({"serviceMonitor": {"enabled": True}}, {}),
    "node-files": ({"nodeFiles": {"enabled": True}}, {}),
    "node-files-pki": ({"nodeFiles": {"pki": True}}, {}),
    "node-files-as-root": ({"nodeFiles": {"asRoot": True}}, {}),
    **{f"distribution-{name}": ({"distribution": name}, {}) for name in DISTRIBUTIONS},
    "network-policy-pod-view": ({"networkPolicy": {"enabled": True}}, {}),
    "autopilot-by-eip": ({"autopilot": {"byEip": {"enabled": True}}}, {}),
    "autopilot-transfer-test": ({"autopilot": {"transferTest": {"enabled": True}}}, {}),
}
# Parts of the CCE overlays, which the chart has with `overlay`.
OF_OVERLAYS = {"default-secret"}
OF_POD_VIEW = {"network-policy-pod-view"}
OF_AUTOPILOT = {"autopilot-by-eip", "autopilot-transfer-test"}
# The overlays for CCE nodes have these already.
OF_ANY = {"node-files", "node-files-pki"} | {name for name in COMPONENTS if name.startswith("distribution-")}


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)
    if done.returncode:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def refused(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode, f"{command} was accepted"
    return done.stderr


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one]


def merged(first, second):
    result = copy.deepcopy(first)
    for key, value in second.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else copy.deepcopy(value)
    return result


def values_file(folder, values):
    path = pathlib.Path(folder) / "values.yaml"
    path.write_text(json.dumps(values))
    return path


def template(values, namespace="pullpath", release="pullpath"):
    with tempfile.TemporaryDirectory() as folder:
        return objects(run(os.environ["HELM"], "template", release, CHART, "-n", namespace, "-f", values_file(folder, values)))


def kustomized(overlay, components):
    with tempfile.TemporaryDirectory() as folder:
        # kustomize takes no absolute paths.
        at = pathlib.Path(folder).resolve()
        deploy = os.path.relpath(ROOT / "deploy", at)
        (at / "kustomization.yaml").write_text(json.dumps({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [f"{deploy}/overlays/{overlay}"],
            "components": [f"{deploy}/components/{name}" for name in components]}))
        return objects(run(os.environ["KUBECTL"], "kustomize", at))


def key(one):
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def without_helms(value):
    """Labels that Helm recommends are no difference, wherever they select or label."""
    if isinstance(value, dict):
        return {name: without_helms(inner) for name, inner in value.items() if name not in OF_HELM}
    return [without_helms(inner) for inner in value] if isinstance(value, list) else value


def difference(ours, theirs, at=""):
    """Each path at which two values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            yield from difference(ours.get(name), theirs.get(name), f"{at}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs)):
            yield from difference(one, other, f"{at}[{number}]")
    elif ours != theirs:
        yield f"{at}: {ours!r} in the chart, {theirs!r} by kustomize"


def prepared(one, plain):
    """An object of the chart, as it is compared with that of kustomize."""
    one = without_helms(one)
    metadata = one["metadata"]
    wanted = (plain or {}).get("metadata", {}).get("labels") or {}
    labels = {name: value for name, value in (metadata.pop("labels", None) or {}).items() if name in wanted or name not in NAMED}
    if labels:
        metadata["labels"] = labels
    return one


def sorted_volumes(one):
    """Volumes are found by their names; their order means nothing."""
    spec = one.get("spec", {}).get("template", {}).get("spec") if one["kind"] == "DaemonSet" else None
    if spec:
        spec["volumes"].sort(key=lambda volume: volume["name"])
        spec["containers"][0]["volumeMounts"].sort(key=lambda mount: mount["name"])
    return one


def configured(one):
    """The text of a configuration is compared by its content."""
    if one["kind"] == "ConfigMap" and "pullpath.yaml" in one["data"]:
        one = copy.deepcopy(one)
        one["data"]["pullpath.yaml"] = yaml.safe_load(one["data"]["pullpath.yaml"])
    return one


def compare(overlay, components):
    """Returns how many objects were equal."""
    values, keys = {"overlay": overlay, "namespace": {"create": True}, "test": {"enabled": False}}, {}
    for name in components:
        values = merged(values, COMPONENTS[name][0])
        keys = merged(keys, COMPONENTS[name][1])
    ours = {key(one): one for one in template(values, NAMESPACES.get(overlay, "pullpath"))}
    theirs = {key(one): one for one in kustomized(overlay, components)}
    found = [f"{one}: by kustomize alone" for one in theirs.keys() - ours.keys()] + [f"{one}: in the chart alone" for one in ours.keys() - theirs.keys()]
    for name in ours.keys() & theirs.keys():
        plain = sorted_volumes(configured(theirs[name]))
        mine = sorted_volumes(configured(prepared(ours[name], plain)))
        if name[0] == "ConfigMap" and name[2] != "pullpath-cluster":
            plain["data"]["pullpath.yaml"] = merged(plain["data"]["pullpath.yaml"], keys)
        if name[0] == "ConfigMap" and name[2] == "pullpath-cluster" and "lint" in components:
            plain["data"]["pullpath.yaml"] = merged(plain["data"]["pullpath.yaml"], {"cluster": {"lint": "on"}})
        found += [f"{name}{path}" for path in difference(mine, plain)]
    if found:
        raise SystemExit(f"{overlay} with {components}:\n" + "\n".join(found))
    return len(theirs)


def applicable(overlay):
    if overlay == "cce-autopilot":
        return OF_AUTOPILOT
    if overlay == "pod-view":
        return OF_POD_VIEW
    general = COMPONENTS.keys() - OF_AUTOPILOT - OF_POD_VIEW
    return general if overlay == "any" else general - OF_ANY


def equal():
    """Object by object: each overlay alone, with each of its components, and with all that go together."""
    folders = {path.name for path in (ROOT / "deploy/components").iterdir()}
    assert folders == COMPONENTS.keys() | OF_OVERLAYS, folders ^ (COMPONENTS.keys() | OF_OVERLAYS)
    assert {path.name for path in (ROOT / "deploy/overlays").iterdir()} == set(OVERLAYS)
    compared = 0
    for overlay in OVERLAYS:
        compared += compare(overlay, [])
        for name in sorted(applicable(overlay)):
            compared += compare(overlay, [name])
        together = sorted(name for name in applicable(overlay) if name not in OF_ANY and name != "secrets-discovered")
        compared += compare(overlay, together)
    compared += compare("any", ["node-files", "node-files-pki", "node-files-as-root"])
    assert compared > 300, compared
    print(compared, "objects are equal")


def would_differ():
    """The comparison sees a key that is missing, one that is more, and another value."""
    (one,) = [one for one in kustomized("any", []) if one["kind"] == "DaemonSet"]
    for change in (lambda spec: spec.pop("priorityClassName"), lambda spec: spec.update(hostPID=True), lambda spec: spec.update(dnsPolicy="None")):
        other = copy.deepcopy(one)
        change(other["spec"]["template"]["spec"])
        assert len(list(difference(prepared(other, one), one))) == 1


def monitoring():
    """The alerts, dashboards and both monitors are those of the other folders."""
    values = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
    of = {}
    for one in template(values):
        of.setdefault(one["kind"], []).append(one)
    plain = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "deploy/monitoring").glob("*.yaml") if path.stem in ("podmonitor", "prometheusrule")}
    assert of["PodMonitor"][0]["spec"]["podMetricsEndpoints"] == plain["podmonitor"]["spec"]["podMetricsEndpoints"]
    assert of["ServiceMonitor"][0]["spec"]["endpoints"] == plain["podmonitor"]["spec"]["podMetricsEndpoints"]
    assert of["PrometheusRule"][0]["spec"] == plain["prometheusrule"]["spec"]
    boards = {name: json.loads(text) for one in of["ConfigMap"] if "dashboard" in one["metadata"]["name"] for name, text in one["data"].items()}
    assert boards == {path.name: json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")}
    component = yaml.safe_load((ROOT / "deploy/components/service-monitor/servicemonitor.yaml").read_text())
    assert component["spec"]["endpoints"] == plain["podmonitor"]["spec"]["podMetricsEndpoints"]
    # A Service finds the pods of a monitor by labels that the pods have.
    for one in of["DaemonSet"] + of["Deployment"]:
        selector = of["Service"][0]["spec"]["selector"]
        assert selector.items() <= one["spec"]["template"]["metadata"]["labels"].items(), one["metadata"]
    assert of["ServiceMonitor"][0]["spec"]["selector"]["matchLabels"].items() <= of["Service"][0]["metadata"]["labels"].items()


# Each value differs from its default.
EVERYTHING = {
    "fullnameOverride": "other", "namespaceOverride": "elsewhere", "commonLabels": {"team": "platform"},
    "image": {"repository": "mine.example.com/pullpath", "tag": "9", "digest": "sha256:" + "a" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "mine"}], "config": {"schedule": {"reach": "5m"}}, "logFormat": "text",
    "node": {
        "resources": {"limits": {"memory": "97Mi"}}, "nodeSelector": {"pool": "a"}, "tolerations": [{"key": "t", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Exists"}]}]}}},
        "priorityClassName": "important", "minReadySeconds": 3, "updateStrategy": {"type": "OnDelete", "rollingUpdate": None},
        "podAnnotations": {"an": "notation"}, "podLabels": {"la": "bel"}, "extraArgs": ["--grace=3s"], "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "extraVolumes": [{"name": "more", "secret": {"secretName": "s"}}], "extraVolumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": True}],
        "serviceAccount": {"create": False, "name": "given"}},
    "cluster": {
        "replicas": 3, "config": {"log": {"level": "debug"}}, "resources": {"limits": {"memory": "257Mi"}}, "nodeSelector": {"pool": "b"},
        "affinity": {"nodeAffinity": {}}, "tolerations": [{"key": "u", "operator": "Exists"}], "priorityClassName": "less", "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"}, "extraEnv": [{"name": "E", "value": "f"}], "serviceAccount": {"create": False, "name": "cluster-given"}},
    "test": {"image": "mine.example.com/app:1", "extraArgs": ["--timeout=3s"]},
}


def values():
    """Each value is used, and all together give valid objects; the program accepts the configurations."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sets = [{"overlay": overlay} for overlay in OVERLAYS] + [{"distribution": name} for name in DISTRIBUTIONS]
        sets += [merged({"overlay": overlay}, EVERYTHING) for overlay in ("any", "pod-view", "cce-autopilot")]
        sets += [{"overlay": overlay, "networkPolicy": {"enabled": True}} for overlay in ("any", "pod-view")]
        for number, chosen in enumerate(sets):
            paths = []
            for place, one in enumerate(template(chosen)):
                # Kubernetes has no schema of OpenShift's.
                if one["apiVersion"] != "security.openshift.io/v1":
                    paths.append(folder / f"{number}-{place}.yaml")
                    paths[-1].write_text(json.dumps(one))
                if one["kind"] == "ConfigMap" and "pullpath.yaml" in one["data"]:
                    path = folder / "pullpath.yaml"
                    path.write_text(one["data"]["pullpath.yaml"])
                    run(os.environ["PULLPATH"], "config", "check", path)
            run(os.environ["VALIDATE"], "--strict", "--quiet", *paths)
        of = {one["kind"] + "/" + one["metadata"]["name"]: one for one in template(EVERYTHING)}
        assert all(one["metadata"].get("namespace", "elsewhere") == "elsewhere" for one in of.values()), of.keys()
        assert all(one["metadata"]["labels"]["team"] == "platform" for one in of.values())
        assert "ServiceAccount/given" not in of and not [name for name in of if name.startswith(("PriorityClass/", "ServiceAccount/"))]
        node, cluster = of["DaemonSet/other-node"]["spec"], of["Deployment/other-cluster"]["spec"]
        pod, second = node["template"]["spec"], cluster["template"]["spec"]
        assert pod["containers"][0]["image"] == f"mine.example.com/pullpath@sha256:{'a' * 64}"
        for spec in (pod, second):
            assert spec["imagePullSecrets"] == [{"name": "mine"}] and spec["containers"][0]["imagePullPolicy"] == "Always"
            assert "--log-format=text" in spec["containers"][0]["args"]
        assert pod["serviceAccountName"] == "given" and second["serviceAccountName"] == "cluster-given"
        assert of["ClusterRoleBinding/other-node"]["subjects"][0]["name"] == "given"
        assert (pod["priorityClassName"], second["priorityClassName"]) == ("important", "less")
        assert (node["minReadySeconds"], node["updateStrategy"]["type"], cluster["replicas"]) == (3, "OnDelete", 3)
        assert pod["nodeSelector"] == {"pool": "a", "kubernetes.io/os": "linux"} and second["nodeSelector"] == {"pool": "b"}
        assert pod["tolerations"] == [{"key": "t", "operator": "Exists"}] and "--grace=3s" in pod["containers"][0]["args"]
        assert node["template"]["metadata"]["annotations"] == {"an": "notation"} and node["template"]["metadata"]["labels"]["la"] == "bel"
        assert pod["containers"][0]["env"][-1]["name"] == "RUST_BACKTRACE" and pod["volumes"][-1]["name"] == "more"
        assert pod["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "97Mi"}
        assert yaml.safe_load(of["ConfigMap/other"]["data"]["pullpath.yaml"])["schedule"] == {"reach": "5m"}
        assert yaml.safe_load(of["ConfigMap/other-cluster"]["data"]["pullpath.yaml"])["log"] == {"level": "debug"}
        # A release of another name has names of its own, and only those.
        for one in template({}, release="second", namespace="b"):
            assert one["metadata"]["name"].startswith("second-pullpath"), key(one)


def refusals():
    """The schema and the templates refuse what can't be meant, with the name of the value."""
    for wrong, named in [
            ({"overlay": "cce"}, "overlay"), ({"distribution": "minikube"}, "distribution"), ({"image": {"digest": "sha256:1"}}, "digest"),
            ({"replicas": 1}, "replicas"), ({"node": {"resource": {}}}, "resource"), ({"secrets": {"mode": "all"}}, "mode"),
            ({"secrets": {"mode": "named"}}, "secrets.named"), ({"secrets": {"named": [{"namespace": "a"}]}}, "named"),
            ({"cluster": {"replicas": "2"}}, "replicas"), ({"podMonitor": {"enabled": True, "interval": "30"}}, "interval"),
            ({"overlay": "cce-turbo", "distribution": "k3s"}, "distribution"), ({"overlay": "pod-view", "nodeFiles": {"pki": True}}, "nodeFiles"),
            ({"overlay": "cce-autopilot", "spread": {"enabled": True}}, "spread.enabled"), ({"overlay": "pod-view", "lint": {"enabled": True}}, "lint.enabled"),
            ({"secrets": {"mode": "named", "named": [{"namespace": "a", "names": ["b"]}, {"namespace": "a", "names": ["c"]}]}}, "twice"),
            ({"lint": {"secrets": True}}, "lint.secrets"), ({"imagePullSecrets": ["mine"]}, "imagePullSecrets"), ({"networkPolicy": {"apiServerPorts": [0]}}, "apiServerPorts")]:
        with tempfile.TemporaryDirectory() as folder:
            said = refused(os.environ["HELM"], "template", "pullpath", CHART, "-f", values_file(folder, wrong))
            assert named in said, f"{wrong}: {said}"


def hook():
    """The test's pod runs a probe that the program understands, from the daemons' network, with their files."""
    for chosen in [{"overlay": overlay} for overlay in OVERLAYS] + [{"distribution": "k3s"}, EVERYTHING]:
        rendered = template(chosen)
        (pod,) = [one for one in rendered if one["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
        spec = pod["spec"]
        (daemon,) = [one for one in rendered if one["metadata"]["labels"].get("app.kubernetes.io/component") == "node" and "template" in one.get("spec", {})]
        daemon = daemon["spec"]["template"]["spec"]
        assert spec.get("hostNetwork") == daemon.get("hostNetwork"), chosen
        assert spec["containers"][0]["image"] == daemon["containers"][0]["image"]
        names = {volume["name"] for volume in spec["volumes"]}
        assert {volume["name"] for volume in daemon["volumes"] if "hostPath" in volume} <= names
        assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == names
        args = spec["containers"][0]["args"]
        assert args[0] == "probe" and args[1] == chosen.get("test", {}).get("image", spec["containers"][0]["image"])
        run(os.environ["PULLPATH"], *args, "--help")


def notes():
    """NOTES.txt is rendered, and names only objects that are there. Nothing is sent to a cluster."""
    for overlay in OVERLAYS:
        said = run(os.environ["HELM"], "install", "pullpath", CHART, "-n", "somewhere", "--dry-run=client", "--set", f"overlay={overlay}", env={**os.environ, "KUBECONFIG": "/dev/null"})
        body, text = said.split("NOTES:")
        names = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in template({"overlay": overlay})}
        for word in text.split():
            if word.startswith(("daemonset/", "deployment/")):
                assert word in names, f"{overlay}: {word}"
        assert "placeholder" in text and "namespace somewhere" in text


def lint():
    run(os.environ["HELM"], "lint", "--strict", CHART)
    for overlay in OVERLAYS:
        run(os.environ["HELM"], "lint", "--strict", CHART, "--set", f"overlay={overlay}")


def folders():
    """What a node lacks never keeps a pod from starting: each folder of the node is created if it is absent, read-only in
    the pod, and none has Secrets of other pods."""
    seen = 0
    for values_ in [{"distribution": name} for name in DISTRIBUTIONS] + [{"overlay": "cce-standard"}, {"nodeFiles": {"enabled": True, "pki": True}}]:
        for one in template(values_):
            spec = one.get("spec", {}).get("template", {}).get("spec") or (one["spec"] if one["kind"] == "Pod" else {})
            mounts = {mount["name"]: mount for container in spec.get("containers", []) for mount in container["volumeMounts"]}
            for volume in spec.get("volumes", []):
                if path := volume.get("hostPath"):
                    assert path["type"] == "DirectoryOrCreate" and mounts[volume["name"]]["readOnly"] is True, volume
                    assert not "/var/lib/kubelet".startswith(path["path"].rstrip("/")), volume
                    seen += 1
    assert seen > 30, seen
    for path in (ROOT / "deploy/components").glob("*/kustomization.yaml"):
        text = path.read_text()
        assert text.count("hostPath: {") == text.count("type: DirectoryOrCreate}}"), path
    # What a configuration names is in a folder that is mounted.
    for name, of in DISTRIBUTIONS.items():
        places = [folder.get("at", "/host" + folder["path"]) for folder in of["folders"]]
        for key_, value in of["network"].items():
            for path in value if isinstance(value, list) else [value]:
                assert not path.startswith("/") or any((path + "/").startswith(place + "/") for place in places), f"{name}: {key_}: {path}"


def packaged():
    """A package, pushed to a real registry and pulled from it, makes the same objects as the folder."""
    helm, namespace = os.environ["HELM"], "pullpath"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run(helm, "package", CHART, "-d", folder)
        (package,) = folder.glob("pullpath-*.tgz")
        with tarfile.open(package) as archive:
            names = archive.getnames()
        assert "pullpath/generate" not in names and "pullpath/values.schema.json" in names, names
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder / "store")}}, "http": {"addr": f"127.0.0.1:{port}"}}
        (folder / "registry.yml").write_text(json.dumps(config))
        with open(folder / "registry.log", "w", encoding="utf-8") as log:
            registry = subprocess.Popen([shutil.which("docker-registry"), "serve", folder / "registry.yml"], stdout=log, stderr=log)
        try:
            ready(port, registry)
            env = {**os.environ, "HELM_REGISTRY_CONFIG": str(folder / "login.json"), "HELM_CACHE_HOME": str(folder / "cache"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
            run(helm, "push", package, f"oci://127.0.0.1:{port}/charts", "--plain-http", env=env)
            version = package.stem.removeprefix("pullpath-")
            (folder / "pulled").mkdir()
            run(helm, "pull", f"oci://127.0.0.1:{port}/charts/pullpath", "--version", version, "--plain-http", "-d", folder / "pulled", env=env)
        finally:
            registry.kill()
            registry.wait()
        pulled = run(helm, "template", "pullpath", folder / "pulled" / package.name, "-n", namespace)
        assert pulled == run(helm, "template", "pullpath", CHART, "-n", namespace)


def ready(port, process):
    for _ in range(600):
        assert process.poll() is None, "the registry ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the registry does not answer")


def lint_of_secrets():
    """The cluster role gets the daemons' rights to Secrets, as docs/lint.md has them, and the keys."""
    named = [{"namespace": "shop", "names": ["pull"]}, {"namespace": "store", "names": ["a", "b"]}]
    for mode in ("discovered", "named"):
        of = {key(one): one for one in template({"lint": {"enabled": True, "secrets": True}, "secrets": {"mode": mode, "named": named}})}
        found = {name: one for name, one in of.items() if name[0].endswith("RoleBinding") and name[2] == "pullpath-cluster-secrets"}
        assert [name[1] for name in found] == ([""] if mode == "discovered" else ["shop", "store"])
        for one in found.values():
            assert one["subjects"] == [{"kind": "ServiceAccount", "name": "pullpath-cluster", "namespace": "pullpath"}]
            assert (one["roleRef"]["kind"], one["metadata"].get("namespace", ""), one["roleRef"]["name"]) in of
        for name in ("pullpath", "pullpath-cluster"):
            config = yaml.safe_load(of["ConfigMap", "pullpath", name]["data"]["pullpath.yaml"])["kubernetes"]
            assert config["secrets"] == mode and config.get("named_secrets", named) == named
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "pullpath.yaml"
                path.write_text(of["ConfigMap", "pullpath", name]["data"]["pullpath.yaml"])
                run(os.environ["PULLPATH"], "config", "check", path)


TESTS = {one.__name__: one for one in (equal, would_differ, monitoring, values, lint_of_secrets, refusals, hook, notes, lint, folders, packaged)}

if __name__ == "__main__":
    TESTS[sys.argv[1]]()
