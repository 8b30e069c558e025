"""Grade a class: find what is new, run it in a pool or on a cluster, keep what comes out.

What was graded before is known by its key and costs a look. A worker that dies takes its submission
back to the queue; a grader that dies leaves every finished result, and the next one does the rest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from course_lib.grading import intake, job, results
from course_lib.grading.jail import Missing

#: How often a submission is tried again when the worker that had it dies.
TRIES = 12


@dataclass(frozen=True)
class Graded:
    """What became of one submission: its result and how long it took, or why there is none."""

    assignment: str
    student: str
    result: Mapping[str, Any] | None
    seconds: float = 0.0
    problem: str = ""
    new: bool = True
    timestamp: datetime | None = None


class Pool:
    """Processes on this machine, each with a sandbox of its own; broken ones are replaced."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Hand a job to a worker."""
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers,
                # Not forked: what this process knows stays here.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_end_with_parent,
            )
        try:
            return self._executor.submit(function, *arguments)
        except BrokenProcessPool:
            self.mend()
            return self.submit(function, *arguments)

    def mend(self) -> None:
        """Replace all workers after one has died."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None

    def close(self) -> None:
        """End the workers and their sandboxes."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None


class Cluster:
    """Workers of a Dask cluster, on this machine or on many; Dask replaces those that die.

    ``address`` is a scheduler's, e.g. ``tcp://10.0.0.1:8786``, or ``local`` for a cluster that is
    started here with ``workers`` processes and ends with this object.
    """

    def __init__(self, address: str, workers: int) -> None:
        from distributed import Client, LocalCluster

        self._local = None
        if address == "local":
            self._local = LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
            )
        self._client = Client(self._local or address, timeout="30s")
        self._executor: Executor = self._client.get_executor(pure=False, retries=TRIES)
        self.workers = max(1, sum(self._client.nthreads().values()))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Hand a job to the cluster."""
        return self._executor.submit(function, *arguments)

    def mend(self) -> None:
        """Do nothing: Dask does it."""

    def close(self) -> None:
        """Let go of the cluster, and end it if it was started here."""
        self._client.close()
        if self._local is not None:
            self._local.close()


def _end_with_parent() -> None:
    with contextlib.suppress(Missing):
        from course_lib.grading import jail

        jail.end_with_parent()


def one(
    assignment: job.Assignment, student: str, data: bytes, problem: str
) -> tuple[dict[str, Any], float, bool]:
    """Grade one submission in a worker; return its result, the seconds it took, and if to try it alone."""
    begin = time.monotonic()
    result, starved = job.attempt(assignment, student, data, problem)
    return result, time.monotonic() - begin, starved


def grade(
    store: results.Store,
    assignments: Mapping[str, job.Assignment],
    found: Iterator[intake.Submission],
    workers: Pool | Cluster,
) -> Iterator[Graded]:
    """Grade what is found and is not graded yet; yield what became of each, in the order it ends.

    A submission that ran out of time while it hardly computed is graded again, with no other beside it,
    before it counts: its neighbours may have been busy on purpose. Every result is stored before it is
    yielded. Raises ``Missing`` where there is no sandbox.
    """
    waiting: dict[Future[Any], tuple[_Task, int]] = {}
    current = {name: fact["key"] for name, fact in store.current().items()}
    again: list[tuple[_Task, int]] = []
    slow: list[_Task] = []
    undisturbed = workers.workers == 1
    alone = False  # after a submission has seen several workers die, it gets one for itself

    def finished(task: _Task, result: Mapping[str, Any], seconds: float, new: bool) -> Graded:
        who = (task.assignment.name, task.student)
        if current.get(who) != task.key:
            facts = {"assignment": who[0], "student": who[1], "key": task.key}
            store.log("graded", **facts, seconds=round(seconds, 3))
            current[who] = task.key
        return Graded(*who, result, seconds, new=new, timestamp=task.timestamp)

    def collect() -> Iterator[Graded]:
        nonlocal alone
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        broken = False
        for future in done:
            task, tries = waiting.pop(future)
            try:
                result, seconds, starved = future.result()
            except Missing:
                raise
            except BrokenProcessPool:
                broken = True
                again.append((task, tries + 1))
            except Exception as error:
                yield task.failed(f"{type(error).__name__}: {error}")
            else:
                if result["key"] != task.key:
                    yield task.failed("the worker that graded it has other versions than this one")
                    continue
                if starved and not undisturbed:
                    slow.append(task)
                    continue
                store.put(task.key, job.to_bytes(result))
                yield finished(task, result, seconds, True)
        if broken:
            again.extend((task, tries + 1) for task, tries in waiting.values())
            waiting.clear()
            workers.mend()
        alone = any(tries > 3 for _, tries in again)

    def start(task: _Task, tries: int) -> None:
        arguments = (task.assignment, task.student, task.data, task.problem)
        waiting[workers.submit(one, *arguments)] = (task, tries)

    def drain(most: int) -> Iterator[Graded]:
        while len(waiting) > most or again:
            while again and len(waiting) < (1 if alone else 2 * workers.workers):
                task, tries = again.pop()
                if tries > TRIES:
                    yield task.failed("every process that graded it was ended from outside")
                else:
                    start(task, tries)
            if waiting:
                yield from collect()

    def retry() -> Iterator[Graded]:
        nonlocal undisturbed
        yield from drain(0)
        before, undisturbed = undisturbed, True
        while slow:
            start(slow.pop(), 0)
            yield from drain(0)
        undisturbed = before

    for submission in found:
        assignment = assignments[submission.assignment]
        key = job.key(assignment, submission.student, submission.data, submission.problem)
        task = _Task(
            assignment,
            submission.student,
            submission.data,
            submission.problem,
            key,
            submission.timestamp,
        )
        if key in store:
            yield finished(task, store.get(key), 0.0, False)
            continue
        start(task, 0)
        yield from drain(2 * workers.workers)
        if len(slow) > 2 * workers.workers:  # their notebooks are held: not those of a whole class
            yield from retry()
    yield from retry()


@dataclass(frozen=True, eq=False)
class _Task:
    assignment: job.Assignment
    student: str
    data: bytes
    problem: str
    key: str
    timestamp: datetime | None

    def failed(self, why: str) -> Graded:
        return Graded(self.assignment.name, self.student, None, problem=why)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
