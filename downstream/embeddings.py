"""Texts in, one vector for each out: the mean of an encoder's last hidden states over the pieces of a text.

Mean pooling as in Sentence-BERT (Reimers & Gurevych, arXiv 1908.10084, section 3): every piece that the attention mask lets in
counts, [CLS] and [SEP] among them. `sentence_transformers` does the same, so both give the same vectors of one folder.

B texts of a batch, T pieces of the longest, D hidden size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from downstream.hf_folder import load_model, open_tokenizer
from tokenizer.device import choose_device

BATCH_PIECES = 8192
"""Of a batch at most, padding included, if no text alone has more."""
LEAST_FILL = 7 / 8
"""Length of the shortest row of a batch, as a share of the longest."""


def load_encoder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in fp32, on a GPU where there is one, and tokenizer of an exported or fine-tuned folder.

    Raises:
        UserError: as `downstream.hf_folder.open_tokenizer` and `load_model`.
    """
    tokenizer, _ = open_tokenizer(folder)
    model, _ = load_model(folder, "AutoModel", {})
    return model.to(choose_device("auto")).eval(), tokenizer


def embed_texts(
    texts: Sequence[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_seq_length: int | None = None
) -> np.ndarray:
    """(len(texts), D) float32, in the order of the texts. Of a longer text the first `max_seq_length` pieces count."""
    length = max_seq_length or model.config.max_position_embeddings
    if not texts:
        return np.zeros((0, model.config.hidden_size), np.float32)
    return embed_ids(tokenizer(list(texts), truncation=True, max_length=length)["input_ids"], model, tokenizer.pad_token_id)


def embed_ids(rows: Sequence[Sequence[int]], model: PreTrainedModel, pad_id: int) -> np.ndarray:
    """(len(rows), D) float32 of rows of piece ids, special ones included."""
    embeddings = np.empty((len(rows), model.config.hidden_size), np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for numbers in batches([len(row) for row in rows]):
            ids_BT = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[number]) for number in numbers], True, pad_id)
            lengths_B = torch.tensor([len(rows[number]) for number in numbers])
            mask_BT = (torch.arange(ids_BT.shape[1]) < lengths_B[:, None]).long()
            ids_BT, mask_BT = ids_BT.to(model.device), mask_BT.to(model.device)
            embeddings[numbers] = mean_pool(model(ids_BT, mask_BT).last_hidden_state, mask_BT).cpu().numpy()
    model.train(was_training)
    return embeddings


def mean_pool(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """(B, D) fp32: the mean over the pieces where the mask is 1."""
    mask_BT1 = mask_BT.unsqueeze(-1).float()
    return (hidden_BTD.float() * mask_BT1).sum(1) / mask_BT1.sum(1)


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of rows of like length, the longest first, so that a batch too large for memory fails at once."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        longest = lengths[batch[0]] if batch else 0
        if batch and ((len(batch) + 1) * longest > BATCH_PIECES or lengths[number] < LEAST_FILL * longest):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def normalize(vectors: np.ndarray) -> np.ndarray:
    """(rows, D) of length 1: products of such are cosines."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
