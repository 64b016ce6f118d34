"""The run config: one frozen `RunConfig`, made of a section for each part of a run.

Each field's default stands here and nowhere else. `vocab_size` and `max_seq_length` are read from the data's manifest.
pretrain/config_file.py reads and checks it.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pretrain.deepspeed_keys import check_deepspeed

FORMAT_VERSION = 1
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["gelu_new", "gelu", "relu"]
"""As transformers names them."""


def check_micro_batch_size(value: object) -> object:
    if value != "auto" and (type(value) is not int or value < 1):
        raise PydanticCustomError("micro_batch_size", "must be a whole number above 0, or auto")
    return value


MicroBatchSize = Annotated[int | Literal["auto"], BeforeValidator(check_micro_batch_size)]


def raise_faults(faults: list[str]) -> None:
    """What pydantic collects as faults of a section: lines of one ValueError."""
    if faults:
        raise ValueError("\n".join(faults))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read."""

    __pydantic_config__ = STRICT
    path: Path
    """Folder that `albert prepare` wrote; `albert launch --data` sets it."""
    shuffle_window: Count = 8
    """Shards whose rows are shuffled among each other; smaller where the disk seeks badly. Of compressed shards so many are
    held in memory by each process, 256 MB each."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the model; the defaults are ALBERT base v2 (paper, table 1)."""

    __pydantic_config__ = STRICT
    embedding_size: Count = 128
    """E, size of the factorised embeddings."""
    hidden_size: Count = 768
    """D."""
    num_hidden_layers: Count = 12
    """L, how many times a layer is applied."""
    num_attention_heads: Count = 12
    """H; must divide hidden_size."""
    intermediate_size: Count = 3072
    """F, inner size of the feed-forward block."""
    num_hidden_groups: Count = 1
    """Groups of consecutive layers that share weights; must divide num_hidden_layers."""
    share: Literal["all", "attention", "ffn", "none"] = "all"
    """Which block the layers of a group share (paper, table 4)."""
    max_position_embeddings: Count = 512
    """Longest sequence, in pieces, that the model can take."""
    hidden_act: Activation = "gelu_new"
    """What the feed-forward block and the masked-LM head apply: `gelu_new`, GELU by tanh, as ALBERT's own code and the v2 models on
    the Hugging Face Hub; `gelu`, by the error function, as the v1 models there; `relu`, as some others."""
    hidden_dropout: Probability = 0.0
    """Dropout probability after embeddings, attention and feed-forward (v1 base to xlarge: 0.1)."""
    attention_dropout: Probability = 0.0
    """Dropout probability of attention weights (v1 base to xlarge: 0.1)."""
    initializer_range: Positive = 0.02
    """Standard deviation of the truncated normal that weights are drawn from."""
    init_from: Path | None = None
    """Hugging Face ALBERT folder to start from instead of random weights. Fields of `model` that are not given are taken from it;
    pieces that its vocabulary shares with that of the data keep their rows."""

    def __post_init__(self) -> None:
        faults = []
        for name, of in (("num_attention_heads", "hidden_size"), ("num_hidden_groups", "num_hidden_layers")):
            divisor, number = getattr(self, name), getattr(self, of)
            if number % divisor:
                faults.append(f"{name}: must divide {of} {number}, found {divisor}")
        raise_faults(faults)

    @property
    def drops(self) -> bool:
        return self.hidden_dropout > 0 or self.attention_dropout > 0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """LAMB as google-research/albert codes it, or AdamW."""

    __pydantic_config__ = STRICT
    name: Literal["lamb", "adamw"] = "lamb"
    """`lamb` has no bias correction and no clamp on the trust ratio."""
    lr: Positive | None = None
    """Peak learning rate. Left out with `lamb`: the paper's 0.00176 at batch 4,096, by the square-root rule for another batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Not applied to biases and LayerNorm."""
    beta1: Probability = 0.9
    """Decay of the first moment."""
    beta2: Probability = 0.999
    """Decay of the second moment."""
    eps: Positive = 1e-6
    """Added to the root of the second moment."""
    max_grad_norm: Positive = 1.0
    """Global norm that gradients are clipped to."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up to the peak, then linear decay to 0 at `total_steps`."""

    __pydantic_config__ = STRICT
    start_step: NotNegative = 0
    """Optimizer step at which the warm-up begins: above 0 in a phase (`continue_from`) that warms up anew."""
    warmup_steps: NotNegative = 3125
    """Optimizer steps from 0 to the peak."""
    total_steps: Count = 125_000
    """Optimizer step at which the learning rate reaches 0, counted over all phases."""

    def __post_init__(self) -> None:
        length = self.total_steps - self.start_step
        if self.warmup_steps >= length:
            of = "total_steps" if not self.start_step else "total_steps - start_step ="
            raise_faults([f"warmup_steps: must be below {of} {length}, found {self.warmup_steps}"])


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how much at a time."""

    __pydantic_config__ = STRICT
    steps: Count = 125_000
    """Optimizer step, counted over all phases, after which the run is done; at most schedule.total_steps."""
    max_hours: Positive | None = None
    """Hours of training after which the run is done, as if at `steps`; of the two, what comes first. Counted are the steps of all
    sessions of this run: no set-up, no validation, no work that was lost and done again. The learning rate is then at most the peak
    times the share of the hours that is left, so that it has come down to 0 at the end."""
    global_batch_size: Count = 4096
    """Instances in one optimizer step, over all processes."""
    micro_batch_size: MicroBatchSize = "auto"
    """Most instances in one forward pass of one process; bounds memory, and leaves the result as it is. `auto` tries for the
    largest that fits and keeps it in RUN/micro_batch_size.json; found again when the device, the number of processes, or what
    else it depends on changes."""
    bucket_by_length: bool = True
    """Cut the global batch into micro-batches of like length: less padding, the same result."""
    compile: bool = True
    """Compile the layer with torch.compile, once at the start (about half a minute; needs a C++ compiler); rounding differs a
    little from `false`."""
    activation_checkpointing: bool = False
    """Keep only the input of each layer and compute the rest again in the backward pass: less memory, a third more work, the
    same result."""
    validate_every_n_steps: Count = 1000
    """Steps between validations; the first is before step 1, the last after the last step."""
    max_validation_instances: Count = 20_000
    """Held-out instances that a validation reads at most."""
    seed: NotNegative = 0
    """Seed of the initial weights, of the order of instances (a fresh one each epoch), and of dropout."""


@dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Arithmetic of forward and backward; weights and optimizer state are fp32 always."""

    __pydantic_config__ = STRICT
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """`bf16` and `fp16` run under DeepSpeed's torch_autocast; `fp16` scales the loss."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPUs if there are any."""
    deterministic: bool = False
    """Only kernels that give the same bits each time, so that a resumed run on a GPU is bitwise the run that was not stopped;
    slower. On a CPU it is so anyway."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save and what to keep."""

    __pydantic_config__ = STRICT
    every_n_steps: Count = 1000
    """Steps between checkpoints; the last step is saved always."""
    keep_last: Count = 3
    """Newest checkpoints kept, beside the best: the one with the lowest validation loss, of those saved at a validated step."""


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """What is done when training goes wrong, and what is said."""

    __pydantic_config__ = STRICT
    max_skipped_steps: Count = 10
    """Steps in a row that may be skipped, as one with a loss or gradient that is no finite number is, before `on_divergence`."""
    on_divergence: Literal["rollback", "stop"] = "rollback"
    """`rollback`: back to the last good checkpoint, with a lower learning rate, past the samples of the bad steps. `stop`: end
    with a diagnosis and exit code 4."""
    lr_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What a rollback multiplies the learning rate by, from there on."""
    max_rollbacks: NotNegative = 3
    """Rollbacks after which the run ends with a diagnosis all the same."""
    plateau_steps: Count = 2000
    """Steps that the loss may stand still at the corpus' unigram entropy before the log names it."""


@dataclass(frozen=True, kw_only=True)
class SupervisionConfig:
    """What is done about processes that hang or die."""

    __pydantic_config__ = STRICT
    watchdog_seconds: Positive = 120.0
    """Seconds without a sign of life, as each micro-batch is one, after which a process is taken for hung and ends; ten times as
    many while it starts, compiles or saves."""
    max_restarts: NotNegative = 3
    """Times in a row, without a new checkpoint in between, that `albert launch` starts again after a crash."""


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """Where figures go; RUN/metrics.jsonl is always written."""

    __pydantic_config__ = STRICT
    every_n_steps: Count = 50
    """Steps between lines of training metrics."""
    profile_steps: NotNegative = 0
    """Steps, from the third after a start on, of which RUN/profile gets a trace (for Perfetto) and a table of where their time
    goes; they take longer."""
    wandb: Literal["offline", "online", "disabled"] = "offline"
    """`offline` needs no account and no network."""
    wandb_project: str = "albert"
    """Project name in wandb."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that shapes a run."""

    __pydantic_config__ = STRICT
    data: DataConfig
    continue_from: Path | None = None
    """Run folder whose newest checkpoint this run begins with: weights, optimizer state and step. A second phase, with another
    length, data folder, batch or schedule."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    deepspeed: Annotated[dict[str, Any], AfterValidator(check_deepspeed)] = field(default_factory=dict)
    """Keys merged into the derived DeepSpeed config, except those that would break LAMB or the batch."""
    format_version: int = FORMAT_VERSION
    """Version of this file's layout."""

    def __post_init__(self) -> None:
        faults = []
        total = self.schedule.total_steps
        if self.training.steps > total:
            faults.append(f"training.steps: must be at most schedule.total_steps {total}, found {self.training.steps}")
        if self.optimizer.lr is None and self.optimizer.name != "lamb":
            faults.append(f"optimizer.lr: must be given for {self.optimizer.name}; the paper's is for lamb")
        if self.continue_from is None and self.schedule.start_step:
            faults.append(f"schedule.start_step: must be 0 without continue_from, found {self.schedule.start_step}")
        if self.continue_from is not None and self.model.init_from is not None:
            faults.append("continue_from: brings its own weights, so model.init_from must be null")
        if self.format_version != FORMAT_VERSION:
            faults.append(
                f"format_version: this release reads {FORMAT_VERSION}, found {self.format_version}; "
                "install the release that wrote it"
            )
        raise_faults(faults)


PAPER_LR, PAPER_BATCH = 0.00176, 4096
"""Lan et al., section 4.1: LAMB at batch 4,096."""


def scaled_lr(global_batch_size: int) -> float:
    """The paper's learning rate for another batch, by the square-root rule (You et al., arXiv 1904.00962, section 4)."""
    return PAPER_LR * math.sqrt(global_batch_size / PAPER_BATCH)
