"""The learning rate as a function of the step, and of the time where that is limited: no state of its own."""

from pretrain.config import ScheduleConfig


def lr_at(step: int, *, peak_lr: float, schedule: ScheduleConfig, time_left: float = 1.0) -> float:
    """Learning rate of optimizer step `step` (the first is 0): linear warm-up from 0 at `start_step`, then linear decay to 0
    at `total_steps`; at most `peak_lr * time_left`, the share (1 to 0) of `training.max_hours` that is left.

    Continuous at the join; google-research/albert counts its decay from step 0, so its curve drops there (docs/decisions.md).
    """
    begin, peak = schedule.start_step, schedule.start_step + schedule.warmup_steps
    if step < begin:
        return 0.0
    if step < peak:
        by_steps = peak_lr * (step - begin) / schedule.warmup_steps
    else:
        by_steps = peak_lr * max(0.0, (schedule.total_steps - step) / (schedule.total_steps - peak))
    return min(by_steps, peak_lr * time_left)
