"""Stages of independent tasks in, their files on disk out: datatrove's executor on local processes or on Ray.

datatrove keeps a completion marker for each task, so that a run started again does only what is missing. Its own local executor
waits for ever when a worker is killed, and its Ray executor starts an actor and a process pool for each task; so here its
base class hands the tasks to the standard library's process pool and to plain Ray tasks. docs/decisions.md has the details.
"""

import multiprocessing
import os
import signal
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import NamedTuple

from datatrove.executor.base import PipelineExecutor
from loguru import logger

from data_prep.progress import Progress
from tokenizer.errors import UserError
from tokenizer.privacy import words_withheld


class Stage(NamedTuple):
    """Tasks that need nothing of each other. Each must leave the same files when it runs again, after a kill at any point too."""

    name: str
    num_tasks: int
    run_task: Callable[[int], None]
    """Takes the number of the task. A functools.partial of a module's function: it travels to other processes and machines."""
    private: bool = False
    """It reads a private corpus: an unforeseen error is told without its words."""

    def run(self, task: int) -> None:
        with words_withheld(self.private):
            self.run_task(task)


def run_stage(stage: Stage, log_url: str, *, executor: str, workers: int, sizes: list[int] | None = None) -> None:
    """Run the tasks that have no completion marker yet.

    log_url: folder of the markers; its name must stand for everything that shapes the tasks. executor: local or ray.
    sizes: bytes of each task, for the progress bar.

    Raises:
        UserError: what a task raises, or a worker died.
    """
    kinds = {"local": LocalExecutor, "ray": RayExecutor}
    kinds[executor](stage, f"{log_url}/{stage.name}", workers, sizes).run()


def missing_tasks(stage: Stage, log_url: str) -> list[int]:
    """Numbers of the tasks without a completion marker."""
    return LocalExecutor(stage, f"{log_url}/{stage.name}", 1).get_incomplete_ranks()


def run_share(stage: Stage, log_url: str, share: int, num_shares: int) -> None:
    """Run the missing tasks among share, share + num_shares, ... in this process: one element of a Slurm array."""
    tasks = LocalExecutor(stage, f"{log_url}/{stage.name}", 1)
    for task in tasks.get_incomplete_ranks(range(share, stage.num_tasks, num_shares)):
        tasks.run_task(task)


class TaskExecutor(PipelineExecutor):
    """datatrove's tasks, markers and skipping for one Stage; how they are spread is left to `results`."""

    def __init__(self, stage: Stage, logging_dir: str, workers: int, sizes: list[int] | None = None):
        super().__init__([lambda data, rank, world_size: stage.run(rank)], logging_dir)
        self.stage, self.workers, self.in_bytes = stage, workers, sizes is not None
        self.sizes = sizes or [1] * stage.num_tasks
        self.job = (stage, logging_dir)

    @property
    def world_size(self) -> int:
        return self.stage.num_tasks

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """What datatrove puts into the environment of a task; none of our tasks reads it."""
        names = ("node_ips", "cpus_per_task", "mem_per_cpu", "gpus_on_node", "executor")
        return {f"datatrove_{name}": "" for name in names}

    def run_task(self, task: int) -> int:
        """In this process, silently; returns the number of the task."""
        logger.disable("datatrove")
        self._run_for_rank(task)
        return task

    def run(self) -> None:
        missing = self.get_incomplete_ranks()
        done = sum(self.sizes) - sum(self.sizes[task] for task in missing)
        with Progress(self.stage.name, sum(self.sizes), done, in_bytes=self.in_bytes) as progress:
            for task in self.results(missing):
                progress.advance(self.sizes[task])

    @abstractmethod
    def results(self, tasks: list[int]) -> Iterator[int]:
        """Run the tasks; yield each number as it is done."""


class LocalExecutor(TaskExecutor):
    """`workers` processes on this machine; one worker is this process."""

    def results(self, tasks: list[int]) -> Iterator[int]:
        if self.workers == 1 or len(tasks) < 2:
            yield from map(self.run_task, tasks)
            return
        # Not fork: the tokenizer and Arrow have threads, which a forked child would find dead.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(tasks)), mp_context=context, initializer=end_with_parent) as pool:
            try:
                with inherited_mask():  # processes start as work is submitted
                    waiting = {pool.submit(run_task_of, *self.job, task) for task in tasks}
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    "A worker process died, most often because the machine ran out of memory (see `dmesg`). What is finished is "
                    f"kept: run the same command again, with fewer than --workers {self.workers} if it was memory."
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def run_task_of(stage: Stage, logging_dir: str, task: int) -> int:
    return LocalExecutor(stage, logging_dir, 1).run_task(task)


class RayExecutor(TaskExecutor):
    """Ray tasks, `workers` at a time, on the cluster of RAY_ADDRESS or on this machine alone."""

    def results(self, tasks: list[int]) -> Iterator[int]:
        try:
            import ray
        except ImportError as error:
            raise UserError("--executor ray: Ray is not installed. pip install 'albert-pretraining[ray]'.") from error
        was_running = ray.is_initialized()
        if not was_running:
            here = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": self.workers}
            # Workers import this project from where this process found it, be it installed or a checkout.
            ray.init(log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}, **here)
        remote = ray.remote(num_cpus=1, max_retries=3)(run_task_of)
        try:
            queue, waiting = iter(tasks), []
            while True:
                while len(waiting) < self.workers and (task := next(queue, None)) is not None:
                    waiting.append(remote.remote(*self.job, task))
                if not waiting:
                    return
                (done,), waiting = ray.wait(waiting, num_returns=1)
                yield ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, UserError) else error) from error
        except ray.exceptions.RayError as error:
            raise UserError(
                f"Ray: a task was lost for good ({type(error).__name__}). What is finished is kept: run the same command again."
            ) from error
        finally:
            if not was_running:
                ray.shutdown()


def end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def inherited_mask() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which goes to all: the main process alone answers."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
