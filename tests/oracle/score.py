"""Compares what real runtimes did with what the probe said, and prints where they disagree."""

import collections
import json
import os
import subprocess

import causes
from worlds import DIMENSIONS, harmful_values, is_usual, unusual

HERE = os.path.dirname(os.path.abspath(__file__))
# Faults that only the whole bytes of a blob show.
BYTES_DECIDE = {
    "layer_body": {"wrong_bytes", "nothing_more", "range_refused", "wrong_range", "reset", "stall", "shorter", "longer"},
    "content": {"wrong_diff_ids", "no_archive"},
    "config": {"wrong_bytes", "truncated", "reset"},
    "layer_headers": {"gzip", "deflate", "raw-deflate", "zstd", "false_gzip"},
}


def truth(pulls):
    """What a runtime did in one world: pulled, failed (with "stalls") or intermittent."""
    outcomes = {"pulled" if pull["outcome"] == "pulled" else "failed" for pull in pulls}
    return "intermittent" if len(outcomes) > 1 else outcomes.pop()


def compare(fact, verdict, others=()):
    """agree, disagree, unknown, none or intermittent; "others differ" where that is why it is unknown.

    `others` are what a build with upstream's defaults did, and a runtime that was started after the change of a file.
    """
    if verdict not in ("would_succeed", "would_fail", "unknown"):
        return "none"
    if fact == "intermittent":
        return "intermittent"
    if verdict == "unknown":
        return "unknown" if all(other == fact for other in others) else "others differ"
    return "agree" if (verdict == "would_succeed") == (fact == "pulled") else "disagree"


def others_of(result, version):
    """The result of the same world with upstream's defaults, and after a restart."""
    return [truth([result[kind][version]]) for kind in ("upstream", "restarted") if version in result.get(kind, {})]


def exceptions():
    """What no check can know, with why: faults as "dimension=value" or "dimension=class/member"."""
    with open(os.path.join(HERE, "exceptions.json"), encoding="utf-8") as file:
        return json.load(file)


def critical(report):
    return [finding for finding in report["findings"] if finding["severity"] == "critical"]


def only_bytes_decide(values):
    harmful = harmful_values(values)
    return bool(harmful) and all(value in BYTES_DECIDE.get(dimension, ()) for dimension, value in harmful)


def failure_program():
    """The example `failure`, if it is built."""
    root = os.path.dirname(os.path.dirname(HERE))
    for path in (os.environ.get("PULLPATH_FAILURE"), f"{root}/target/release/examples/failure", f"{root}/target/debug/examples/failure"):
        if path and os.access(path, os.X_OK):
            return path
    return None


def causes_of_texts(texts):
    """The cause that the product reads from each (image, text), or None where it can't be asked."""
    program = failure_program()
    if program is None or not texts:
        return None
    asked = "".join(json.dumps({"image": image, "text": text}) + "\n" for image, text in texts)
    output = subprocess.run([program], input=asked, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line)["cause"] for line in output.stdout.splitlines()]


class Tally:
    """Counts of agree, disagree, unknown, none and intermittent."""

    def __init__(self):
        self.counts = collections.Counter()

    def add(self, what):
        self.counts[what] += 1

    def of(self, *names):
        return sum(self.counts[name] for name in names)

    @property
    def agreement(self):
        """The share of definite verdicts that agree."""
        definite = self.of("agree", "disagree")
        return self.counts["agree"] / definite if definite else None

    @property
    def unknown(self):
        total = self.of("agree", "disagree", "unknown", "none", "others differ")
        return self.of("unknown", "none") / total if total else 0.0

    def as_dict(self):
        return {**self.counts, "agreement": self.agreement, "unknown_share": self.unknown}


class Score:
    """What is counted over all results."""

    def __init__(self, versions):
        self.versions = versions
        self.runtime = {version: Tally() for version in versions}
        self.off = {version: Tally() for version in versions}
        self.values = collections.defaultdict(lambda: {version: Tally() for version in versions})
        self.pulled = collections.Counter()
        self.alone = collections.Counter()
        self.fired = collections.Counter()
        self.disagreements, self.high, self.off_blind, self.broken = [], [], [], []
        # How often a build with upstream's defaults had another result.
        self.builds = 0
        # Unknown where a fault is one that no check can know.
        self.exceptions, self.excepted = exceptions(), collections.Counter()
        self.cause_right, self.cause_wrong, self.right_high = 0, [], 0
        self.texts = []
        self.probe_seconds, self.pull_seconds, self.most_requests = [], [], 0

    def add(self, result):
        if "broken" in result:
            self.broken.append(result)
            return
        values = result["values"]
        facts = {version: truth(result["pulls"][version]) for version in self.versions}
        for version in self.versions:
            report, pulls = result["probes"][version], result["pulls"][version]
            fact = facts[version]
            self.pulled[version] += fact == "pulled"
            other = others_of(result, version)
            self.builds += any(by != fact for by in other)
            judgement = compare(fact, report["verdict"], other)
            self.runtime[version].add(judgement)
            for pair in values.items():
                self.values[pair][version].add(judgement)
            for fault in {fault for pull in pulls for fault in pull["fired"]}:
                self.fired[fault] += 1
            self.probe_seconds.append(report["seconds"])
            self.most_requests = max(self.most_requests, report["requests"])
            self.pull_seconds += [pull["seconds"] for pull in pulls]
            found = causes.faults(values, [fault for pull in pulls for fault in pull["fired"]], is_usual, result.get("texts", {}))
            named = {fault.partition("/")[0] for fault in found} | set(found)
            self.excepted[version] += judgement == "unknown" and not named.isdisjoint(self.exceptions)
            if judgement == "disagree":
                self._disagrees(result, version, fact, report, found, other)
            elif judgement == "agree" and fact == "failed":
                # What fails it after a restart as well is worth more than what the restart fixes.
                after = result.get("restarted", {}).get(version, {}).get("fired", [])
                self._explained(result, version, report, found + [fault for fault in after if fault not in found])
            for pull in pulls:
                # Where there is no image service any more, there are no words of a pull.
                if pull["outcome"] == "failed" and pull["texts"] and pull["texts"][-1][0] not in ("NOT_STARTED", "UNIMPLEMENTED", "UNAVAILABLE"):
                    self.texts.append((result, version, pull["reference"], pull["texts"][-1][1], found))
            self._off(result, version, fact)

    def _disagrees(self, result, version, fact, report, found, other):
        entry = {"id": result["id"], "version": version, "fact": fact, "verdict": report["verdict"],
                 "findings": report["findings"], "faults": found, "others": other,
                 "texts": [text for pull in result["pulls"][version] for text in pull["texts"]][:2]}
        self.disagreements.append(entry)
        if any(finding["confidence"] == "high" for finding in report["findings"]):
            self.high.append(entry)
        if len(unusual(result["values"])) == 1:
            self.alone["%s=%s" % unusual(result["values"])[0]] += 1

    def _explained(self, result, version, report, found):
        first = critical(report)[:1]
        codes = causes.right(found, result["values"])
        if first and first[0]["cause"] in codes:
            self.cause_right += 1
            self.right_high += first[0]["confidence"] == "high"
        else:
            self.cause_wrong.append({"id": result["id"], "version": version, "cause": first[0]["cause"] if first else None,
                                     "right": sorted(codes), "faults": found})

    def _off(self, result, version, fact):
        if "off" not in result:
            return
        report = result["off"][version]
        self.off[version].add(compare(fact, report["verdict"]))
        if only_bytes_decide(result["values"]) and fact == "failed" and report["verdict"] == "would_succeed" and not report.get("unread"):
            self.off_blind.append({"id": result["id"], "version": version, "faults": ["%s=%s" % pair for pair in harmful_values(result["values"])]})


def judge_texts(score):
    """How many of the runtimes' own words are read rightly, and which are not."""
    asked = causes_of_texts([(reference, text) for _, _, reference, text, _ in score.texts])
    if asked is None:
        return None
    wrong = []
    for (result, version, _, text, found), cause in zip(score.texts, asked):
        if cause in causes.GENERIC or cause not in causes.right(found, result["values"], text=True):
            wrong.append({"id": result["id"], "version": version, "cause": cause, "faults": found, "text": text[:400]})
    return {"texts": len(asked), "right": len(asked) - len(wrong), "wrong": wrong}


def is_harmful(fault):
    dimension, _, value = fault.partition("=")
    return DIMENSIONS[dimension][value.partition("/")[0]].kind == "harmful"


def percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


def rate(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def print_coverage(cover, score):
    print("\nCoverage")
    for key, text in (("healthy", "healthy"), ("two_or_more", "two or more unusual values"), ("timed", "timed"), ("state", "with chance or state")):
        print(f"  {text}: {rate(cover[key])}")
    print(f"  values: {cover['values']}; in fewer than 30 worlds: {cover['below_30']}")
    print("  drawn least: " + ", ".join(f"{name} {count}" for count, name in cover["least"][:6]))
    drawn = [f"{dimension}={name}" for dimension, names in DIMENSIONS.items() for name, value in names.items()
             if value.kind != "usual" and cover["counts"].get(f"{dimension}={name}")]
    never = [fault for fault in drawn if is_harmful(fault) and fault not in score.fired
             and fault.split("=")[0] not in causes.WITHOUT_REQUEST and not fault.endswith(("=dead", "=silent"))]
    if cover["texts"]:
        print(f"  members of classes: {cover['texts']}; in no world: {cover['texts_never']}; of another build or after a restart, not the same: {score.builds}")
    print(f"  harmful, and without a turn in any request of a runtime: {', '.join(never) or 'none'}")


def print_runtimes(score, total):
    print("\nAgreement by runtime (definite verdicts; unknown of all)")
    print(f"  {'':<10}{'pulled':>9}{'agree':>8}{'disagree':>10}{'unknown':>9}{'none':>6}{'interm.':>9}{'agreement':>12}{'unknown':>10}")
    for version in score.versions:
        for name, tally in ((version, score.runtime[version]), ("  off", score.off[version])):
            if not tally.counts:
                continue
            pulled = percent(score.pulled[version], total) if name == version else ""
            print(f"  {name:<10}{pulled:>9}{tally.counts['agree']:>8}{tally.counts['disagree']:>10}{tally.counts['unknown']:>9}"
                  f"{tally.counts['none']:>6}{tally.counts['intermittent']:>9}{rate(tally.agreement):>12}{rate(tally.unknown):>10}"
                  + (f"  ({score.excepted[version]} by exceptions.json)" if name == version else ""))


def bad_values(score):
    """Values of dimensions in which less than 95 % agree, or more than 20 % are unknown, by runtime."""
    found = []
    for (dimension, value), tallies in score.values.items():
        for version, tally in tallies.items():
            if (tally.agreement is not None and tally.agreement < 0.95) or tally.unknown > 0.2:
                found.append((f"{dimension}={value}", version, tally))
    return sorted(found, key=lambda item: (item[2].agreement if item[2].agreement is not None else 1.0, item[0]))


def print_values(score):
    found = bad_values(score)
    print(f"\nValues with less than 95 % agreement or more than 20 % unknown: {len(found)} (value and runtime)")
    for name, version, tally in found[:60]:
        print(f"  {name:<36}{version:<9} agree {tally.counts['agree']:>4} disagree {tally.counts['disagree']:>4} "
              f"unknown {tally.of('unknown', 'none'):>4}  {rate(tally.agreement)}")


def print_kinds(score):
    """Disagreements by the faults that had their turn, most frequent first."""
    kinds = collections.Counter()
    for entry in score.disagreements:
        faults = [fault for fault in entry["faults"] if not fault.startswith("challenge_on=")]
        for fault in [fault for fault in faults if is_harmful(fault)] or faults or ["no fault"]:
            kinds[f"{entry['verdict']}, but {entry['fact']}: {fault}"] += 1
    print(f"\nDisagreements: {len(score.disagreements)} ({len(score.high)} with a finding of confidence high)")
    for kind, count in kinds.most_common(40):
        print(f"  {count:>5}  {kind}")
    if score.alone:
        print("  with this unusual value alone: " + ", ".join(f"{name} {count}" for name, count in score.alone.most_common(40)))


def print_disagreements(score, folder):
    print("\nOf confidence high" if score.high else "\nOf confidence high: none")
    for entry in score.high[:25]:
        high = [finding["cause"] for finding in entry["findings"] if finding["confidence"] == "high"]
        print(f"  {entry['id']} {entry['version']}: {entry['verdict']} ({', '.join(high)}), but {entry['fact']}; "
              f"{', '.join(entry['faults'][:5])}")
    print("\nTo play again")
    for entry in score.disagreements[:40]:
        print(f"  tests/oracle/run --replay {folder}/{entry['id']}.json --judge {entry['version']}")
    if len(score.disagreements) > 40:
        print(f"  … and {len(score.disagreements) - 40} more in {folder}")


def print_causes(score, texts):
    agreed = score.cause_right + len(score.cause_wrong)
    print("\nCauses")
    print(f"  probe: right in {score.cause_right} of {agreed} agreeing failures ({percent(score.cause_right, agreed)}), "
          f"with confidence high in {percent(score.right_high, agreed)}")
    wrong = collections.Counter((entry["cause"], ", ".join(entry["faults"][:3])) for entry in score.cause_wrong)
    for (cause, faults), count in wrong.most_common(15):
        print(f"  {count:>5}  {cause} for {faults}")
    if texts is None:
        print("  texts: not asked (build the example: cargo build --example failure)")
        return
    print(f"  texts: right in {texts['right']} of {texts['texts']} ({percent(texts['right'], texts['texts'])})")
    wrong = collections.Counter((entry["cause"], ", ".join(entry["faults"][:3])) for entry in texts["wrong"])
    for (cause, faults), count in wrong.most_common(15):
        print(f"  {count:>5}  {cause} for {faults}")


def store(score, results, out):
    """Writes each world with a disagreement as a file of its drawn values."""
    folder = os.path.join(out, "disagreements")
    os.makedirs(folder, exist_ok=True)
    worlds = {result["id"]: result for result in results}
    by_world = collections.defaultdict(list)
    for entry in score.disagreements:
        by_world[entry["id"]].append({key: entry[key] for key in ("version", "fact", "verdict", "others", "findings", "texts")})
    for name, entries in by_world.items():
        # The usual values follow from their absence.
        values = {dimension: value for dimension, value in worlds[name]["values"].items() if value != next(iter(DIMENSIONS[dimension]))}
        with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as file:
            members = {"texts": worlds[name]["texts"]} if "texts" in worlds[name] else {}
            json.dump({"id": name, "values": values, **members, "seen": entries}, file, indent=1)
            file.write("\n")
    return folder


def judge(results, versions, cover, out):
    """Scores the results, prints the tables and returns the summary."""
    score = Score(versions)
    for result in results:
        score.add(result)
    texts = judge_texts(score)
    played = len(results) - len(score.broken)
    folder = store(score, results, out)
    print_coverage(cover, score)
    print_runtimes(score, played)
    print_values(score)
    print_kinds(score)
    print_disagreements(score, folder)
    print_causes(score, texts)
    if score.off_blind:
        print(f"\n--transfer off says would_succeed, and does not say what it has not read, where only bytes decide: {len(score.off_blind)}")
    if score.broken:
        print(f"\nBroken worlds (a fault of the lab): {len(score.broken)}")
        for result in score.broken[:5]:
            print(f"  {result['id']}: {result['broken'].strip().splitlines()[-1]}")
    mean = sum(score.probe_seconds) / max(len(score.probe_seconds), 1)
    print(f"\nA probe takes {mean:.2f} s and at most {score.most_requests} requests; a pull {sum(score.pull_seconds) / max(len(score.pull_seconds), 1):.2f} s")
    agreed = score.cause_right + len(score.cause_wrong)
    return {
        "worlds": played, "broken": len(score.broken),
        "pulled": {version: score.pulled[version] / max(played, 1) for version in versions},
        "runtimes": {version: score.runtime[version].as_dict() for version in versions},
        "off": {version: score.off[version].as_dict() for version in versions},
        "values": {f"{dimension}={value}": {version: tally.as_dict() for version, tally in tallies.items()}
                   for (dimension, value), tallies in sorted(score.values.items())},
        "disagreements": score.disagreements, "high": len(score.high),
        "causes": {"right": score.cause_right, "of": agreed, "right_with_confidence_high": score.right_high, "wrong": score.cause_wrong},
        "texts": texts, "off_blind": score.off_blind, "most_requests": score.most_requests,
        "coverage": cover, "fired": dict(sorted(score.fired.items())),
    }
