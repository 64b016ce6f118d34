"""Which keys a user may set under `deepspeed:`: those that would silently break LAMB or the batch are refused with the reason."""

from typing import Any

OWNED_BY_US = {
    "train_batch_size": "training.global_batch_size sets it",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size sets it",
    "gradient_accumulation_steps": "it follows from training.global_batch_size and training.micro_batch_size",
    "managed_gradient_accumulation": "the training loop accumulates",
    "torch_autocast": "precision.dtype sets it",
    "amp": "precision.dtype sets it",
    "gradient_clipping": "optimizer.max_grad_norm sets it, and the optimizer clips",
    "optimizer": "the section optimizer sets it; DeepSpeed's own Lamb clamps the trust ratio and is another optimizer",
    "scheduler": "the section schedule sets it",
    "prescale_gradients": "gradients are normalised by the masked pieces of the global batch",
    "gradient_predivide_factor": "gradients are normalised by the masked pieces of the global batch",
}
"""DeepSpeed keys that the run config derives."""


def check_deepspeed(extra: dict[str, Any]) -> dict[str, Any]:
    """Refuse keys that would silently change the optimizer or the batch; docs/decisions.md has the measurements."""
    faults = [f"{key}: cannot be set here: {why}" for key, why in OWNED_BY_US.items() if key in extra]
    for key in ("bf16", "bfloat16", "fp16"):
        if isinstance(extra.get(key), dict) and extra[key].get("enabled"):
            faults.append(
                f"{key}: enabled makes LAMB take a step with zero gradients or see flattened tensors, so its trust ratios are "
                "wrong; set precision.dtype instead"
            )
    zero = extra.get("zero_optimization")
    if isinstance(zero, dict) and zero.get("stage", 0) != 0:
        faults.append(
            f"zero_optimization.stage: must be 0, found {zero['stage']}: higher stages flatten the tensors, but LAMB's trust ratio "
            "and the gradient clipping need them whole; ALBERT is small: xxlarge takes 3.8 GB a GPU at stage 0"
        )
    if faults:
        raise ValueError("\n".join(faults))
    return extra
