"""The table of a comparison, from its runs: `results.json` and `results.md` in a folder. `report.py FOLDER` makes the table anew."""

import json
import math
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path


def percentile(values: list, percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Table:
    def __init__(self, results: dict) -> None:
        self._results = results
        self.servers = results["servers"]

    def _runs(self, server: str, workload: str) -> list:
        return [run for run in self._results["runs"] if run["server"] == server and run["workload"] == workload]

    def median(self, server: str, workload: str, key: str) -> float:
        return statistics.median(run[key] for run in self._runs(server, workload))

    def ratio(self, server: str, workload: str, key: str) -> float:
        """Median of the rounds' ratios to densevit."""
        pairs = zip(self._runs(server, workload), self._runs("densevit", workload), strict=True)
        return statistics.median(run[key] / ours[key] for run, ours in pairs)

    def latency(self, server: str, workload: str) -> str:
        values = [value for run in self._runs(server, workload) for value in run["latency_ms"]]
        return f"{percentile(values, 50):.0f} / {percentile(values, 99):.0f}"

    def with_ratio(self, server: str, workload: str, key: str, form: str) -> str:
        text = format(self.median(server, workload, key), form)
        return text if server == self.servers[0] else f"{text} ({self.ratio(server, workload, key):.2f})"

    def usual(self, server: str, workload: str) -> str:
        rate, cpu = (self.with_ratio(server, workload, key, form) for key, form in (("answers_per_s", ".2f"), ("cpu_ms_per_answer", ".0f")))
        return f"{rate} · {self.latency(server, workload)} · {cpu}"

    def overload(self, server: str) -> str:
        """Beside the answers in time their share of the throughput that was measured just before."""
        shares = [run["answers_per_s"] * 2 / run["rate"] for run in self._runs(server, "overload")]
        cpu = self.with_ratio(server, "overload", "cpu_ms_per_answer", ".0f")
        return f"{self.median(server, 'overload', 'answers_per_s'):.2f} = {statistics.median(shares):.0%} · {self.latency(server, 'overload')} · {cpu}"

    def waste(self, server: str) -> str:
        """What a useful answer takes more than when nobody leaves."""
        pairs = zip(self._runs(server, "leaving"), self._runs(server, "eight"), strict=True)
        return f"{statistics.median(left['cpu_ms_per_answer'] / stayed['cpu_ms_per_answer'] - 1 for left, stayed in pairs):+.0%}"

    def memory(self, server: str) -> str:
        return f"{max(run['memory_bytes'] for run in self._results['runs'] if run['server'] == server) / 2**20:.0f}"

    def idle(self, server: str) -> str:
        return f"{statistics.median(idle[server] for idle in self._results['idle_cores']):.1%}"

    def rows(self) -> list:
        """Titles, and what makes a cell of a server's name."""
        return [
            ("one at a time", lambda server: self.usual(server, "one")),
            ("8 at once", lambda server: self.usual(server, "eight")),
            ("8 at once, four sizes", lambda server: self.usual(server, "mixed")),
            ("twice its own throughput, 2 s of patience", self.overload),
            ("8 at once, 3 of 10 leave after 300 ms", lambda server: self.usual(server, "leaving")),
            ("processor ms of the last above the second", self.waste),
            ("memory at most, MiB", self.memory),
            ("idle, of a core", self.idle),
        ]

    def markdown(self) -> str:
        titles = ["answers/s · p50 / p99 ms · processor ms an answer (ratio to densevit)", *self.servers]
        lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
        lines += ["| " + " | ".join([title, *map(cell, self.servers)]) + " |" for title, cell in self.rows()]
        return "\n".join(lines)

    def conditions(self) -> str:
        others = [run["other_cores"] for run in self._results["runs"]]
        loads = [run["load_average"] for run in self._results["runs"]]
        return (
            f"{self._results['rounds']} rounds of {self._results['seconds']:g} s a workload and server. {self._results['machine']}. Other programs used"
            f" {statistics.median(others):.2f} cores in the median, {max(others):.2f} at most; load average {min(loads):.1f} to {max(loads):.1f}."
        )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    packages = ", ".join(f"{package} {version(package)}" for package in ("grpcio", "litserve", "onnxruntime", "opencv-python-headless", "pillow"))
    return f"{len(os.sched_getaffinity(0))} cores of {name}, Python {platform.python_version()}, {packages}"


def write_report(results: dict, folder: Path) -> None:
    results.setdefault("machine", machine())
    table = Table(results)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    text = f"{table.markdown()}\n\n{table.conditions()}\n"
    (folder / "results.md").write_text(text)
    print(f"\n{text}\ncompare: wrote {folder}/results.json and results.md")


if __name__ == "__main__":
    write_report(json.loads(Path(sys.argv[1], "results.json").read_text()), Path(sys.argv[1]))
