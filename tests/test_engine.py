"""DeepSpeed's private corners: what `pretrain/engine.py` leans on. A failure here names what a new release changed.

Each engine runs in a process of its own: engines of one process share autocast settings through globals.
"""

import subprocess
import sys
from pathlib import Path

PRELUDE = """
import torch
from pretrain.config import OptimizerConfig
from pretrain.config_file import check_config
from pretrain.engine import Engine, start_deepspeed
from pretrain.optimizer import build_optimizer

def make_engine(dtype):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
    config = check_config({"data": {"path": "x"}, "precision": {"dtype": dtype, "device": "cpu"}}, source="test")
    start_deepspeed(torch.device("cpu"))
    return Engine(model, build_optimizer(model, OptimizerConfig(lr=0.1)), config)
"""


def run(code: str) -> str:
    """Run code after the prelude in a fresh process, away from the repository; return what it printed."""
    finished = subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, timeout=120, cwd=Path.home())
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_construction_leaves_weights_and_optimizer_alone():
    run("""
engine = make_engine("bf16")
assert not engine.optimizer.state, "DeepSpeed took a step at construction"
assert all(p.dtype == torch.float32 for p in engine.model.parameters())
assert list(dict(engine.model.named_parameters())) == ["0.weight", "0.bias", "1.weight", "1.bias"], "names are prefixed"
""")


def test_backward_neither_scales_nor_steps_and_step_clips_updates_and_clears():
    run("""
engine = make_engine("fp32")
before = [p.detach().clone() for p in engine.model.parameters()]
x = torch.randn(4, 8)
for _ in range(3):
    engine.backward(engine.deepspeed(x).sum() * 100)
twin = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
twin.load_state_dict(engine.model.state_dict())
(twin(x).sum() * 300).backward()
for ours, theirs, old in zip(engine.model.parameters(), twin.parameters(), before):
    torch.testing.assert_close(ours.grad, theirs.grad)   # three backwards add up: no division by an accumulation count
    assert torch.equal(ours, old)
norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
assert engine.step()
torch.testing.assert_close(engine.optimizer.grad_norm, norm)  # before clipping, and DeepSpeed has not clipped
assert not any(torch.equal(p, old) for p, old in zip(engine.model.parameters(), before))
assert all(p.grad is None for p in engine.model.parameters())
""")


def test_autocast_computes_in_bf16_on_fp32_weights():
    run("""
engine = make_engine("bf16")
assert engine.deepspeed(torch.randn(2, 8)).dtype == torch.bfloat16
assert engine.grad_scaler is None
""")


def test_the_fp16_scaler_is_there_skips_an_overflow_and_has_a_state():
    run("""
engine = make_engine("fp16")
scaler = engine.grad_scaler
assert isinstance(scaler, torch.amp.GradScaler), "torch_autocast_z0_gradscaler has moved"
before, scale = [p.detach().clone() for p in engine.model.parameters()], scaler.get_scale()
engine.backward(engine.deepspeed(torch.randn(2, 8)).float().sum() * float("inf"))
assert not engine.step()
assert all(torch.equal(p, old) for p, old in zip(engine.model.parameters(), before)), "an overflow was applied"
assert scaler.get_scale() < scale
assert "scale" in scaler.state_dict()
for _ in range(10):  # the first scales may still overflow
    engine.backward(engine.deepspeed(torch.randn(2, 8)).float().sum())
    engine.step()
assert not any(torch.equal(p, old) for p, old in zip(engine.model.parameters(), before))
""")


def test_the_cpu_start_leaves_the_c_plus_plus_op_alone_and_prints_nothing():
    printed = run("""
make_engine("fp32")
from deepspeed.ops import __compatible_ops__
assert __compatible_ops__["deepspeed_shm_comm"] is False
""")
    assert printed == ""


def test_the_launcher_knows_the_options_we_pass():
    command = [sys.executable, "-m", "deepspeed.launcher.launch", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for option in ("--world_info", "--master_addr", "--master_port", "--no_local_rank", "--log_level", "--module"):
        assert option in text
