"""Faults of the machine and of the data, put into a worker from outside (on PYTHONPATH): some instances make the loss no number.

BAD_INSTANCE: JSON lists of piece ids. A forward pass whose batch holds such a row gives a NaN loss, on the rank that has it.
BAD_GRADIENT: the same, but the loss stays finite and one gradient becomes infinite.
LOUD_INSTANCE: the same, but the loss is ten times what it should be.
"""

import json
import os
import sys

FAULTS = {"BAD_INSTANCE", "BAD_GRADIENT", "LOUD_INSTANCE"} & os.environ.keys()

if "pretrain" in sys.orig_argv and FAULTS:
    import torch

    (fault,) = FAULTS
    rows = [torch.tensor(row) for row in json.loads(os.environ[fault])]

    def holds(ids, row):
        return ids.shape[1] >= len(row) and (ids[:, : len(row)] == row).all(1).any()

    def spoil(module, inputs, output):
        if type(module).__name__ != "Albert" or not module.training:
            return None
        if not any(holds(inputs[0].input_ids_BT, row) for row in rows):
            return None
        if fault == "BAD_INSTANCE":
            return output._replace(mlm_loss=output.mlm_loss + float("nan"))
        if fault == "LOUD_INSTANCE":
            return output._replace(mlm_loss=output.mlm_loss * 10)
        output.mlm_loss.register_hook(lambda grad: grad * float("inf"))
        return None

    torch.nn.modules.module.register_module_forward_hook(spoil)
