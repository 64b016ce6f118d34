"""Which keys a user may set under `deepspeed:`: those that only watch a run.

Everything else would be ignored, or change the result.
"""

from typing import Any

ALLOWED = ("comms_logger", "csv_monitor", "dump_state", "flops_profiler", "memory_breakdown", "tensorboard", "wall_clock_breakdown")
REASONS = {
    "train_batch_size": "training.global_batch_size sets it",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size sets it",
    "gradient_accumulation_steps": "it follows from training.global_batch_size and training.micro_batch_size",
    "torch_autocast": "precision.dtype sets it",
    "gradient_clipping": "optimizer.max_grad_norm sets it, and the optimizer clips",
    "optimizer": "the section optimizer sets it; DeepSpeed's own Lamb clamps the trust ratio and is another optimizer",
    "scheduler": "the section schedule sets it",
    "zero_optimization": "stages above 0 flatten the tensors, but LAMB's trust ratio and the clipping need them whole; ALBERT is "
    "small: xxlarge takes 3.8 GB a GPU at stage 0",
    "bf16": "enabled, it makes LAMB take a step with zero gradients, so its trust ratios are wrong; set precision.dtype instead",
    "fp16": "enabled, it flattens the tensors, so LAMB's trust ratios are wrong; set precision.dtype instead",
    "communication_data_type": "gradients travel in fp32, so that the number of processes does not change the result",
}


def check_deepspeed(extra: dict[str, Any]) -> dict[str, Any]:
    """Refuse keys that are not known to leave optimizer and batch alone; docs/decisions.md has the measurements."""
    unknown = f"is not among those that leave the result alone: {', '.join(ALLOWED)}"
    faults = [f"{key}: cannot be set here: {REASONS.get(key, unknown)}" for key in extra if key not in ALLOWED]
    if faults:
        raise ValueError("\n".join(faults))
    return extra
