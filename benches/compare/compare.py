"""Measures densevit beside Python servers with the same model, on this machine. `run.sh` calls it; results go to target/compare/.

    compare.py [--seconds 15] [--rounds 3] [--binary target/release/densevit] [--litserve-batch 1]

# Design
All servers run the whole time, so that a workload goes from one to the next at once and what else the machine does hits all alike;
one that is not asked hardly uses a processor (the row `idle`). The order turns with the rounds. Throughput and processor time are medians
of the rounds, ratios are formed within a round, latencies are pooled. What other programs used of the processors is noted beside each run.
"""

import argparse
import base64
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from agreement import check
from PIL import Image
from report import write_report
from server import TICK_S, Server

HERE = Path(__file__).parent
OUT = Path("target/compare")
MODEL = Path("models/dinov2-vits14-imgfocus/1")
SQUARE = [(224, 224)]
SIZES = [(224, 224), (224, 336), (336, 224), (336, 336)]
PATIENCE_S = 20
# Of the workload `overload`, and how often it asks compared with what the server can.
DEADLINE_S = 2
OVERLOAD = 2.0
LEAVE = ["--leave-share", "0.3", "--leave-after", "0.3"]
# Those of a group go to one server right after each other: overload is told by the throughput just measured.
GROUPS = [["one"], ["eight", "overload"], ["mixed"], ["leaving"]]


def photo() -> bytes:
    """The photo of the load profiles as a JPEG."""
    encoded = io.BytesIO()
    Image.open("third_party/photos/chelsea.png").convert("RGB").save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def write_requests(jpeg: bytes) -> None:
    text = base64.b64encode(jpeg).decode()
    for name, sizes in (("square", SQUARE), ("mixed", SIZES)):
        requests = [
            {"image": {"encoded": text}, "preprocess": {"exact": {"height": height, "width": width}}, "features": {"dtype": "DTYPE_F16"}}
            for height, width in sizes
        ]
        (OUT / f"{name}.json").write_text(json.dumps(requests))
    (OUT / "photo.jpg").write_bytes(jpeg)


def profile(workload: str, seconds: float, rate: float) -> dict:
    """The workload as a configuration of ghz, which `densevit load` reads."""
    loop = {"one": {"concurrency": 1}, "eight": {"concurrency": 8}, "mixed": {"concurrency": 8}, "overload": {"rps": rate, "async": True, "concurrency": 64}}
    return {
        "name": workload, "call": "densevit.v1.DenseVision.Extract", "insecure": True, "connections": 2,
        "data-file": str(OUT / ("mixed.json" if workload == "mixed" else "square.json")),
        "duration": f"{seconds:g}s", "timeout": f"{DEADLINE_S if workload == 'overload' else PATIENCE_S}s", **loop[workload],
    }  # fmt: skip


def command(server: Server, workload: str, args, rate: float, output: Path) -> list:
    """The client: `densevit load` where it can, else `client.py`."""
    if server.protocol == "grpc" and workload != "leaving":
        path = output.with_suffix(".profile.json")
        path.write_text(json.dumps(profile(workload, args.seconds, rate)))
        return [args.binary, "load", path, "--server", server.address, "--arrivals", "even", "--output", output]
    sizes = ",".join(f"{height}x{width}" for height, width in (SIZES if workload == "mixed" else SQUARE))
    words = [sys.executable, HERE / "client.py", server.protocol, server.address, "--photo", OUT / "photo.jpg", "--sizes", sizes]
    words += ["--seconds", args.seconds, "--timeout", DEADLINE_S if workload == "overload" else PATIENCE_S, "--output", output]
    words += ["--rate", rate] if workload == "overload" else ["--concurrency", 1 if workload == "one" else 8]
    return words + (LEAVE if workload == "leaving" else [])


def busy_s() -> float:
    """Processor time of everything on this machine."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) * TICK_S


def client_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(server: Server, workload: str, args, rate: float, output: Path) -> dict:
    words = list(map(str, command(server, workload, args, rate, output)))
    cpu, busy, client, began = server.cpu_s(), busy_s(), client_s(), time.monotonic()
    outcome = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if outcome.returncode != 0:
        sys.exit(f"compare: the client failed: {' '.join(words)}\n{outcome.stdout}")
    took = time.monotonic() - began
    cpu, busy, client = server.cpu_s() - cpu, busy_s() - busy, client_s() - client
    result = json.loads(output.read_text())
    calls = result["details"]
    good = sorted(call["latency"] / 1e6 for call in calls if call["status"] == "OK")
    statuses = {status: sum(call["status"] == status for call in calls) for status in sorted({call["status"] for call in calls})}
    if not good or (workload in ("one", "eight", "mixed") and len(good) < len(calls)):
        sys.exit(f"compare: {server.name}, {workload}: not every call was answered: {statuses}, see {output}")
    return {
        "server": server.name, "workload": workload, "rate": rate, "answers": len(good), "statuses": statuses, "latency_ms": good,
        "answers_per_s": len(good) / (result["total"] / 1e9), "cpu_ms_per_answer": cpu * 1e3 / len(good), "server_cpu_s": cpu,
        "client_cpu_s": client, "other_cores": max(0.0, busy - cpu - client) / took, "load_average": os.getloadavg()[0],
        "memory_bytes": server.memory_bytes(),
    }  # fmt: skip


def idle_cores(servers: list, seconds: float = 5) -> dict:
    before = [server.cpu_s() for server in servers]
    time.sleep(seconds)
    return {server.name: (server.cpu_s() - cpu) / seconds for server, cpu in zip(servers, before, strict=True)}


def start(args) -> list:
    cut = OUT / "model"
    grpcio = [sys.executable, HERE / "grpcio_server.py", MODEL, cut, "--max-batch"]
    litserve = [sys.executable, HERE / "litserve_server.py", MODEL, cut, "--port", "{port}", "--max-batch", args.litserve_batch]
    litserve += ["--max-delay-ms", 2] if args.litserve_batch > 1 else []
    kinds = [
        ("densevit", "grpc", [args.binary, "serve", "--listen", "127.0.0.1:0", "--no-admin", "--log", "warn"]),
        ("grpcio", "grpc", [*grpcio, 8]),
        # By one who knows that batches gain nothing on a CPU and has met overload.
        ("grpcio, tuned", "grpc", [*grpcio, 1, "--drop-late"]),
        ("litserve", "http", litserve),
        # LitServe's only deadline is one for all requests, of the time that they wait: only overload has one.
        ("litserve, timeout 2 s", "http", [*litserve, "--timeout", DEADLINE_S]),
    ]
    servers = []
    try:
        for name, protocol, words in kinds:
            servers.append(Server(name, protocol, words, OUT / f"{file_name(name)}.log"))
            print(f"compare: {name} is ready", flush=True)
    except BaseException:
        stop(servers)
        raise
    return servers


def file_name(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def stop(servers: list) -> None:
    for server in servers:
        server.stop()


def print_run(run: dict) -> None:
    print(
        f"compare: round {run['round'] + 1}  {run['workload']:9}{run['server']:14} {run['answers_per_s']:6.2f} answers/s  {run['cpu_ms_per_answer']:6.0f} ms of"
        f" processor an answer  {run['statuses']}  (others used {run['other_cores']:.2f} cores)",
        flush=True,
    )


def run(servers: list, args) -> dict:
    jpeg = photo()
    write_requests(jpeg)
    differences = check(servers, jpeg, SIZES)
    for name, worst in differences.items():
        print(f"compare: {name} agrees: differences of at most {worst['png']:.1e} (PNG) and {worst['jpeg']:.1e} (JPEG) of the largest value", flush=True)
    *asked, impatient = servers
    runs, idle = [], []
    for idx in range(args.rounds):
        idle.append(idle_cores(asked))
        order = asked[idx % len(asked) :] + asked[: idx % len(asked)]
        for group in GROUPS:
            for server in order:
                rate = 0.0
                for workload in group:
                    target = impatient if (server.name, workload) == ("litserve", "overload") else server
                    result = measure(target, workload, args, rate, OUT / f"{idx}-{workload}-{file_name(server.name)}.json")
                    runs.append({**result, "server": server.name, "round": idx})
                    print_run(runs[-1])
                    rate = round(OVERLOAD * result["answers_per_s"], 2)
    return {
        "servers": [server.name for server in asked], "seconds": args.seconds, "rounds": args.rounds, "litserve_batch": args.litserve_batch,
        "differences": differences, "idle_cores": idle, "runs": runs,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", default="target/release/densevit")
    parser.add_argument("--litserve-batch", type=int, default=1)
    args = parser.parse_args()
    # As Ctrl-C does, so that the servers are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("compare: stopped"))
    servers = start(args)
    try:
        results = run(servers, args)
    finally:
        stop(servers)
    write_report(results, OUT)


main()
