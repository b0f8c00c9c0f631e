"""A thread that runs what waits in batches of one shape: what a Python server with ONNX Runtime has for a scheduler.

Callers put in one image and get a future. The thread takes the oldest image and others of its size, up to `max_batch`, after waiting at
most `max_delay_s` for them. Who is cancelled while waiting is not run; with `drop_late`, neither is an image that would be ready after its
deadline, judged by what recent runs of its size took.
"""

import collections
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np


# A new run counts as much as all before it, and a run may take this much longer than expected.
SHARE_OF_LATEST = 0.5
MARGIN = 1.2


class Job(NamedTuple):
    image: np.ndarray
    future: Future
    arrived: float
    deadline: float


class Batcher:
    def __init__(self, run: Callable[[list], np.ndarray], max_batch: int, max_delay_s: float, drop_late: bool) -> None:
        self._run, self._max_batch, self._max_delay_s, self._drop_late = run, max_batch, max_delay_s, drop_late
        self._run_s: dict[tuple, float] = {}
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="batcher", daemon=True).start()

    def submit(self, image: np.ndarray, time_left_s: float) -> Future:
        """Puts an image in the queue; the future gives its map, or is cancelled."""
        now = time.monotonic()
        job = Job(image, Future(), now, now + time_left_s)
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def _work(self) -> None:
        while True:
            # Those that are marked as running can no longer be cancelled.
            batch = [job for job in self._next_batch() if job.future.set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                began = time.monotonic()
                maps = self._run([job.image for job in batch])
                self._learn(batch[0].image.shape, time.monotonic() - began)
            except Exception as error:  # one batch fails, the thread goes on
                for job in batch:
                    job.future.set_exception(error)
                continue
            for job, features in zip(batch, maps, strict=True):
                job.future.set_result(features)

    def _learn(self, shape: tuple, took_s: float) -> None:
        self._run_s[shape] = (1 - SHARE_OF_LATEST) * self._run_s.get(shape, took_s) + SHARE_OF_LATEST * took_s

    def _is_over(self, job: Job) -> bool:
        if self._drop_late and time.monotonic() + MARGIN * self._run_s.get(job.image.shape, 0.0) > job.deadline:
            job.future.cancel()
        return job.future.cancelled()

    def _next_batch(self) -> list[Job]:
        with self._changed:
            while True:
                while self._waiting and self._is_over(self._waiting[0]):
                    self._waiting.popleft()
                if not self._waiting:
                    self._changed.wait()
                    continue
                oldest = self._waiting[0]
                mates = [job for job in self._waiting if job.image.shape == oldest.image.shape and not job.future.cancelled()]
                patience = oldest.arrived + self._max_delay_s - time.monotonic()
                if len(mates) >= self._max_batch or patience <= 0:
                    batch = mates[: self._max_batch]
                    taken = set(map(id, batch))
                    self._waiting = collections.deque(job for job in self._waiting if id(job) not in taken)
                    return batch
                self._changed.wait(patience)
