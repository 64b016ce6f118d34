"""`logging.profile_steps`: a trace of some steps, and a table of where their time goes."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from pretrain.distributed import rank
from tokenizer.files import write_text

STEPS_BEFORE = 2
"""Steps after a start that are not like the others: memory is taken, kernels are chosen."""
PARTS = ("read", "forward", "backward", "optimizer")
KERNELS_SHOWN = 30


class StepProfiler:
    """Records steps FIRST to LAST on rank 0; writes RUN/profile/steps-FIRST-LAST.json.gz, for Perfetto or chrome://tracing, and a
    .txt."""

    def __init__(self, run_folder: Path, device: torch.device, first_step: int, num_steps: int):
        """first_step: of this start of the run. num_steps: 0 records none."""
        self.first = first_step + STEPS_BEFORE
        self.last = self.first + num_steps - 1
        self.path = run_folder / "profile" / f"steps-{self.first}-{self.last}"
        self.device = device
        self.profile: profile | None = None

    def begin_step(self, step: int) -> None:
        if self.first <= step <= self.last and self.profile is None and rank() == 0:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
            self.profile = profile(activities=activities, acc_events=True)
            self.profile.start()

    def end_step(self, step: int) -> Path | None:
        """The table, when the last step has been recorded."""
        if self.profile is None or step < self.last:
            return None
        recorded, self.profile = self.profile, None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        recorded.stop()
        self.path.parent.mkdir(exist_ok=True)
        recorded.export_chrome_trace(f"{self.path}.json.gz")
        table = self.path.with_suffix(".txt")
        write_text(table, describe(recorded, self.last - self.first + 1, self.device))
        return table


def describe(recorded: profile, num_steps: int, device: torch.device) -> str:
    """Milliseconds a step of its parts, then the kernels that take most of it."""
    averages = recorded.key_averages()
    on_gpu = device.type == "cuda"
    spent = {event.key: event.device_time_total if on_gpu else event.cpu_time_total for event in averages if event.key in PARTS}
    lines = [f"{name:10}{spent.get(name, 0.0) / 1e3 / num_steps:12,.1f} ms a step" for name in PARTS]
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return "\n".join([*lines, "", averages.table(sort_by=order, row_limit=KERNELS_SHOWN), ""])
