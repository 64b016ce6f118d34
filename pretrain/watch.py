"""Logged losses in, sentences about what goes wrong out: a plateau at the unigram entropy, a spike, divergence; with what helped.

Where the advice comes from: google-research/albert issue 29 (a loss that rose and stayed up came down with a lower rate, scaled by
the square-root rule), huggingface/transformers issues 4727 and 10840 (ALBERT stuck at 7.27 with a constant rate), Chowdhery et al.
(PaLM, arXiv 2204.02311, section 5.1: going back some 100 steps and past the batches around a spike), You et al. (LAMB, arXiv
1904.00962, section 4: warm-up grows with the batch), Xiong et al. (arXiv 2002.04745: post-LayerNorm needs its warm-up).
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from pretrain.config import RunConfig

NEAR_ENTROPY = 0.89
"""Of the unigram entropy H. A tenth of the masked pieces are left to see, though not told from the tenth that others replace, so a
model without context comes to 0.9 H + 0.2 ln 2. Runs that stood at 0.86 and 0.87 H for 2,000 steps had learnt from context, and
went on when the rate fell (configs/cpu.yaml, docs/does_it_help.md)."""
STANDS_STILL = 0.01
"""Of the loss: less than this from the first half of `plateau_steps` to the second is no progress."""
MIN_RECORDS = 10
"""Logged losses before a judgement: fewer do not tell noise from change."""
SPIKE_WINDOW = 20
"""Logged losses that a new one is held against."""
SPIKE_DEVIATIONS, SPIKE_SHARE = 6, 0.1
"""A spike is above the mean by so many standard deviations and by this share of it."""

LOWER_RATE = "lower optimizer.lr, or lengthen schedule.warmup_steps"


class Finding(NamedTuple):
    kind: str
    """plateau or spike."""
    message: str


class Watch:
    """Sees each logged training record once, in order; it keeps nothing that the records do not say, so a resumed run feeds it the
    records so far."""

    def __init__(self, config: RunConfig, unigram_entropy: float):
        self.plateau_steps = max(config.stability.plateau_steps, MIN_RECORDS * config.logging.every_n_steps)
        self.warm_at = config.schedule.start_step + config.schedule.warmup_steps
        self.entropy = unigram_entropy
        self.recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self.history: list[tuple[int, float]] = []
        self.in_spike = self.on_plateau = False

    def see(self, step: int, loss: float) -> list[Finding]:
        """What is new with the MLM loss (nats) of this step; a state that lasts is named once."""
        spike, plateau = self.find_spike(step, loss), self.find_plateau(step, loss)
        news = [spike] if spike and not self.in_spike else []
        news += [plateau] if plateau and not self.on_plateau else []
        self.in_spike, self.on_plateau = spike is not None, plateau is not None
        return news

    def find_spike(self, step: int, loss: float) -> Finding | None:
        before = list(self.recent)
        self.recent.append(loss)
        if len(before) < MIN_RECORDS:
            return None
        mean, deviation = float(np.mean(before)), float(np.std(before))
        if loss <= mean + max(SPIKE_DEVIATIONS * deviation, SPIKE_SHARE * mean):
            return None
        return Finding(
            "spike",
            f"loss spike at step {step}: MLM loss {loss:.3f} after a mean of {mean:.3f}. If it does not come down again by itself: "
            f"{LOWER_RATE} in a run that starts before it; others went back some 100 steps and past the batches around it.",
        )

    def find_plateau(self, step: int, loss: float) -> Finding | None:
        if step > self.warm_at:
            self.history.append((step, loss))
        self.history = [entry for entry in self.history if entry[0] > step - self.plateau_steps]
        if len(self.history) < MIN_RECORDS or self.history[0][0] > step - 0.9 * self.plateau_steps:
            return None
        losses = np.array([loss for _, loss in self.history])
        first, second = losses[: len(losses) // 2].mean(), losses[len(losses) // 2 :].mean()
        if second < NEAR_ENTROPY * self.entropy or first - second > STANDS_STILL * second:
            return None
        return Finding(
            "plateau",
            f"stuck at unigram entropy: over the last {self.plateau_steps} steps the MLM loss stood at {second:.3f}, and guessing "
            f"by frequency alone gives {self.entropy:.3f}: the model does not look at the context. What helped others: "
            f"{LOWER_RATE}; a larger global batch; `albert inspect` for repeated documents and other hazards of the data; "
            "fewer layers first, or weights of a smaller run (model.init_from).",
        )


def diagnosis(step: int, seen: str, checkpoints: object) -> str:
    """The last words of a run that has diverged."""
    return (
        f"step {step}: {seen}: the run has diverged. The checkpoints in {checkpoints} are from before. What helped others: "
        f"{LOWER_RATE} in a new run; a lower optimizer.max_grad_norm; bf16 or fp32 in place of fp16."
    )
