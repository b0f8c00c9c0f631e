"""Prints what a run of ghz measured, and fails where a profile demands that nothing fails; or checks the profiles themselves.

    report.py PROFILE RESULT RSS_KB CPU_MS RSS_KB CPU_MS     called by run.sh: the server's memory and processor time, before and after
    report.py                                                called by `make test`
"""

import json
import re
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).parent
# Keys of ghz's configuration that a profile may use, with the type of their values: ghz itself passes over a key that it does not know.
DURATION = re.compile(r"^\d+(ms|s|m|h)$")
KEYS = {
    "name": str, "tags": dict, "call": str, "host": str, "insecure": bool, "data-file": str, "timeout": DURATION, "count-errors": bool,
    "disable-template-functions": bool, "disable-template-data": bool, "max-recv-message-size": str, "total": int, "skipFirst": int, "concurrency": int,
    "connections": int, "rps": int, "async": bool, "duration": DURATION, "duration-stop": str, "load-schedule": str, "load-start": int, "load-step": int,
    "load-end": int, "load-step-duration": DURATION, "load-max-duration": DURATION,
}
# Profiles where every request must succeed.
ALL_OK = {"smoke", "latency", "throughput", "mixed", "soak"}


def check_profiles() -> None:
    profiles = sorted(HERE.glob("*.json"))
    for path in profiles:
        profile = json.loads(path.read_text())
        for key, value in profile.items():
            wanted = KEYS.get(key) or sys.exit(f"load: {path.name}: ghz has no key {key}, or the check does not know it")
            fits = wanted.match(str(value)) if isinstance(wanted, re.Pattern) else type(value) is wanted
            fits or sys.exit(f"load: {path.name}: {key} cannot be {value!r}")
        profile["name"] == path.stem or sys.exit(f"load: {path.name} is named {profile['name']}")
        service, method = profile["call"].rsplit(".", 1)
        proto = (HERE.parents[1] / "proto/densevit/v1/dense_vision.proto").read_text()
        known = service == "densevit.v1.DenseVision" and f"rpc {method}(" in proto
        known or sys.exit(f"load: {path.name}: the protocol has no {profile['call']}")
    print(f"load: ok - {len(profiles)} profiles")


def percentile(sorted_ms: list, share: float) -> float:
    return sorted_ms[min(len(sorted_ms) - 1, int(share * len(sorted_ms)))] if sorted_ms else float("nan")


def row(name: str, calls: list, seconds: float) -> str:
    """Answered calls a second and their latencies; what became of the others and how long that took."""
    good = sorted(call["latency"] / 1e6 for call in calls if call["status"] == "OK")
    bad = [call for call in calls if call["status"] != "OK"]
    quick = sorted(call["latency"] / 1e6 for call in bad)
    p50, p95, p99 = (percentile(good, share) for share in (0.5, 0.95, 0.99))
    text = f"{name:12} {len(calls):5} calls {len(good) / seconds:6.2f} answered/s   p50 {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f} ms"
    for status, n in sorted(Counter(call["status"] for call in bad).items()):
        times = sorted(call["latency"] / 1e6 for call in bad if call["status"] == status)
        text += f"   {n} {status} (p50 {percentile(times, 0.5):.1f}, p99 {percentile(times, 0.99):.1f} ms)"
    return text if quick else f"{text}   all OK"


def began(call: dict) -> float:
    """ghz notes when a call ended."""
    text = re.sub(r"\.(\d{6})\d*", r".\1", call["timestamp"])
    return datetime.fromisoformat(text).timestamp() - call["latency"] / 1e9


def report(profile: str, path: str, rss_before_kb: float, cpu_before_ms: float, rss_after_kb: float, cpu_after_ms: float) -> None:
    result = json.loads(Path(path).read_text())
    calls = result["details"]
    seconds = result["total"] / 1e9
    print(row(profile, calls, seconds))
    options = result["options"]
    if profile == "knee":
        width = int(re.sub(r"\D", "", json.loads((HERE / "knee.json").read_text())["load-step-duration"]))
        start = min(map(began, calls))
        for idx in range(options["load-end"] // options["load-step"]):
            some = [call for call in calls if idx * width <= began(call) - start < (idx + 1) * width]
            if some:
                print(row(f"  {options['load-start'] + idx * options['load-step']}/s", some, width))
    if rss_before_kb:
        n_good = sum(call["status"] == "OK" for call in calls) or 1
        cpu_ms = (cpu_after_ms - cpu_before_ms) / n_good
        print(f"{'':12} {cpu_ms:.0f} ms of the server's processor time an answer; memory {rss_before_kb / 1024:.0f} -> {rss_after_kb / 1024:.0f} MiB")
    if profile in ALL_OK and any(call["status"] != "OK" for call in calls):
        sys.exit(f"load: {profile}: not every request succeeded: {result['statusCodeDistribution']} {result.get('errorDistribution')}")


def main() -> None:
    if len(sys.argv) == 1:
        return check_profiles()
    profile, path, *usage = sys.argv[1:]
    return report(profile, path, *map(float, usage))


main()
