"""`albert prepare`: text and a tokenizer in, a data folder of shuffled, masked shards out.

plan -> encode (each task: documents -> sentences -> pieces -> pairs, in buckets) -> shuffle (each task: a shard, sorted and
masked) -> manifest. De-duplication and `--weights` put stages before encode. plan.json is the first file, manifest.json the last;
in between the folder can be gone on with after any interruption.
"""

import dataclasses
import fcntl
import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data_prep.documents import PARTS, read_filtered
from data_prep.duplicates import dedup_stages
from data_prep.encode import encode_task
from data_prep.engine import Stage, missing_tasks, run_share, run_stage
from data_prep.finish import check_encoded, finish
from data_prep.folder import Folder
from data_prep.hazards import warnings
from data_prep.held_out import find_cutoff
from data_prep.mixing import measure_task
from data_prep.options import PrepareOptions, parse_weights
from data_prep.plan import PLAN_NAME, Plan, as_json, check_same, make_plan, plan_key, read_plan, write_plan
from data_prep.quality import open_steps
from data_prep.remask import begin_remask, remask
from data_prep.schema import MANIFEST_NAME, Manifest, parse_manifest
from data_prep.shuffle import shard_slots, shuffle_task
from data_prep.slurm import submit
from data_prep.summary import print_summary, write_summary
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError

SUMMARY_NAME = "summary.json"

FINISH = "finish"
"""Last stage of a plan, one task."""


def prepare(options: PrepareOptions) -> dict:
    """Write the data folder, or go on with it; returns its manifest as a dict (empty where Slurm does the work).

    Raises:
        UserError: options, input or output cannot be used, or a worker died; what is finished is kept for the next run.
    """
    if options.plan:
        return run_part(options)
    options.check()
    folder = Folder(options.output)
    began = time.perf_counter()
    with sole_use(folder):
        plan = begin_remask(options, folder) if options.remask else begin(options, folder)
        if folder.exists(MANIFEST_NAME):
            print(f"{folder}: already prepared with these options.")
            folder.remove(PARTS)
            return dataclasses.asdict(parse_manifest(folder.read(MANIFEST_NAME), folder.path(MANIFEST_NAME)))
        if options.remask:
            manifest = remask(options, folder)
        elif options.executor == "slurm":
            submit(folder, options, [(stage.name, stage.num_tasks) for stage in first_stages(plan, folder)], plan.num_buckets)
            return {}
        else:
            manifest = run_plan(plan, folder, options.executor, options.workers)
        report(folder, manifest, time.perf_counter() - began)
    return dataclasses.asdict(manifest)


def run_plan(plan: Plan, folder: Folder, executor: str, workers: int) -> Manifest:
    """All stages, one after the other."""
    key = plan_key(plan)
    how = {"log_url": log_url(folder, key), "executor": executor, "workers": workers}
    for stage in first_stages(plan, folder):
        by_range = stage.num_tasks == len(plan.ranges)
        run_stage(stage, sizes=[part.num_bytes for part in plan.ranges] if by_range else None, **how)
    check_encoded(folder.url, key)
    run_stage(shuffle_stage(folder.url, key), **how)
    return finish(folder, plan, key)


def report(folder: Folder, manifest: Manifest, seconds: float | None) -> None:
    """Print the summary and the warnings, and write them to summary.json."""
    found = warnings(manifest)
    sizes = {
        name: size for counts in manifest.splits.values() for name, size in zip(counts.shards, counts.shard_bytes, strict=False)
    }
    with folder.write(SUMMARY_NAME) as path:
        write_summary(path, manifest, found, seconds, sizes)
    print_summary(manifest, folder.url, found, seconds, sizes)


def begin(options: PrepareOptions, folder: Folder) -> Plan:
    """The plan of a new folder, or of one that was begun with the same options and corpus.

    Raises:
        UserError: the folder holds something else, or was begun otherwise.
    """
    encoder = Encoder(options.tokenizer)
    open_steps(options)  # what is missing shows before any work is done
    plan = make_plan(options, encoder.sha256, encoder.vocab_size)
    parse_weights(options.weights, {item.label for item in plan.inputs})
    names = folder.names()
    if PLAN_NAME in names:
        old = read_plan(folder.url, str(time.time_ns()))
        check_same(folder, old, plan)
        plan = dataclasses.replace(plan, cutoff=old.cutoff)
        folder.remove_temporary()
    elif names:
        raise UserError(
            f"{folder}: this folder holds something else ({', '.join(names[:5])}), so it is left alone. "
            "Choose an empty or new folder for the data."
        )
    else:
        documents = (document for task in range(len(plan.ranges)) for document in read_filtered(plan, task))
        plan = dataclasses.replace(plan, cutoff=find_cutoff(documents, options.seed, options.validation_fraction))
    if PLAN_NAME not in names or as_json(plan) != as_json(old):
        write_plan(folder, plan)
    return plan


def first_stages(plan: Plan, folder: Folder) -> list[Stage]:
    """All stages before the shuffle."""
    key, num_tasks = plan_key(plan), len(plan.ranges)
    stages = []
    if plan.options.dedup != "none":
        filtered = functools.partial(read_filtered, plan)
        stages += dedup_stages(plan.options.dedup, filtered, num_tasks, f"{folder.url}/{PARTS}")
    if plan.options.weights:
        stages.append(Stage("measure", num_tasks, functools.partial(measure_task, folder.url, key)))
    return [*stages, Stage("encode", num_tasks, functools.partial(encode_task, folder.url, key))]


def shuffle_stage(url: str, key: str) -> Stage:
    """The encode stage must be done: it tells how many shards there are."""
    return Stage("shuffle", len(shard_slots(url, key)), functools.partial(shuffle_task, url, key))


def log_url(folder: Folder, key: str) -> str:
    """Of the completion markers: under other options or another corpus no task counts as done."""
    return f"{folder.url}/{PARTS}/{key}"


def run_part(options: PrepareOptions) -> dict:
    """`--plan FILE --stage STAGE --task I/N`: what one element of a Slurm array does.

    Raises:
        UserError: no such plan, stage or task, or the stage before is not done.
    """
    share, _, num_shares = (options.task or "0/1").partition("/")
    if not share.isdecimal() or not (num_shares or "1").isdecimal():
        raise UserError(f"--task {options.task}: expected a number, or I/N for every Nth task from I on.")
    folder = Folder(options.plan.rpartition("/")[0] or ".")
    plan = read_plan(folder.url)
    key = plan_key(plan)
    stages = first_stages(plan, folder)
    names = [*(stage.name for stage in stages), "shuffle", FINISH]
    if options.stage not in names:
        raise UserError(f"--stage {options.stage}: this plan has the stages {', '.join(names)}.")
    for stage in stages[: names.index(options.stage)]:
        check_done(stage, folder, key)
    if options.stage in ("shuffle", FINISH):
        check_encoded(folder.url, key)
        stages.append(shuffle_stage(folder.url, key))
    if options.stage == FINISH:
        check_done(stages[-1], folder, key)
        manifest = finish(folder, plan, key)
        report(folder, manifest, None)
        return dataclasses.asdict(manifest)
    stage = stages[names.index(options.stage)]
    run_share(stage, log_url(folder, key), int(share), int(num_shares or stage.num_tasks))
    return {}


def check_done(stage: Stage, folder: Folder, key: str) -> None:
    if missing := missing_tasks(stage, log_url(folder, key)):
        raise UserError(
            f"{folder}: stage {stage.name} is not done: {len(missing)} of {stage.num_tasks} tasks are missing. "
            f"Run --stage {stage.name} first, or `albert prepare` with the options of the plan."
        )


@contextmanager
def sole_use(folder: Folder) -> Iterator[None]:
    """Only one `albert prepare` at a time on a folder of this machine; tasks of a Slurm array may work beside each other.

    Raises:
        UserError: another one is at work, or the folder cannot be made.
    """
    if not folder.is_local:
        yield
        return
    try:
        os.makedirs(folder.root, exist_ok=True)
        descriptor = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used as a folder ({error.strerror}). Choose another --output.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"{folder}: another `albert prepare` is at work on it. Wait for it, or choose another --output.") from error
    finally:
        os.close(descriptor)
        if not os.listdir(folder.root):
            os.rmdir(folder.root)
