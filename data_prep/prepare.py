"""`albert prepare`: text and a tokenizer in, a data folder of shuffled, masked shards out.

plan -> encode (each task: documents -> sentences -> pieces -> pairs, in buckets) -> gather (counts) -> shuffle (each task: a shard,
sorted and masked) -> manifest. De-duplication and `--weights` put stages before encode. plan.json is the first file, manifest.json
the last; in between the folder can be gone on with after any interruption.
"""

import dataclasses
import fcntl
import functools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data_prep.documents import PARTS, read_filtered
from data_prep.duplicates import dedup_stages
from data_prep.encode import encode_task
from data_prep.engine import Stage, missing_tasks, run_share, run_stage
from data_prep.finish import finish
from data_prep.folder import Folder
from data_prep.gather import gather_task
from data_prep.hazards import warnings
from data_prep.held_out import find_cutoff
from data_prep.mixing import measure_task
from data_prep.options import PrepareOptions, parse_weights
from data_prep.origin import add_inputs, complete, parents_of, recorded
from data_prep.plan import (
    BYTES_PER_TEXT_BYTE,
    PLAN_NAME,
    Plan,
    as_json,
    check_same,
    make_plan,
    plan_key,
    read_plan,
    write_plan,
)
from data_prep.quality import open_steps
from data_prep.remask import begin_remask, remask
from data_prep.schema import MANIFEST_NAME, Manifest, parse_manifest
from data_prep.sentences import read_abbreviations
from data_prep.shuffle import shard_slots, shuffle_task
from data_prep.slurm import submit
from data_prep.summary import print_summary, write_summary
from tokenizer.corpus import Document
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.imported import read_recipe
from tokenizer.privacy import is_private_tokenizer, words_withheld
from tokenizer.provenance import Record, open_session

SUMMARY_NAME = "summary.json"

FINISH = "finish"
"""Last stage of a plan, one task."""


def prepare(options: PrepareOptions) -> dict:
    """Write the data folder, or go on with it; returns its manifest as a dict (empty where Slurm does the work).

    Raises:
        UserError: options, input or output cannot be used, or a worker died; what is finished is kept for the next run.
    """
    try:
        options.check()
        if options.tokenizer is not None:
            options = dataclasses.replace(options, private=options.private or is_private_tokenizer(options.tokenizer))
        with words_withheld(options.private):  # of a plan's tasks, each does it
            return run_part(options) if options.plan else run_whole(options)
    except OSError as error:  # our own files are written with messages of their own; this is the rest
        place = error.filename or options.output or options.plan
        raise UserError(
            f"{place}: {error.strerror or error}. What is finished is kept: mend the cause, and give the same command again."
        ) from error


def run_whole(options: PrepareOptions) -> dict:
    """Everything but `--plan`."""
    folder = Folder(options.output)
    began, session = time.perf_counter(), open_session()
    with sole_use(folder):
        plan = begin_remask(options, folder) if options.remask else begin(options, folder)
        if folder.exists(MANIFEST_NAME):
            return already_prepared(folder)
        shaping = plan["options"] if options.remask else plan.shaping
        with recorded(folder, session, shaping, parents_of(options)) as record:
            if options.remask:
                manifest = remask(options, folder)
            elif options.executor == "slurm":
                stages = [(stage.name, stage.num_tasks) for stage in first_stages(plan, folder)]
                submit(folder, options, stages, num_shuffle_jobs(plan))
                return {}
            else:
                manifest = run_plan(plan, folder, options.executor, options.workers or 1, record)
        report(folder, manifest, time.perf_counter() - began)
    return dataclasses.asdict(manifest)


def run_plan(plan: Plan, folder: Folder, executor: str, workers: int, record: Record) -> Manifest:
    """All stages, one after the other. record: of the folder, which learns the inputs."""
    key = plan_key(plan)
    how = {"log_url": log_url(folder, key), "executor": executor, "workers": workers}
    for stage in first_stages(plan, folder):
        run_stage(stage, sizes=plan.task_bytes() if stage.num_tasks == len(plan.tasks) else None, **how)
    run_stage(shuffle_stage(folder.url, key), **how)
    add_inputs(record, folder, plan)
    return finish(folder, plan, key)


def already_prepared(folder: Folder) -> dict:
    """The manifest of a finished folder, after what a kill at the very end may have left undone.

    Raises:
        UserError: a shard is missing.
    """
    manifest = parse_manifest(folder.read(MANIFEST_NAME), folder.path(MANIFEST_NAME))
    there = set(folder.names())
    missing = [name for counts in manifest.splits.values() for name in counts.shards if name not in there]
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} is missing. Put it back, or delete the folder to prepare it again.")
    print(f"{folder}: already prepared with these options.")
    folder.remove(PARTS)
    complete(folder)
    if SUMMARY_NAME not in there:
        report(folder, manifest, None)
    return dataclasses.asdict(manifest)


def report(folder: Folder, manifest: Manifest, seconds: float | None) -> None:
    """Print the summary and the warnings, and write them to summary.json."""
    found = warnings(manifest)
    sizes = {
        name: size for counts in manifest.splits.values() for name, size in zip(counts.shards, counts.shard_bytes, strict=True)
    }
    with folder.write(SUMMARY_NAME) as path:
        write_summary(path, manifest, found, seconds, sizes)
    print_summary(manifest, folder.url, found, seconds, sizes)


def begin(options: PrepareOptions, folder: Folder) -> Plan:
    """The plan of a new folder, or of one that was begun with the same options and corpus.

    Raises:
        UserError: the folder holds something else, or was begun otherwise.
    """
    if not (options.tokenizer / MANIFEST_NAME).is_file():  # made elsewhere, or exported
        read_recipe(options.tokenizer)
    encoder = Encoder(options.tokenizer)
    open_steps(options)  # what is missing or wrong shows before any work is done
    if options.abbreviations:
        read_abbreviations(options.abbreviations)
    plan = make_plan(options, encoder.sha256, encoder.vocab_size)
    parse_weights(options.weights, {item.label for item in plan.inputs})
    folder.remove_temporary()
    names = folder.names()
    if PLAN_NAME in names:
        old = read_plan(folder.url, str(time.time_ns()))
        check_same(folder, old, plan)
        private = dataclasses.replace(plan.options, private=old.options.private or plan.options.private)
        plan = dataclasses.replace(plan, cutoff=old.cutoff, options=private)
    elif names:
        raise UserError(
            f"{folder}: this folder holds something else ({', '.join(names[:5])}), so it is left alone. "
            "Choose an empty or new folder for the data."
        )
    else:
        documents = (document for task in range(len(plan.tasks)) for document in read_filtered(plan, task))
        plan = dataclasses.replace(plan, cutoff=find_cutoff(documents, options.seed, options.validation_fraction))
    if PLAN_NAME not in names or as_json(plan) != as_json(old):
        write_plan(folder, plan)
    return plan


def first_stages(plan: Plan, folder: Folder) -> list[Stage]:
    """All stages before the shuffle."""
    key, num_tasks = plan_key(plan), len(plan.tasks)
    stages = []
    if plan.options.dedup != "none":
        open_documents = functools.partial(read_planned, folder.url, key)
        num_bytes = sum(plan.task_bytes())
        stages += dedup_stages(plan.options.dedup, open_documents, num_tasks, num_bytes, f"{folder.url}/{PARTS}")
    if plan.options.weights:
        stages.append(Stage("measure", num_tasks, functools.partial(measure_task, folder.url, key)))
    stages.append(Stage("encode", num_tasks, functools.partial(encode_task, folder.url, key)))
    stages.append(Stage("gather", 1, functools.partial(gather_task, folder.url, key)))
    return [stage._replace(private=plan.options.private) for stage in stages]


def read_planned(url: str, key: str, task: int) -> Iterator[Document]:
    """`read_filtered` for other processes: the plan is read there, once."""
    return read_filtered(read_plan(url, key), task)


def shuffle_stage(url: str, key: str) -> Stage:
    """The gather stage must be done: it tells how many shards there are."""
    return Stage("shuffle", len(shard_slots(url, key)), functools.partial(shuffle_task, url, key))


def num_shuffle_jobs(plan: Plan) -> int:
    """About the number of shards, which is not known before the text is read; each job takes its share of them."""
    return 1 + int(sum(plan.task_bytes()) * BYTES_PER_TEXT_BYTE * plan.options.dupe_factor / plan.options.shard_size)


def log_url(folder: Folder, key: str) -> str:
    """Of the completion markers: under other options or another corpus no task counts as done."""
    return f"{folder.url}/{PARTS}/{key}"


def run_part(options: PrepareOptions) -> dict:
    """`--plan FILE --stage STAGE --task I/N`: what one element of a Slurm array does.

    Raises:
        UserError: no such plan, stage or task, or the stage before is not done.
    """
    path, _, name = options.plan.rpartition("/")
    if name != PLAN_NAME:
        raise UserError(f"--plan {options.plan}: expected the {PLAN_NAME} of a data folder.")
    folder = Folder(path or ".")
    plan = read_plan(folder.url)
    key = plan_key(plan)
    stages = first_stages(plan, folder)
    names = [*(stage.name for stage in stages), "shuffle", FINISH]
    if options.stage not in names:
        raise UserError(f"--stage {options.stage}: this plan has the stages {', '.join(names)}.")
    for stage in stages[: names.index(options.stage)]:
        check_done(stage, folder, key)
    if options.stage in ("shuffle", FINISH):
        stages.append(shuffle_stage(folder.url, key))
    if options.stage == FINISH:
        check_done(stages[-1], folder, key)
        with recorded(folder, open_session(), plan.shaping, parents_of(plan.options)) as record:
            add_inputs(record, folder, plan)
            manifest = finish(folder, plan, key)
        report(folder, manifest, None)
        return dataclasses.asdict(manifest)
    stage = stages[names.index(options.stage)]
    share, _, num_shares = options.task.partition("/")
    if not num_shares and int(share) >= stage.num_tasks:
        raise UserError(f"--task {options.task}: stage {stage.name} has the tasks 0 to {stage.num_tasks - 1}.")
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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another `albert prepare` is at work on it. Wait for it, or choose another --output."
            ) from error
        except OSError as error:  # some network file systems have no locks
            print(f"{folder}: cannot be locked ({error.strerror}): start no second preparation on it.", file=sys.stderr)
        try:
            yield
        finally:
            if os.path.isdir(folder.root) and not os.listdir(folder.root):
                os.rmdir(folder.root)
    finally:
        os.close(descriptor)
