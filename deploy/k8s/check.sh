#!/usr/bin/env bash
# Renders every overlay and checks all documents against the schemas of Kubernetes and of the custom resources. Needs no cluster.
set -euo pipefail
cd "$(dirname "$0")/../.."

deploy/setup/checkers.sh
tools=third_party/kubernetes
.venv/bin/python deploy/k8s/check.py "$tools/kubectl" "$tools/definitions.json" "${DENSEVIT_BIN:-target/release/densevit}"
