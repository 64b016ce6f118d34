"""Faults of the machine and of the data, put into a worker from outside (on PYTHONPATH): some instances make the loss no number.

BAD_INSTANCE: JSON lists of piece ids. A forward pass whose batch holds such a row gives a NaN loss, on the rank that has it.
BAD_GRADIENT: the same, but the loss stays finite and one gradient becomes infinite.
"""

import json
import os
import sys

if "pretrain" in sys.orig_argv and ("BAD_INSTANCE" in os.environ or "BAD_GRADIENT" in os.environ):
    import torch

    rows = [torch.tensor(row) for row in json.loads(os.environ.get("BAD_INSTANCE") or os.environ["BAD_GRADIENT"])]

    def holds(ids, row):
        return ids.shape[1] >= len(row) and (ids[:, : len(row)] == row).all(1).any()

    def spoil(module, inputs, output):
        if type(module).__name__ != "Albert" or not module.training:
            return None
        if not any(holds(inputs[0].input_ids_BT, row) for row in rows):
            return None
        if "BAD_INSTANCE" in os.environ:
            return output._replace(mlm_loss=output.mlm_loss + float("nan"))
        output.mlm_loss.register_hook(lambda grad: grad * float("inf"))
        return None

    torch.nn.modules.module.register_module_forward_hook(spoil)
