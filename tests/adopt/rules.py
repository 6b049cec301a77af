#!/usr/bin/env python3
"""Holds files for other tools to the rules that those tools document.

    rules.py TEST     with KUBECTL and VALIDATE in the environment (tests/adopt.rs)
"""
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tarfile
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def krew_s_rules(name, plugin):
    """internal/index/validation/validate.go of krew, its guide to names, and the limits of `kubectl krew search`."""
    assert plugin["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2" and plugin["kind"] == "Plugin"
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and not name.startswith(("kube-", "kubernetes-", "kubectl-")), name
    assert plugin["metadata"] == {"name": name}
    spec = plugin["spec"]
    assert spec.keys() <= {"version", "homepage", "shortDescription", "description", "caveats", "platforms"}, spec.keys()
    assert re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?", spec["version"]), spec["version"]
    assert spec["shortDescription"] and "\n" not in spec["shortDescription"] and len(spec["shortDescription"]) <= 50
    assert not re.search(r"\b(kubectl|kubernetes|plugin)\b", spec["shortDescription"], re.I), "redundant words"
    assert spec["description"] and spec["homepage"].startswith("https://")
    assert all(len(line) <= 90 for line in spec["description"].splitlines())
    assert spec["platforms"]
    chosen = []
    for platform in spec["platforms"]:
        assert platform.keys() <= {"uri", "sha256", "selector", "files", "bin"}, platform.keys()
        assert re.fullmatch(r"https://\S+\.(zip|tar\.gz)", platform["uri"]) and spec["version"] in platform["uri"]
        assert re.fullmatch("[a-f0-9]{64}", platform["sha256"]) and platform["bin"]
        assert "files" not in platform or platform["files"] and all(one["from"] and one["to"] for one in platform["files"])
        (labels,) = platform["selector"].values()
        assert labels.keys() <= {"os", "arch"} and labels
        chosen.append(tuple(sorted(labels.items())))
    assert len(set(chosen)) == len(chosen), "two archives for one platform"


def krew():
    """The manifest follows the rules; a release's has the sums of archives that have what it names."""
    text = (ROOT / "deploy/krew/pullpath.yaml").read_text()
    krew_s_rules("pullpath", yaml.safe_load(text))
    for wrong in (lambda p: p["spec"].update(version="0.1.0"), lambda p: p["spec"]["platforms"][0].update(sha256="A" * 64),
                  lambda p: p["spec"].update(shortDescription="two\nlines"), lambda p: p["spec"]["platforms"][0]["selector"].update(matchLabels={"cpu": "x"})):
        plugin = yaml.safe_load(text)
        wrong(plugin)
        try:
            krew_s_rules("pullpath", plugin)
        except AssertionError:
            continue
        raise SystemExit("a broken manifest was accepted")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        program = folder / "program"
        program.write_text("#!/bin/sh\necho hello\n")
        archives = [pathlib.Path(run(ROOT / "deploy/archive", program, arch, folder).strip()) for arch in ("amd64", "arm64")]
        first = [path.read_bytes() for path in archives]
        for arch in ("amd64", "arm64"):
            run(ROOT / "deploy/archive", program, arch, folder)
        assert first == [path.read_bytes() for path in archives], "the same program gives another archive"
        (folder / "SHA256SUMS").write_text(run("sha256sum", *[path.name for path in archives], cwd=folder))
        run(ROOT / "deploy/krew/generate", "--sums", folder / "SHA256SUMS", "--into", folder)
        plugin = yaml.safe_load((folder / "pullpath.yaml").read_text())
        krew_s_rules("pullpath", plugin)
        by_name = {path.name: path for path in archives}
        for platform in plugin["spec"]["platforms"]:
            archive = by_name[platform["uri"].rsplit("/", 1)[1]]
            assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
            with tarfile.open(archive) as opened:
                names = set(opened.getnames())
                assert opened.getmember(platform["bin"]).mode == 0o755
            # krew asks for the license in the archive.
            assert names == {"LICENSE", "NOTICE", "licences.txt", "pullpath"}, names
        pages(folder, program)


def pages(folder, program):
    """Each command has a manual page, and each shell its completions; a release has both in its archives."""
    of = folder / "pages"
    run(os.environ["CARGO"], "run", "--locked", "--quiet", "--example", "man", "--", of, cwd=ROOT)
    listed = re.findall(r"^  ([a-z-]+) {2,}\S", run(os.environ["PULLPATH"], "--help").split("Commands:")[1].split("Options:")[0], re.M)
    made = {path.name for path in (of / "man").iterdir()}
    assert len(listed) > 10 and {f"pullpath-{one}.1" for one in listed if one != "help"} | {"pullpath.1"} <= made, (listed, made)
    assert not [name for name in made if name.startswith("pullpath-metrics")], "a hidden command has a page"
    for path in (of / "man").iterdir():
        text = path.read_text()
        assert text.count(".TH ") == 1 and ".SH NAME" in text and ".SH SYNOPSIS" in text, path
    shells = {path.name for path in (of / "completions").iterdir()}
    assert shells == {"pullpath.bash", "pullpath.fish", "_pullpath"}, shells
    run("bash", "-n", of / "completions/pullpath.bash")
    assert "node-check" in (of / "completions/pullpath.bash").read_text()
    first = pathlib.Path(run(ROOT / "deploy/archive", program, "amd64", folder, of).strip()).read_bytes()
    archive = pathlib.Path(run(ROOT / "deploy/archive", program, "amd64", folder, of).strip())
    assert first == archive.read_bytes(), "the same program gives another archive"
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
        assert {"man/pullpath.1", "completions/_pullpath", "LICENSE", "pullpath"} <= names, names
        assert opened.getmember("man/pullpath.1").mode == 0o644


DURATION = re.compile(r"(\d+)(ms|s|m|h)")
PARTS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def seconds(text):
    assert re.fullmatch(r"(\d+(ms|s|m|h))+", text), text
    return sum(int(number) * PARTS[unit] for number, unit in DURATION.findall(text))


def detector_s_rules(config):
    """pkg/custompluginmonitor/types/config.go of node-problem-detector, and its keys."""
    assert config.keys() <= {"plugin", "pluginConfig", "source", "conditions", "rules", "metricsReporting"}, config.keys()
    assert config["plugin"] == "custom" and config["source"]
    of_all = config["pluginConfig"]
    assert of_all.keys() <= {"invoke_interval", "timeout", "max_output_length", "concurrency", "enable_message_change_based_condition_update", "skip_initial_status"}
    assert seconds(of_all["invoke_interval"]) > 0 and of_all["max_output_length"] == 80
    known = {one["type"] for one in config["conditions"]}
    words = [one[key] for one in config["conditions"] for key in ("type", "reason")] + [rule["reason"] for rule in config["rules"]]
    assert all(re.fullmatch("[A-Z][A-Za-z]+", word) for word in words), words
    assert all(len(one["message"]) <= 80 for one in config["conditions"])
    for rule in config["rules"]:
        assert rule.keys() <= {"type", "condition", "reason", "path", "args", "timeout", "invoke_interval"}, rule.keys()
        assert rule["type"] in ("temporary", "permanent") and os.path.isabs(rule["path"])
        assert seconds(rule["timeout"]) <= seconds(of_all["timeout"]), "a rule's timeout is greater than that of all"
        assert rule["type"] == "temporary" or rule["condition"] in known, "a permanent problem without its condition"
        assert all(one["reason"] != rule["reason"] for one in config["conditions"]), "healthy and not, with one reason"


def detector():
    """The configuration follows the rules, and the component adds it to node-problem-detector's own DaemonSet."""
    text = (ROOT / "deploy/node-problem-detector/pullpath.json").read_text()
    detector_s_rules(json.loads(text))
    for wrong in (lambda c: c["rules"][0].update(timeout="11s"), lambda c: c.update(conditions=[]), lambda c: c["rules"][0].update(argument=[]),
                  lambda c: c["pluginConfig"].update(invoke_interval="0s")):
        config = json.loads(text)
        wrong(config)
        try:
            detector_s_rules(config)
        except AssertionError:
            continue
        raise SystemExit("a broken configuration was accepted")
    # The command follows the plugin's protocol: a status, and one line on standard output that is not cut.
    (rule,) = json.loads(text)["rules"]
    program = [os.environ["PULLPATH"], *rule["args"]]
    with socket.create_server(("127.0.0.1", 0)) as other:
        # This port is bound and nothing answers there.
        at = f"127.0.0.1:{other.getsockname()[1]}"
        done = subprocess.run([*program, "--timeout", "1s", "--admin-listen", at], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not done.stderr, done
    assert done.stdout.startswith("no result from pullpath") and len(done.stdout.strip().encode()) <= 80, done.stdout
    # It ends by itself before it is killed, which would replace its message.
    usual = re.search(r"--timeout .*?\[default: (\w+)\]", run(os.environ["PULLPATH"], "node-check", "--help"), re.S)[1]
    assert seconds(usual) < seconds(rule["timeout"])
    # As its deployment/ has it, in what the patch touches.
    daemonset = {
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "node-problem-detector", "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": {"app": "npd"}}, "template": {"metadata": {"labels": {"app": "npd"}}, "spec": {
            "containers": [{"name": "node-problem-detector", "image": "npd:1", "command": ["/node-problem-detector", "--logtostderr"],
                            "volumeMounts": [{"name": "config", "mountPath": "/config", "readOnly": True}]}],
            "volumes": [{"name": "config", "configMap": {"name": "node-problem-detector-config"}}]}}}}
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder).resolve()
        (at / "npd.yaml").write_text(json.dumps(daemonset))
        component = os.path.relpath(ROOT / "deploy/node-problem-detector", at)
        (at / "kustomization.yaml").write_text(json.dumps({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["npd.yaml"], "components": [component]}))
        made = {one["kind"]: one for one in yaml.safe_load_all(run(os.environ["KUBECTL"], "kustomize", at))}
        (at / "made.json").write_text(json.dumps(made["DaemonSet"]))
        run(os.environ["VALIDATE"], "--strict", "--quiet", at / "made.json")
    spec = made["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["hostNetwork"] is True
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    (flag,) = [word for word in container["command"] if word.startswith("--config.custom-plugin-monitor=")]
    place, name = os.path.split(flag.split("=")[1])
    assert mounts["config-pullpath"] == place and name in made["ConfigMap"]["data"]
    assert volumes["config-pullpath"]["configMap"]["name"] == made["ConfigMap"]["metadata"]["name"]
    # The program is copied from where it is in one image to where it is called in the other.
    (source, target) = re.search(r"^COPY --from=pullpath (\S+) (\S+)$", (ROOT / "deploy/node-problem-detector/Containerfile").read_text(), re.M).groups()
    assert f"COPY pullpath {source}\n" in (ROOT / "deploy/Containerfile").read_text()
    assert target == json.loads(text)["rules"][0]["path"]


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def workflows():
    """CI runs the gate, and a release has all its parts. Actions are fixed by their commits, scripts are valid and take
    nothing from an expression, and no job may write more than it must."""
    scripts, of = "", {}
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        text = path.read_text()
        # YAML 1.1 reads the key `on` as true.
        of[path.stem] = workflow = yaml.safe_load(text)
        assert workflow[True] and workflow["permissions"] == {"contents": "read"}, path
        for line in text.splitlines():
            if "uses:" in line:
                assert re.search(r"uses: [\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] and job.get("permissions", {}).keys() <= {"contents", "packages"}
        for step in steps(workflow):
            if "checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
            if script := step.get("run"):
                assert "${{" not in script, "an expression in a script: " + script
                subprocess.run(["bash", "-n"], input=script, text=True, check=True)
                scripts += script + "\n"
    assert [step for step in steps(of["ci"]) if step.get("run") == ".ci/run"]
    for name in re.findall(r"(?<![\w/])(?:\.\./)?((?:deploy|tests|\.ci)/[\w./-]+)", scripts):
        assert (ROOT / name).exists(), name
    for part in ("deploy/image", "deploy/archive", "deploy/notices --sbom", "--example man -- pages", "helm push", "SHA256SUMS", "deploy/krew/generate --sums", "gh release create"):
        assert part in scripts, part
    built = of["release"]["jobs"]["build"]["strategy"]["matrix"]["include"]
    assert {one["arch"] for one in built} == {"amd64", "arm64"}
    # The placeholder that a release replaces is there.
    assert "  repository: registry.example.com/pullpath/pullpath\n" in (ROOT / "deploy/chart/values.yaml").read_text()


def forms():
    """GitHub's rules of issue forms; those that are about a verdict ask for the report."""
    names = set()
    for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            assert form.keys() <= {"blank_issues_enabled", "contact_links"}
            continue
        assert form.keys() <= {"name", "description", "title", "labels", "body", "assignees", "projects", "type"}, path
        assert form["name"] not in names and form["description"]
        names.add(form["name"])
        kinds, ids = [one["type"] for one in form["body"]], [one["id"] for one in form["body"] if "id" in one]
        assert set(kinds) <= {"markdown", "textarea", "input", "dropdown", "checkboxes"} and set(kinds) != {"markdown"}, path
        assert len(ids) == len(set(ids)) and all(re.fullmatch("[A-Za-z0-9_-]+", one) for one in ids)
        for one in form["body"]:
            assert one["attributes"]["value"] if one["type"] == "markdown" else one["attributes"]["label"], path
        assert "-o json" in path.read_text(), path
    assert len(names) >= 3
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())
    assert updates["version"] == 2
    assert {one["package-ecosystem"] for one in updates["updates"]} == {"cargo", "github-actions"}
    for one in updates["updates"]:
        assert one["schedule"]["interval"] in ("daily", "weekly", "monthly")
        for folder in one.get("directories", []):
            assert (ROOT / folder.strip("/") / "Cargo.toml").exists(), folder
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", ".github/PULL_REQUEST_TEMPLATE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
            assert "://" in target or (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def sbom():
    """The list has each crate that is linked, with its sum, in the keys of CycloneDX 1.5."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "sbom.json"
        run(ROOT / "deploy/notices", "--sbom", path)
        whole = json.loads(path.read_text())
    assert (whole["bomFormat"], whole["specVersion"], whole["version"]) == ("CycloneDX", "1.5", 1)
    assert whole["metadata"]["component"]["name"] == "pullpath"
    components = {one["name"]: one for one in whole["components"]}
    assert {"tokio", "rustls", "hyper", "kube"} <= components.keys() and "insta" not in components
    for one in whole["components"]:
        assert one["purl"] == one["bom-ref"] == f"pkg:cargo/{one['name']}@{one['version']}" and one["type"] == "library"
        assert re.fullmatch("[0-9a-f]{64}", one["hashes"][0]["content"]) and one["licenses"][0]["expression"]
    # Each license of a list is in licences.txt.
    texts = (ROOT / "deploy/licences.txt").read_text()
    assert all(f"{one['name']} {one['version']}" in texts for one in whole["components"])


TESTS = {one.__name__: one for one in (krew, detector, workflows, forms, sbom)}

if __name__ == "__main__":
    TESTS[sys.argv[1]]()
