"""A server as a tree of processes: started, asked for its processor time and memory, ended."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
START_S = 120


class Server:
    """`protocol` is what it speaks, `grpc` or `http`. A server over gRPC says where it listens in its first line; one over HTTP is told a
    port (`{port}` in the command) and answers `/health` when it is ready."""

    def __init__(self, name: str, protocol: str, command: list, log: Path) -> None:
        self.name, self.protocol = name, protocol
        port = free_port()
        command = [str(word).replace("{port}", str(port)) for word in command]
        self._log = log
        with log.open("w") as stderr:
            stdout = subprocess.PIPE if protocol == "grpc" else stderr
            # A session of its own, so that all of its processes can be ended together.
            self._process = subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, start_new_session=True)
        try:
            self.address = self._announced() if protocol == "grpc" else self._healthy(port)
        except BaseException:
            self.stop()
            raise

    def _announced(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line.startswith("listening on "):
            raise SystemExit(f"compare: {self.name} did not start, see {self._log}")
        return line.removeprefix("listening on ")

    def _healthy(self, port: int) -> str:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    return f"127.0.0.1:{port}"
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"compare: {self.name} did not start, see {self._log}")

    def cpu_s(self) -> float:
        """Processor time of all its processes until now, in user and kernel mode; of those that have ended, too."""
        return sum(sum(map(int, stat(pid)[11:15])) for pid in self._tree()) * TICK_S

    def memory_bytes(self) -> int:
        """Resident memory of all its processes; what two of them share counts twice."""
        return sum(int(stat(pid)[21]) for pid in self._tree()) * PAGE_BYTES

    def _tree(self) -> list:
        """All processes of its session."""
        pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
        return [pid for pid in pids if (fields := stat(pid)) and int(fields[3]) == self._process.pid]

    def stop(self) -> None:
        """Asks it to end, and ends what is left of it: LitServe's workers outlive a first signal."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sent)
                self._process.wait(timeout=3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def stat(pid: int) -> list:
    """Fields of /proc/PID/stat after the name, from the third on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
