"""Renders every overlay, and checks each document against its schema and the documents against each other.

    check.py KUBECTL DEFINITIONS DENSEVIT

KUBECTL renders; DEFINITIONS are the schemas of Kubernetes with unknown keys as errors; DENSEVIT is the program, which reads the configurations
that are mounted and knows its flags. Called by check.sh. At the end the check is checked: of each kind, one document gets an unknown key and one
a value of the wrong type, and both must be refused.
"""

import copy
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import fastjsonschema
import yaml

import custom_resources

K8S = Path(__file__).parent
# Metrics and probes: open in every server, whether a container's list of ports says it or not.
ADMIN_PORT = 9090
# Beyond what an overlay makes certain: threads and the runtime end after the last call.
RESERVE_S = 3


class Wrong(Exception):
    """What does not fit, with the document at fault."""


def expect(is_so: bool, words: str) -> None:
    if not is_so:
        raise Wrong(words)


class Schemas:
    """Validators by apiVersion and kind, compiled when first asked for."""

    def __init__(self, definitions: dict):
        self.definitions = definitions
        self.sources = custom_resources.schemas(definitions)
        for name, schema in definitions.items():
            for kind in schema.get("x-kubernetes-group-version-kind", []):
                version = f"{kind['group']}/{kind['version']}".removeprefix("/")
                self.sources[version, kind["kind"]] = {"$ref": f"#/$defs/{name}"}
        self.compiled = {}

    def check(self, document: dict) -> None:
        kind = document.get("apiVersion"), document.get("kind")
        expect(kind in self.sources, f"{kind[0]} {kind[1]}: no schema of this kind")
        if kind not in self.compiled:
            schema = {**self.sources[kind], "$defs": self.definitions}
            self.compiled[kind] = fastjsonschema.compile(schema, use_formats=False, detailed_exceptions=False)
        try:
            self.compiled[kind](document)
        except fastjsonschema.JsonSchemaException as error:
            raise Wrong(f"{kind[1]}: {error.message}") from error


def render(kubectl: str, folder: Path) -> list:
    outcome = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    expect(outcome.returncode == 0, f"does not render: {outcome.stderr.strip()}")
    documents = [document for document in yaml.safe_load_all(outcome.stdout) if document]
    expect(bool(documents), "renders to nothing")
    return documents


def render_with(kubectl: str, component: Path) -> list:
    """The overlay for CPUs with a component."""
    with tempfile.TemporaryDirectory(dir=K8S, prefix=".check-") as folder:
        kustomization = {"resources": ["../overlays/cpu"], "components": [f"../components/{component.name}"]}
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(kubectl, Path(folder))


def of_kind(documents: list, kind: str) -> list:
    return [document for document in documents if document["kind"] == kind]


def pod_of(document: dict) -> dict | None:
    """The pod that a document makes, as far as the document says it."""
    if document["kind"] == "ClusterServingRuntime":
        return document["spec"]
    return document["spec"]["template"]["spec"] if document["kind"] in ("Deployment", "Job") else None


def check_names(documents: list) -> None:
    seen = [(document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"]) for document in documents]
    expect(len(set(seen)) == len(seen), f"two documents have one name: {seen}")


def check_rights(pod: dict) -> None:
    """The profile "restricted", and a root that cannot be written."""
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        both = {**pod.get("securityContext", {}), **own}
        expect(both.get("runAsNonRoot") is True and both.get("runAsUser", 0) > 0, "a container may run as root")
        expect(both.get("seccompProfile", {}).get("type") == "RuntimeDefault", "a container has no seccomp profile")
        expect(own.get("allowPrivilegeEscalation") is False and own.get("readOnlyRootFilesystem") is True, "a container may gain rights or write its root")
        expect(own.get("capabilities", {}).get("drop") == ["ALL"] and "add" not in own["capabilities"], "a container keeps capabilities")
    expect(not any("hostPath" in volume for volume in pod.get("volumes", [])), "a volume of the host")


def check_container(pod: dict, container: dict) -> None:
    image = container["image"]
    expect(bool(re.search(r":[0-9][\w.-]*$|@sha256:[0-9a-f]{64}$", image)), f"image {image} has no fixed version")
    expect(container["resources"]["requests"] == container["resources"]["limits"], "requests differ from limits: the pod is not Guaranteed")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
    expect(mounts <= volumes and volumes <= mounts, f"mounts {sorted(mounts)} of volumes {sorted(volumes)}")
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(name, {})
        port = next((probe[how]["port"] for how in ("grpc", "httpGet") if how in probe), None)
        expect(port in (None, ADMIN_PORT, *ports, *ports.values()), f"{name} asks port {port}, which is not open")


def check_selectors(documents: list) -> None:
    for deployment in of_kind(documents, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        ports = [port["name"] for container in pod_of(deployment)["containers"] for port in container["ports"]]
        matches = lambda wanted: bool(wanted) and wanted.items() <= labels.items()
        expect(matches(deployment["spec"]["selector"]["matchLabels"]), "the Deployment does not select its pods")
        for service in of_kind(documents, "Service"):
            expect(matches(service["spec"]["selector"]), f"Service {service['metadata']['name']} selects no pods")
            expect(all(port["targetPort"] in ports for port in service["spec"]["ports"]), "a Service leads to no port")
        for budget in of_kind(documents, "PodDisruptionBudget"):
            expect(matches(budget["spec"]["selector"]["matchLabels"]), "the PodDisruptionBudget selects no pods")
        for policy in of_kind(documents, "NetworkPolicy"):
            expect(matches(policy["spec"]["podSelector"]["matchLabels"]), "the NetworkPolicy selects no pods")
    for route in of_kind(documents, "GRPCRoute"):
        services = {(service["metadata"]["name"], port["port"]) for service in of_kind(documents, "Service") for port in service["spec"]["ports"]}
        backends = {(backend["name"], backend["port"]) for rule in route["spec"]["rules"] for backend in rule["backendRefs"]}
        expect(backends <= services, f"the route leads to {backends - services}, which is no Service")
    for scaled in of_kind(documents, "ScaledObject"):
        names = [deployment["metadata"]["name"] for deployment in of_kind(documents, "Deployment") if "replicas" not in deployment["spec"]]
        expect(scaled["spec"]["scaleTargetRef"]["name"] in names, "the ScaledObject scales no Deployment, or one that fixes its replicas")


def shutdown_of(densevit: str, text: str, container: dict) -> tuple:
    """Delay and budget of a configuration and a container's environment, as the program itself reads them; also that it reads them."""
    environment = {**os.environ, **{variable["name"]: variable["value"] for variable in container.get("env", [])}}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [densevit, "serve", "--print-config", "--config", file.name]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    expect(outcome.returncode == 0, f"densevit refuses the configuration: {outcome.stderr.strip()}")
    value = lambda key: float(re.search(rf"^{key} = (\S+)$", outcome.stdout, re.M)[1])
    return value("delay_s"), value("budget_s")


def check_shutdown(documents: list, densevit: str) -> None:
    configurations = {document["metadata"]["name"]: document["data"]["serve.toml"] for document in of_kind(documents, "ConfigMap")}
    for deployment in of_kind(documents, "Deployment"):
        pod = pod_of(deployment)
        name = next(volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume)
        delay_s, budget_s = shutdown_of(densevit, configurations[name], pod["containers"][0])
        asleep_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed_s = asleep_s + delay_s + budget_s + RESERVE_S
        expect(pod["terminationGracePeriodSeconds"] >= needed_s, f"pods are killed before the {needed_s} s that they may take to end")
        expect(delay_s > 0, "a pod that ends refuses calls before anybody can know")
    for service in of_kind(documents, "InferenceService"):
        runtime = of_kind(documents, "ClusterServingRuntime")[0]["spec"]["containers"][0]
        delay_s, budget_s = shutdown_of(densevit, "", runtime)
        needed_s = delay_s + budget_s + RESERVE_S
        expect(service["spec"]["predictor"]["terminationGracePeriodSeconds"] >= needed_s, f"pods are killed before {needed_s} s")
        expect(runtime["name"] == "kserve-container", "KServe looks for a container of this name")


def check_shards(documents: list, densevit: str) -> None:
    for job in of_kind(documents, "Job"):
        arguments = pod_of(job)["containers"][0]["args"]
        shard = next(argument for argument in arguments if argument.startswith("--shard="))
        expect(shard == f"--shard=$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}", f"{shard} for {job['spec']['completions']} completions")
        known = subprocess.run([densevit, arguments[0], "--help"], capture_output=True, text=True, check=True).stdout
        for flag in (argument.split("=")[0] for argument in arguments if argument.startswith("--")):
            expect(bool(re.search(rf"{flag}\b", known)), f"densevit {arguments[0]} has no flag {flag}")


def check_overlay(documents: list, schemas: Schemas, densevit: str) -> None:
    for document in documents:
        schemas.check(document)
    check_names(documents)
    for pod in filter(None, map(pod_of, documents)):
        check_rights(pod)
        for container in pod["containers"]:
            check_container(pod, container)
    check_selectors(documents)
    check_shutdown(documents, densevit)
    check_shards(documents, densevit)


def spoilt(document: dict) -> list:
    """The document with an unknown key, and with a value of the wrong type, at every object and value of its spec (or of itself)."""
    def places(value, path=()):
        if isinstance(value, dict):
            yield path
            for key, inner in value.items():
                yield from places(inner, (*path, key))
        elif isinstance(value, list):
            for idx, inner in enumerate(value):
                yield from places(inner, (*path, idx))

    def at(root, path):
        for step in path:
            root = root[step]
        return root

    # Where any key may stand there are only texts.
    free = {"labels", "matchLabels", "annotations", "nodeSelector", "data", "limits", "requests", "podSelector", "namespaceSelector"}
    for path in places(document):
        if free & set(map(str, path)):
            continue
        wrong = copy.deepcopy(document)
        at(wrong, path)["unknownKey"] = 1
        yield f"an unknown key in {'.'.join(map(str, path)) or 'the document'}", wrong
        for key, value in at(document, path).items():
            if isinstance(value, (dict, list, bool, int)) and key not in free:
                wrong = copy.deepcopy(document)
                at(wrong, path)[key] = "a text"
                # Ports and quantities may be texts.
                if key not in ("port", "targetPort", "maxUnavailable", "maxSurge"):
                    yield f"a text as {'.'.join(map(str, (*path, key)))}", wrong


def check_the_check(documents: list, schemas: Schemas) -> int:
    n_refused = 0
    for document in {document["kind"]: document for document in documents}.values():
        for words, wrong in spoilt(document):
            try:
                schemas.check(wrong)
            except Wrong:
                n_refused += 1
                continue
            raise Wrong(f"{document['kind']}: {words} is not noticed")
    return n_refused


def main() -> None:
    kubectl, definitions, densevit = sys.argv[1:]
    schemas = Schemas(json.loads(Path(definitions).read_text())["$defs"])
    everything = []
    parts = sorted(path.parent for path in K8S.glob("*/*/kustomization.yaml"))
    for part in parts:
        try:
            documents = (render_with if part.parent.name == "components" else render)(kubectl, part)
            check_overlay(documents, schemas, densevit)
        except Wrong as error:
            sys.exit(f"k8s: {part.relative_to(K8S)}: {error}")
        everything += documents
    try:
        n_refused = check_the_check(everything, schemas)
    except Wrong as error:
        sys.exit(f"k8s: the check itself fails: {error}")
    print(f"k8s: ok - {len(parts)} overlays and components, {len(everything)} documents; {n_refused} spoilt ones were refused")


main()
