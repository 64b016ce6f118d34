"""Faults of the machine and of the data, put into a worker from outside (on PYTHONPATH): some instances make the loss no number.

BAD_INSTANCE: JSON lists of piece ids. A forward pass whose batch holds such a row gives a NaN loss, on the rank that has it.
BAD_GRADIENT: the same, but the loss stays finite and one gradient becomes infinite.
LOUD_INSTANCE: the same, but the loss is ten times what it should be.
RUINED_WEIGHT: the forward pass, counted from 1, before which rank 1 finds a weight infinite that no loss depends on: the position
embedding after the longest row.
SLOW_STEP: seconds that a forward pass of the training takes longer, so that what is to happen in the midst of a run does.
SLOW_WRITE: seconds that the disk takes for a checkpoint.
DIES_AT: the training forward pass, counted from 1 in each start, before which rank 1 ends: by SIGKILL, or with DIES_BY=error by an
exception.
LITTLE_MEMORY: bytes of data that the process of rank 1 can have.
"""

import json
import os
import resource
import signal
import sys
import time

FAULTS = {"BAD_INSTANCE", "BAD_GRADIENT", "LOUD_INSTANCE"} & os.environ.keys()

if "pretrain" in sys.orig_argv and FAULTS:
    import torch

    (fault,) = FAULTS
    rows = [torch.tensor(row) for row in json.loads(os.environ[fault])]

    def holds(batch, row):
        return any(len(ids) >= len(row) and (ids[: len(row)] == row).all() for ids in batch.input_ids_N.split(batch.lengths))

    def spoil(module, inputs, output):
        if type(module).__name__ != "Albert" or not module.training:
            return None
        if not any(holds(inputs[0], row) for row in rows):
            return None
        if fault == "BAD_INSTANCE":
            return output._replace(mlm_loss=output.mlm_loss + float("nan"))
        if fault == "LOUD_INSTANCE":
            return output._replace(mlm_loss=output.mlm_loss * 10)
        output.mlm_loss.register_hook(lambda grad: grad * float("inf"))
        return None

    torch.nn.modules.module.register_module_forward_hook(spoil)

if "pretrain" in sys.orig_argv and "SLOW_WRITE" in os.environ:
    from pretrain import checkpoint

    write_checkpoint = checkpoint.write_checkpoint

    def write_slowly(*arguments):
        time.sleep(float(os.environ["SLOW_WRITE"]))
        write_checkpoint(*arguments)

    checkpoint.write_checkpoint = write_slowly

if "pretrain" in sys.orig_argv and "SLOW_STEP" in os.environ:
    import torch

    def dawdle(module, inputs):
        if type(module).__name__ == "Albert" and module.training:
            time.sleep(float(os.environ["SLOW_STEP"]))

    torch.nn.modules.module.register_module_forward_pre_hook(dawdle)

if "pretrain" in sys.orig_argv and "LITTLE_MEMORY" in os.environ and os.environ.get("RANK") == "1":
    limit = int(os.environ["LITTLE_MEMORY"])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

if "pretrain" in sys.orig_argv and "RUINED_WEIGHT" in os.environ and os.environ.get("RANK") == "1":
    import torch

    countdown = iter(range(int(os.environ["RUINED_WEIGHT"]) - 1, -1, -1))

    def ruin(module, inputs):
        if type(module).__name__ == "Albert" and module.training and next(countdown, None) == 0:
            with torch.no_grad():
                module.embeddings.position.weight[-1] = float("inf")

    torch.nn.modules.module.register_module_forward_pre_hook(ruin)

if "pretrain" in sys.orig_argv and "DIES_AT" in os.environ and os.environ.get("RANK") == "1":
    import torch

    passes_left = iter(range(int(os.environ["DIES_AT"]) - 1, -1, -1))

    def die(module, inputs):
        if type(module).__name__ == "Albert" and module.training and next(passes_left, None) == 0:
            if os.environ.get("DIES_BY") == "error":
                raise RuntimeError("a fault of the code")
            os.kill(os.getpid(), signal.SIGKILL)

    torch.nn.modules.module.register_module_forward_pre_hook(die)
