"""onnx/model.onnx and its int8 form beside an export, compared with our model in onnxruntime, and what int8 costs and saves."""

import importlib
import logging
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pretrain.config import ModelConfig
from pretrain.export_check import Sample, difference
from pretrain.model import MicroBatch
from tokenizer.errors import UserError
from tokenizer.special_tokens import PAD_ID

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FOLDER = "onnx"
FILES = ("model.onnx", "model_quantized.onnx")
"""As transformers.js looks for them."""
TOLERANCE = 1e-4
"""Of logits in fp32, as for `pretrain.export_check.TOLERANCE`: another library multiplies."""
MOST_BYTES = 2_000_000_000
"""A protobuf, which a .onnx file is, holds no more."""
LEAST_AGREEMENT = 0.9
"""Below it int8 is another model. Models of random weights, whose likeliest pieces are close to the next, have 0.916 to 0.98, the
demo's trained one 0.994."""
TIMED_PIECES, TIMED_SECONDS, MOST_ROUNDS = 128, 10.0, 21


class OnnxFigures(NamedTuple):
    difference: float
    """Of the fp32 logits from ours, as `pretrain.export_check.difference`."""
    masked: int
    """Masked pieces that both were asked for."""
    agreement: float
    """Share of them whose likeliest piece is the same in int8."""
    fp32_accuracy: float
    int8_accuracy: float
    fp32_bytes: int
    int8_bytes: int
    fp32_seconds: float
    """Median for one sequence of `timed_pieces` on one thread."""
    int8_seconds: float
    timed_pieces: int

    def sentences(self) -> list[str]:
        """For the terminal and the model card."""
        low = [
            f"Warning: int8 has another likeliest piece than fp32 for more than {1 - LEAST_AGREEMENT:.0%} of them. Serve "
            "onnx/model.onnx, or measure on your own task what is lost."
        ]
        return [
            f"onnx/model.onnx in onnxruntime: logits to {self.difference:.0e} of the largest.",
            f"onnx/model_quantized.onnx (int8): the likeliest piece is that of fp32 for {self.agreement:.1%} of {self.masked:,} "
            f"masked pieces; it is the right one for {self.int8_accuracy:.1%} of them, in fp32 for {self.fp32_accuracy:.1%}.",
            f"int8 takes {self.int8_bytes / self.fp32_bytes:.2f} of the space of fp32 ({self.int8_bytes / 1e6:,.1f} of "
            f"{self.fp32_bytes / 1e6:,.1f} MB) and {self.int8_seconds / self.fp32_seconds:.2f} of its time "
            f"({1e3 * self.int8_seconds:,.1f} of {1e3 * self.fp32_seconds:,.1f} ms for one sequence of {self.timed_pieces} pieces "
            "on one thread of the machine that exported it).",
            *(low if self.agreement < LEAST_AGREEMENT else []),
        ]


def check_onnx_installed(weights_bytes: int) -> None:
    """Raises a UserError where the extra is not installed, or the weights do not fit into a file."""
    try:
        for name in ("onnx", "onnxruntime"):
            importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"--onnx: cannot be written and checked ({error}). Install it: pip install 'albert-pretraining[onnx]'."
        ) from error
    if weights_bytes > MOST_BYTES:
        raise UserError(
            f"--onnx: the weights take {weights_bytes / 1e9:.1f} GB, and a .onnx file holds {MOST_BYTES / 1e9:.0f}. "
            "Export without it."
        )


def write_onnx(folder: Path, weights: dict[str, Tensor], config: ModelConfig, sample: Sample) -> OnnxFigures:
    """Write both files into `folder`/onnx; weights by our names, fp32.

    Raises:
        UserError: onnxruntime gives other logits in fp32.
    """
    import onnx

    from pretrain.onnx_graph import build_onnx

    (folder / FOLDER).mkdir()
    fp32, int8 = (folder / FOLDER / name for name in FILES)
    onnx.save(build_onnx(weights, config), fp32)
    quantize(fp32, int8)
    logits = [masked_logits(open_session(path, torch.get_num_threads()), sample) for path in (fp32, int8)]
    largest = difference(logits[0], sample.mlm_logits_MV)
    if not largest <= TOLERANCE:  # NaN is, too
        raise UserError(
            f"--onnx: logits of onnx/model.onnx differ by {largest:.1e}, so the export is not kept. Try the onnxruntime of "
            "requirements.lock; if it is so there, too, this is a fault of albert-pretraining."
        )
    labels_M = torch.cat([batch.mlm_labels_M for batch in sample.batches])
    guesses = [each.argmax(-1) for each in logits]
    longest = max(sample.batches, key=lambda batch: batch.lengths[0])
    seconds, timed = measure([open_session(path, 1) for path in (fp32, int8)], longest)
    return OnnxFigures(
        difference=largest,
        masked=len(labels_M),
        agreement=share_equal(*guesses),
        fp32_accuracy=share_equal(guesses[0], labels_M),
        int8_accuracy=share_equal(guesses[1], labels_M),
        fp32_bytes=fp32.stat().st_size,
        int8_bytes=int8.stat().st_size,
        fp32_seconds=seconds[0],
        int8_seconds=seconds[1],
        timed_pieces=timed,
    )


def quantize(source: Path, target: Path) -> None:
    """Weights of products and embeddings in int8; activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it advises a step that is for traced graphs
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)


def open_session(path: Path, num_threads: int) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def masked_logits(session: "InferenceSession", sample: Sample) -> Tensor:
    """(M, V) of the masked pieces. Two sequences at a time, the shorter one padded: so the mask is seen to work."""
    found = []
    for start in range(0, len(sample.batches), 2):
        batches = sample.batches[start : start + 2]
        logits_BTV = torch.from_numpy(session.run(["logits"], padded(batches))[0])
        found += [logits_TV[batch.read_index_R[batch.mlm_index_M]] for logits_TV, batch in zip(logits_BTV, batches, strict=True)]
    return torch.cat(found)


def padded(batches: list[MicroBatch]) -> dict[str, np.ndarray]:
    """Batches of one sequence each, as one of Hugging Face's form."""
    fields = {
        "input_ids": ([batch.input_ids_N for batch in batches], PAD_ID),
        "attention_mask": ([torch.ones_like(batch.input_ids_N) for batch in batches], 0),
        "token_type_ids": ([batch.segment_ids_N for batch in batches], 0),
    }
    return {name: pad_sequence(values, batch_first=True, padding_value=pad).numpy() for name, (values, pad) in fields.items()}


def measure(sessions: list["InferenceSession"], batch: MicroBatch) -> tuple[list[float], int]:
    """Median seconds of each for the first TIMED_PIECES of one sequence, alternated after a round to warm up; and their number."""
    inputs = {name: array[:, :TIMED_PIECES] for name, array in padded([batch]).items()}
    seconds: list[list[float]] = [[] for _ in sessions]
    began = time.perf_counter()
    while len(seconds[0]) < 4 or (len(seconds[0]) <= MOST_ROUNDS and time.perf_counter() - began < TIMED_SECONDS):
        for session, taken in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session.run(["logits"], inputs)
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in seconds], inputs["input_ids"].shape[1]


def share_equal(left: Tensor, right: Tensor) -> float:
    return (left == right).double().mean().item()
