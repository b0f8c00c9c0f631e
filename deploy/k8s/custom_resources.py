"""Schemas of the custom resources that the overlays use, as strict as those of Kubernetes: unknown keys are errors.

Written by hand: the fields that there are, read from the documentation and types of each project, and for what Kubernetes defines itself (containers,
probes, behaviour of autoscalers) a reference to its own schema. Only fields that the projects have are here; not all of them are.

    KEDA 2.18 and newer (Apache-2.0)      https://keda.sh/docs/latest/reference/scaledobject-spec/
    Gateway API 1.1 and newer (Apache-2.0) https://gateway-api.sigs.k8s.io/reference/spec/
    KServe 0.21 (Apache-2.0)              https://kserve.github.io/website/docs/reference/crd-api
"""

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
FLAG = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def one_of(*words: str) -> dict:
    return {"type": "string", "enum": list(words)}


def many(item: dict) -> dict:
    return {"type": "array", "items": item, "minItems": 1}


def closed(required: str = "", **properties: dict) -> dict:
    """An object with these fields and no others; `required` names some of them."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def kubernetes(name: str) -> dict:
    return {"$ref": f"#/$defs/io.k8s.{name}"}


def resource(api_version: str, kind: str, spec: dict) -> dict:
    meta = kubernetes("apimachinery.pkg.apis.meta.v1.ObjectMeta")
    return closed("apiVersion kind metadata spec", apiVersion=one_of(api_version), kind=one_of(kind), metadata=meta, spec=spec)


def scaled_object() -> dict:
    prometheus = closed(
        "serverAddress query threshold",
        serverAddress=TEXT, query=TEXT, threshold={"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}, namespace=TEXT,
        activationThreshold=TEXT, ignoreNullValues=one_of("true", "false"), unsafeSsl=one_of("true", "false"), customHeaders=TEXT,
        queryParameters=TEXT, timeout=TEXT, authModes=TEXT,
    )
    trigger = closed(
        "type metadata",
        type=one_of("prometheus"), name=TEXT, metadata=prometheus, metricType=one_of("AverageValue", "Value"), useCachedMetrics=FLAG,
        authenticationRef=closed("name", name=TEXT, kind=one_of("TriggerAuthentication", "ClusterTriggerAuthentication")),
    )
    autoscaler = closed(name=TEXT, behavior=kubernetes("api.autoscaling.v2.HorizontalPodAutoscalerBehavior"))
    modifiers = closed(formula=TEXT, target=TEXT, activationTarget=TEXT, metricType=one_of("AverageValue", "Value"))
    behaviors = one_of("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower")
    spec = closed(
        "scaleTargetRef triggers",
        scaleTargetRef=closed("name", apiVersion=TEXT, kind=TEXT, name=TEXT, envSourceContainerName=TEXT),
        pollingInterval=COUNT, cooldownPeriod=COUNT, initialCooldownPeriod=COUNT, idleReplicaCount=COUNT, minReplicaCount=COUNT, maxReplicaCount=COUNT,
        fallback=closed("failureThreshold replicas", failureThreshold=COUNT, replicas=COUNT, behavior=behaviors),
        advanced=closed(restoreToOriginalReplicaCount=FLAG, horizontalPodAutoscalerConfig=autoscaler, scalingModifiers=modifiers),
        triggers=many(trigger),
    )
    return resource("keda.sh/v1alpha1", "ScaledObject", spec)


def grpc_route() -> dict:
    method = closed(type=one_of("Exact", "RegularExpression"), service=TEXT, method=TEXT)
    header = closed("name value", type=one_of("Exact", "RegularExpression"), name=TEXT, value=TEXT)
    backend = closed("name port", group=TEXT, kind=TEXT, name=TEXT, namespace=TEXT, port=PORT, weight=COUNT)
    rule = closed("backendRefs", matches=many(closed(method=method, headers=many(header))), backendRefs=many(backend))
    parent = closed("name", group=TEXT, kind=TEXT, namespace=TEXT, name=TEXT, sectionName=TEXT, port=PORT)
    spec = closed("parentRefs rules", parentRefs=many(parent), hostnames=many(TEXT), rules=many(rule))
    return resource("gateway.networking.k8s.io/v1", "GRPCRoute", spec)


def serving_runtime() -> dict:
    model_format = closed("name", name=TEXT, version=TEXT, autoSelect=FLAG, priority=COUNT)
    spec = closed(
        "containers supportedModelFormats",
        annotations=TEXTS, labels=TEXTS, supportedModelFormats=many(model_format), multiModel=FLAG, disabled=FLAG,
        protocolVersions=many(one_of("v1", "v2", "grpc-v1", "grpc-v2")), containers=many(kubernetes("api.core.v1.Container")),
        nodeSelector=TEXTS, tolerations=many(kubernetes("api.core.v1.Toleration")), affinity=kubernetes("api.core.v1.Affinity"),
        volumes=many(kubernetes("api.core.v1.Volume")), imagePullSecrets=many(kubernetes("api.core.v1.LocalObjectReference")),
        hostIPC=FLAG, schedulerName=TEXT,
    )
    return resource("serving.kserve.io/v1alpha1", "ClusterServingRuntime", spec)


def inference_service(definitions: dict) -> dict:
    """A predictor has the fields of a pod, and its model those of a container, beside their own."""
    def fields_of(name: str) -> dict:
        return definitions[f"io.k8s.api.core.v1.{name}"]["properties"]

    own_model = {
        "modelFormat": closed("name", name=TEXT, version=TEXT), "runtime": TEXT, "runtimeVersion": TEXT, "storageUri": TEXT,
        "protocolVersion": one_of("v1", "v2", "grpc-v1", "grpc-v2"), "storage": closed(key=TEXT, path=TEXT, parameters=TEXTS),
    }
    own_predictor = {
        "minReplicas": COUNT, "maxReplicas": COUNT, "scaleTarget": COUNT, "scaleMetric": TEXT, "scaleMetricType": TEXT, "containerConcurrency": COUNT,
        "timeout": COUNT, "canaryTrafficPercent": COUNT, "annotations": TEXTS, "labels": TEXTS,
        "deploymentStrategy": kubernetes("api.apps.v1.DeploymentStrategy"), "model": closed("modelFormat", **{**fields_of("Container"), **own_model}),
    }
    predictor = closed(**{**fields_of("PodSpec"), **own_predictor})
    return resource("serving.kserve.io/v1beta1", "InferenceService", closed("predictor", predictor=predictor))


def schemas(definitions: dict) -> dict:
    """Schemas by (apiVersion, kind); `definitions` are those of Kubernetes, to which they refer."""
    found = [scaled_object(), grpc_route(), serving_runtime(), inference_service(definitions)]
    return {tuple(schema["properties"][key]["enum"][0] for key in ("apiVersion", "kind")): schema for schema in found}
