"""`albert doctor`: a look at hosts, network, folders, config and data before the money burns; a table out, and an exit code."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.schema import Manifest, manifest_sha256, read_manifest
from launch.config_verdicts import config_rows, data_rows, disk_row
from launch.host_facts import Plan, own_facts
from launch.hosts import Place, pdsh_faults, read_hostfile
from launch.options import shared_faults
from launch.run import split_override
from launch.slurm import sbatch_faults
from launch.survey import Survey, ask, local_command, shared_folder, srun_command, ssh_command
from launch.verdicts import Host, Row, Wanted, brief_list, host_rows, meeting_rows, row
from pretrain.config import RunConfig
from pretrain.config_file import load_config, read_yaml
from pretrain.rendezvous import free_port
from tokenizer.errors import UserError
from tokenizer.printable import printable


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Options of `albert doctor`, the same as those of the `albert launch` to come; any field of the run config can follow as
    --section.field VALUE."""

    config: Path | None = None
    """YAML run config of the run to come."""
    data: Path | None = None
    """Folder that `albert prepare` wrote; default: data.path of the config."""
    output: Path | None = None
    """Run folder of the run to come; nothing is left there."""
    num_procs: int | None = None
    """Worker processes on this machine, or on each node of --slurm; default: one for each GPU, or 1 on CPU."""
    hostfile: Path | None = None
    """Several machines, one `HOST slots=N` a line, reached by pdsh and ssh."""
    master_addr: str | None = None
    """Address at which the other machines of --hostfile reach the first one; default: its name there."""
    slurm: bool = False
    """Reach the nodes through srun: those of the job that this runs in, or else of an allocation that is waited for."""
    num_nodes: int | None = None
    """With --slurm: how many nodes; default: those of the job, or 1."""
    sbatch: list[str] = field(default_factory=list)
    """With --slurm: those of the launch, e.g. account=NAME partition=gpu gres=gpu:8; srun gets what it knows of them."""
    timeout: float = 60.0
    """Longest time, in seconds, that hosts wait for each other in one step."""
    overrides: list[str] = field(default_factory=list)
    """Fields of the run config as section.field=VALUE; --section.field VALUE means the same."""


def doctor(options: DoctorOptions) -> int:
    """Look at everything, print the table; 1 if anything would stop the run, else 0.

    Raises:
        UserError: the options contradict each other, or the hostfile cannot be used.
    """
    check_options(options)
    hosts = read_hostfile(options.hostfile) if options.hostfile else {"localhost": [0]}
    starter = "here" if options.hostfile is None else "pdsh"
    place = Place(devices=hosts, starter=starter, master_addr=options.master_addr or next(iter(hosts)))
    config, data, faults = read_config(options)
    rows = [Row("config", "red", "\n".join(faults), "Mend the config.")] if faults else []
    manifest = None
    try:
        manifest = read_manifest(data) if data else None
    except UserError as error:
        rows.append(Row("data", "red", str(error), "Prepare the data, or give the right --data."))
    device = config.precision.device if config else "auto"
    folder_faults = []
    with ExitStack() as stack:
        token, folder = secrets.token_hex(16), None
        if options.output:
            try:
                folder = stack.enter_context(shared_folder(options.output.absolute(), token))
            except OSError as error:
                folder_faults.append(f"here: {error.filename}: {error.strerror}")
        plan = make_plan(options, place, folder, token, data, device)
        survey = ask_hosts(options, place, plan)
    found = [survey.hosts[number] for number in sorted(survey.hosts)]
    slots = {host.name: num_processes(host, options, place, device) for host in found}
    num_procs = place.num_procs if place.starter == "pdsh" else sum(slots.values()) or 1
    rows = [hosts_row(survey, options, place, plan), *rows]
    if found:
        wanted = Wanted(slots, device, config.training.compile if config else None)
        rows += host_rows(found, {name: find() for name, find in own_facts().items()}, wanted)
    if found and plan.count > 1:
        rows += meeting_rows(found, device, survey.sent_at)
    if found and options.output:
        rows += folder_rows(survey, options.output, folder_faults, found, config, manifest)
    if manifest is not None:
        rows += [data_seen_row(found, data, manifest_sha256(data))] if found else []
        rows += data_rows(data, manifest)
    if config is not None:
        rows += config_rows(config, manifest, num_procs)
    show(rows, missing(options, data, plan))
    return int(any(each.colour == "red" for each in rows))


def check_options(options: DoctorOptions) -> None:
    """Raise one UserError with a line for each fault of the options."""
    faults = shared_faults(options, ("num_procs", "num_nodes", "timeout"))
    if options.hostfile is not None and options.slurm:
        faults.append("--hostfile and --slurm: two ways to the same hosts; give one of them")
    faults += [
        f"--{name}: goes with --slurm alone" for name in ("num_nodes", "sbatch") if getattr(options, name) and not options.slurm
    ]
    if options.overrides and options.config is None:
        faults.append(f"--{options.overrides[0].partition('=')[0]}: changes a config; give it with --config")
    faults += sbatch_faults(options.sbatch)
    if options.hostfile is not None:
        faults += pdsh_faults()
    if options.slurm and shutil.which("srun") is None:
        faults.append("--slurm: srun is not to be found. Call this where jobs are submitted")
    if faults:
        raise UserError("\n".join(faults))


def read_config(options: DoctorOptions) -> tuple[RunConfig | None, Path | None, list[str]]:
    """The config with overrides applied, the data folder, and the faults of the config, which may name no data."""
    if options.config is None:
        return None, options.data and options.data.absolute(), []
    try:
        overrides = [split_override(text) for text in options.overrides]
        content = read_yaml(options.config)
        given = isinstance(content.get("data"), dict) and content["data"].get("path") is not None
        given = given or any(name == "data.path" for name, _ in overrides)
        if options.data is not None or not given:
            overrides.append(("data.path", json.dumps(str(options.data or "DATA"))))
        config = load_config(options.config, overrides)
    except UserError as error:
        return None, options.data and options.data.absolute(), [str(error)]
    return config, config.data.path.absolute() if given or options.data else None, []


def make_plan(options: DoctorOptions, place: Place, folder: Path | None, token: str, data: Path | None, device: str) -> Plan:
    """What each host is told."""
    names = list(place.devices)
    count = (options.num_nodes or int(os.environ.get("SLURM_NNODES", "1"))) if options.slurm else len(names)
    return Plan(
        count=count,
        first="" if options.slurm else place.master_addr if count > 1 else names[0],
        second="" if options.slurm else names[min(1, count - 1)],
        port=free_port(),
        token=token,
        folder=folder and str(folder),
        output=options.output and str(options.output.absolute()),
        data=data and str(data),
        device=device,
        seconds=options.timeout,
    )


def ask_hosts(options: DoctorOptions, place: Place, plan: Plan) -> Survey:
    """The survey, by the way that the options name."""
    if options.slurm:
        command = srun_command(plan.count, options.sbatch, plan)
        how = f"srun asks {plan.count} node(s); outside a job this waits for an allocation (Ctrl-C gives it up)"
    elif place.starter == "pdsh":
        command, how = ssh_command(place, plan), f"asking {plan.count} host(s) through pdsh"
    else:
        command, how = local_command(plan), "looking at this machine; with --hostfile or --slurm, at others"
    print(f"albert doctor: {how} ...", file=sys.stderr, flush=True)
    return ask(command, plan, waits_for_allocation=options.slurm)


def num_processes(host: Host, options: DoctorOptions, place: Place, device: str) -> int:
    """Worker processes of the run on this host."""
    if place.starter == "pdsh":
        return len(place.devices[host.name])
    gpus = (host.value("gpus") or {}).get("names", []) if device != "cpu" else []
    return options.num_procs or len(gpus) or 1


def hosts_row(survey: Survey, options: DoctorOptions, place: Place, plan: Plan) -> Row:
    """Whether all answered, and what was said about those that did not."""
    names, words = {number: host.name for number, host in survey.hosts.items()}, survey.words
    red = [f"{host.name}: has not finished" for host in survey.hosts.values() if not host.is_done]
    if options.slurm:
        red += [f"{len(names)} of {plan.count} node(s) have answered"] * (len(names) < plan.count)
        remedy = "Look at what srun says; --sbatch passes partition, account, gres and the like."
    else:
        silent = [name for number, name in enumerate(place.devices) if number not in names]
        red += [f"{name}: no answer" for name in silent]
        words = [line for line in words if any(name in line for name in silent)] or words
        program = f"{sys.executable} must be there, with this program."
        remedy = f"`ssh HOST true` must work from here without a password, and {program}" if place.starter == "pdsh" else program
    said = [f"  {printable(line)}" for line in words[-10:]]
    listed = ", ".join(brief_list([names[number] for number in sorted(names)]))
    return row("hosts", red + said * bool(red), [], f"{len(names)} of {plan.count}: {listed}", remedy)


def folder_rows(
    survey: Survey, output: Path, faults: Sequence[str], hosts: list[Host], config: RunConfig | None, manifest: Manifest | None
) -> list[Row]:
    """The folder that all hosts share, and the room in it."""
    red = [*faults, *(f"{name}: {fault}" for name, fault in survey.folder_faults.items())]
    green = "what is written here is read on all hosts, and the other way round"
    remedy = f"{output} must lie where all hosts see it under this path, on a file system that you can write to from each."
    rows = [row("run folder", brief_list(red), [], green, remedy)]
    disk = hosts[0].value("disk")
    if disk and config and manifest:
        rows.append(disk_row(config, manifest.vocab_size, output, disk["free"]))
    elif disk:
        rows.append(
            Row("disk", "green", f"{disk['free'] / 1e9:.2f} GB free; not compared with checkpoints without config and data")
        )
    else:
        rows.append(Row("disk", "red", f"{hosts[0].name}: {hosts[0].fault('disk')}", "Mend the folder of --output there."))
    return rows


def data_seen_row(hosts: list[Host], data: Path, sha256: str) -> Row:
    """Whether each host sees the same data."""
    red = [f"{host.name}: {host.fault('data')}" for host in hosts if host.fault("data")]
    red += [f"{host.name}: another manifest.json" for host in hosts if host.value("data") not in (None, sha256)]
    remedy = f"{data} must be the same on all hosts, under this path."
    return row("data folder", brief_list(red), [], "the same on all hosts", remedy)


def missing(options: DoctorOptions, data: Path | None, plan: Plan) -> list[str]:
    """Checks that were not made, and what they want."""
    wants = []
    if options.config is None:
        wants.append("--config (learning rate, batch, compiler)")
    if data is None:
        wants.append("--data (tokenizer, unknown pieces, duplicates)")
    if options.output is None:
        wants.append("--output (shared run folder, disk)")
    if plan.count == 1:
        wants.append("--hostfile or --slurm with several hosts (clocks, network, ports, all-reduce)")
    return wants


def show(rows: list[Row], unchecked: list[str]) -> None:
    """The table, and a verdict in words."""
    console = Console(highlight=False)
    table = Table(header_style="bold")
    for title in ("check", "", "found"):
        table.add_column(title)
    for each in rows:
        text = Text("\n".join(printable(line) for line in each.found.split("\n")))
        if each.remedy and each.colour != "green":
            text.append(f"\n{printable(each.remedy)}", style="bold")
        table.add_row(each.check, Text(each.colour, style=each.colour), text)
    console.print(table)
    for want in unchecked:
        console.print(f"not checked without {want}", style="dim", markup=False)
    num_red = sum(each.colour == "red" for each in rows)
    verdict = "nothing that was checked would stop the run" if not num_red else f"{num_red} red: the run would stop, or go wrong"
    console.print(verdict, style="bold red" if num_red else "bold green")
