"""The table of targets: what the benchmarks found when they last ran in this checkout, and which have not run."""

import json
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
BENCH, LOAD = ROOT / "target/bench", ROOT / "target/load"
# Rows of these, in this order, and what leaves them.
SOURCES = {
    "gateway": "make bench", "wire": "make bench", "policies": "make bench", "overload": "make load", "soak": "make soak",
    "fuzz": "make fuzz", "compare": "make compare", "int8": "benches/int8_forms.py",
}


def overload() -> dict | None:
    """From what ghz left: answers in time against the throughput of the same run, and how long a refusal takes."""
    results = [LOAD / f"{profile}.result.json" for profile in ("throughput", "overload")]
    if not all(path.exists() for path in results):
        return None
    peak, load = (json.loads(path.read_text()) for path in results)
    rate = lambda result: sum(call["status"] == "OK" for call in result["details"]) / (result["total"] / 1e9)
    refused = sorted(call["latency"] / 1e6 for call in load["details"] if call["status"] == "ResourceExhausted")
    kept = rate(load) / rate(peak)
    rows = [{"what": "overload at 2x: answers in time, of the throughput", "result": f"{kept:.2f}", "target": "0.95", "met": kept >= 0.95}]
    if refused:
        p99 = refused[min(len(refused) - 1, int(0.99 * len(refused)))]
        rows.append({"what": "overload at 2x: refusals, p99", "result": f"{p99:.1f} ms", "target": "5 ms", "met": p99 < 5})
    return {"command": "make load", "rows": rows, "path": results[1]}


def rows_of(name: str) -> dict | None:
    if name == "overload":
        return overload()
    path = BENCH / f"{name}.json"
    return json.loads(path.read_text()) | {"path": path} if path.exists() else None


def main() -> None:
    print("\n| target | result | aim | | command | run |\n|---|---|---|---|---|---|")
    n_missed = 0
    for name, command in SOURCES.items():
        found = rows_of(name)
        if not found:
            print(f"| {name} | not run here | | | `{command}` | |")
            continue
        ran = datetime.fromtimestamp(found["path"].stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        for row in found["rows"]:
            n_missed += not row["met"]
            print(f"| {row['what']} | {row['result']} | {row['target']} | {'met' if row['met'] else '**missed**'} | `{found['command']}` | {ran} |")
    print(f"bench: {n_missed} of these targets missed" if n_missed else "bench: every target that was measured here is met")


if __name__ == "__main__":
    main()
