"""The one file that imports deepspeed: starts it, derives its config, and keeps to its private corners in one place.

DeepSpeed runs at ZeRO stage 0 with fp32 weights and `torch_autocast`; the loop accumulates gradients freely and calls `step` once
(`managed_gradient_accumulation: false`), so micro-batches and ranks may be of uneven number and size. docs/decisions.md has the
measurements behind each choice; tests/test_engine.py names what changed if a later DeepSpeed behaves otherwise.
"""

import logging
import os
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.config import RunConfig
from pretrain.model import LossSums, MicroBatch
from pretrain.products import bound_cache
from pretrain.rendezvous import fill_environment

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def start_deepspeed(device: torch.device, *, deterministic: bool = False) -> None:
    """Import deepspeed quietly for `device` and join the process group; single processes need no launcher.

    deterministic: let PyTorch use only kernels that give the same bits each time, and fail where there is none.
    """
    fill_environment()
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it, before it is started
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ["DS_ACCELERATOR"] = device.type
    bound_cache()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # On CPU this op would be compiled at the first start (84 s, needs a C++ compiler); it serves inference alone.
    __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """DeepSpeed's dict, derived; the keys of the section `deepspeed` that `check_deepspeed` let through are merged in."""
    derived = {
        "train_micro_batch_size_per_gpu": 1,  # nominal: only DeepSpeed's own counters use it
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": 0},
        "steps_per_print": 1_000_000_000,
    }
    if dtype := AUTOCAST_DTYPES.get(config.precision.dtype):
        derived["torch_autocast"] = {"enabled": True, "dtype": str(dtype).removeprefix("torch.")}
    return derived | config.deepspeed


class Engine:
    """A model and its optimizer under DeepSpeed: `forward` many times, `backward` after each, then `step` once."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig):
        import deepspeed

        self.optimizer = optimizer
        self.deepspeed, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=deepspeed_config(config))

    @property
    def model(self) -> nn.Module:
        """The module itself, with unprefixed parameter names."""
        return self.deepspeed.module

    def forward(self, batch: MicroBatch) -> LossSums:
        """Sums of losses, under autocast where the config asks for it."""
        return self.deepspeed(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to this rank's; nothing is sent. `step` averages over ranks, so scale by the world size."""
        self.deepspeed.backward(loss, scale_wrt_gas=False)

    def step(self) -> bool:
        """Average gradients over ranks, clip and update, clear gradients.

        Returns whether the update was applied: not with a gradient that is no finite number, which is averaged too, so that all
        ranks agree. With fp16 an overflow also lowers the loss scale.
        """
        self.optimizer.grad_norm = None
        self.deepspeed.step()
        return self.optimizer.grad_norm is not None and bool(self.optimizer.grad_norm.isfinite())

    def discard_gradients(self) -> None:
        """Forget what `backward` has added up."""
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """DeepSpeed's private fp16 loss scaler: its checkpoints leave it out, ours hold its `state_dict`."""
        return self.deepspeed.torch_autocast_z0_gradscaler
