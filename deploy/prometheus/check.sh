#!/usr/bin/env bash
# Compares alerts, dashboard and autoscaler with the metrics that the server records.
set -euo pipefail
cd "$(dirname "$0")/../.."

deploy/setup/checkers.sh
.venv/bin/python deploy/prometheus/check.py
