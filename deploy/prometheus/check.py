"""Parses every PromQL expression of the alerts, the dashboard and the autoscaler, and compares what they name with what the server records; also
that what the compose file mounts is there.

    check.py

Metrics and their labels are read from src/telemetry/record.rs, the one place where they are named. Called by check.sh.
"""

import json
import re
import sys
from pathlib import Path

import promql_parser
import yaml

DEPLOY = Path(__file__).resolve().parents[1]
RECORD = DEPLOY.parent / "src/telemetry/record.rs"
# What Prometheus adds to every series, and a cluster's discovery to those of pods.
TARGET_LABELS = {"job", "instance", "namespace", "pod"}
# Metrics that Prometheus itself makes.
OWN_METRICS = {"up": set()}


def fail(words: str) -> None:
    sys.exit(f"prometheus: {words}")


def recorded() -> dict:
    """Labels by metric, as Prometheus sees them: a histogram is three of them."""
    source = RECORD.read_text().split("#[cfg(test)]")[0]
    names = dict(re.findall(r'const ([A-Z_]+): &str = "(densevit_[a-z_]+)";', source))
    metrics = dict(OWN_METRICS)
    for constant, name in names.items():
        kind = re.search(rf"describe_(\w+)!\({constant},", source)
        kind or fail(f"{RECORD.name} does not describe {name}")
        uses = re.findall(rf"{kind[1]}!\({constant}(.*)", source)
        labels = set(re.findall(r'"(\w+)" =>', " ".join(uses)))
        suffixes = {"_bucket": {"le"}, "_sum": set(), "_count": set()} if kind[1] == "histogram" else {"": set()}
        metrics.update({name + suffix: labels | more for suffix, more in suffixes.items()})
    return metrics


def parts(node):
    """The expression and all expressions inside it."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "args", "vector_selector"):
        inner = getattr(node, name, None) or []
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, promql_parser.Expr):
                yield from parts(part)


def check(where: str, text: str, metrics: dict) -> None:
    # Variables of dashboards stand where a duration or a text does.
    text = text.replace("$__rate_interval", "1m").replace("$job", "x").replace("$instance", "x")
    try:
        expression = promql_parser.parse(text)
    except ValueError as error:
        fail(f"{where}: {error}\n{text}")
    selectors = [part for part in parts(expression) if isinstance(part, promql_parser.VectorSelector)]
    selectors or fail(f"{where}: asks for no metric: {text}")
    known = set(TARGET_LABELS)
    for selector in selectors:
        selector.name in metrics or fail(f"{where}: no server records {selector.name}")
        known |= metrics[selector.name]
        for matcher in selector.matchers.matchers:
            matcher.name in metrics[selector.name] | TARGET_LABELS or fail(f"{where}: {selector.name} has no label {matcher.name}")
    for labels in re.findall(r"\b(?:by|without|on|ignoring) ?\(([^)]*)\)", text):
        unknown = set(filter(None, re.split(r"[ ,]+", labels))) - known
        unknown and fail(f"{where}: groups by {sorted(unknown)}, which its metrics do not have")


def alerts(metrics: dict) -> int:
    path = DEPLOY / "prometheus/alerts.yaml"
    readme = (DEPLOY / "README.md").read_text()
    rules = [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        name = rule["alert"]
        set(rule) == {"alert", "expr", "for", "labels", "annotations"} or fail(f"{name}: fields {sorted(rule)}")
        rule["labels"].get("severity") in ("critical", "warning") or fail(f"{name}: no severity")
        check(name, rule["expr"], metrics)
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = {heading.lower() for heading in re.findall(r"^#+ (.+)$", readme, re.M)}
        file == "deploy/README.md" and anchor in headings or fail(f"{name}: its runbook {file}#{anchor} is not there")
    return len(rules)


def dashboard(metrics: dict) -> int:
    board = json.loads((DEPLOY / "grafana/densevit.json").read_text())
    queries = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    for title, expression in queries:
        check(f"panel {title}", expression, metrics)
    for variable in board["templating"]["list"]:
        for name in re.findall(r"label_values\((\w+)", variable.get("definition", "")):
            name in metrics or fail(f"variable {variable['name']}: no server records {name}")
    return len(queries)


def autoscaler(metrics: dict) -> int:
    triggers = yaml.safe_load((DEPLOY / "k8s/overlays/keda/scaled-object.yaml").read_text())["spec"]["triggers"]
    for trigger in triggers:
        check(f"trigger {trigger['name']}", trigger["metadata"]["query"], metrics)
    return len(triggers)


def compose() -> None:
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        re.search(r":v?[0-9][\w.]*$", service["image"]) or fail(f"compose: {name} has no fixed version")
        for source in (volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith(".")):
            (DEPLOY / source).exists() or fail(f"compose: {name} mounts {source}, which is not there")


def check_the_check(metrics: dict) -> None:
    """What is wrong must not pass."""
    unknown_group = "sum by (rcp) (rate(densevit_request_duration_seconds_count[5m]))"
    # The last but one does not parse; of a histogram there is no series without a suffix.
    for text in ("densevit_redy", 'densevit_ready{modell="x"}', unknown_group, "rate(densevit_ready[5m]", "densevit_request_duration_seconds"):
        try:
            check("", text, metrics)
        except SystemExit:
            continue
        fail(f"the check itself fails: {text} is not noticed")


def main() -> None:
    metrics = recorded()
    check_the_check(metrics)
    compose()
    counts = alerts(metrics), dashboard(metrics), autoscaler(metrics)
    print("prometheus: ok - {} alerts, {} queries of the dashboard and {} of the autoscaler name what the server records".format(*counts))


main()
