"""Pairs of texts with a score of how alike they are: an encoder whose mean-pooled embeddings have cosines that follow the scores.

Training is that of Sentence-BERT (Reimers & Gurevych, arXiv 1908.10084, section 3, "regression objective function"): the squared
error of the cosine, here with scores brought to [0, 1].

B pairs, T pieces of the longest text, D hidden size.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from downstream.classification import read_parts, to_numbers
from downstream.embeddings import mean_pool
from downstream.finetune_options import FinetuneOptions
from downstream.labelled import Labelled
from downstream.scores import regression_scores
from downstream.task import Scores, Task, as_table, records_of
from tokenizer.errors import UserError


def build(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    parts = read_parts(options, private=private)
    if not options.epochs:
        parts.pop("train", None)
    for part in parts.values():
        if part.columns.text_pair is None:
            raise UserError(f"{part.source}: has no second text; give --text_pair NAME.")
    values = {split: to_numbers(part.labels(), part) for split, part in parts.items() if part.columns.label}
    low, high = (extreme(next(iter(values.values()))) for extreme in (min, max))
    if low == high and options.epochs:
        raise UserError(f"{options.train}: all rows have the same score; there is nothing to learn.")
    splits = {}
    for split, part in parts.items():
        features = encode_pairs(part, tokenizer, max_seq_length)
        if split in values:
            features["labels"] = [(value - low) / ((high - low) or 1) for value in values[split]]
        splits[split] = Dataset.from_dict(features)
    yield Task(
        name="",
        splits=splits,
        num_rows={split: len(part.rows) for split, part in parts.items()},
        collate=PairCollator(tokenizer.pad_token_id),
        inputs=records_of(parts),
        auto_class="AutoModel",
        config={},
        score=score,
        predictions=lambda split, outputs, _: as_table(split, [round(cosine, 4) for cosine in outputs.tolist()]),
        wrap=CosineModel,
        files=sentence_transformers_files(
            AutoConfig.from_pretrained(options.model, local_files_only=True).hidden_size, max_seq_length
        ),
    )


def encode_pairs(part: Labelled, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> dict[str, list[list[int]]]:
    """Each text as if alone, [CLS] and [SEP] included; the pieces of a pair one after the other, their text in token_type_ids."""
    first, second = (
        tokenizer(texts, truncation=True, max_length=max_seq_length, return_attention_mask=False)["input_ids"]
        for texts in part.texts()
    )
    pairs = list(zip(first, second, strict=True))
    return {
        "input_ids": [one + other for one, other in pairs],
        "token_type_ids": [[0] * len(one) + [1] * len(other) for one, other in pairs],
    }


class PairCollator:
    """Features of `encode_pairs` -> input_ids and attention_mask (B, 2, T), and labels (B,) where there are any."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts = []
        for feature in features:
            border = feature["token_type_ids"].index(1)
            texts += [torch.tensor(feature["input_ids"][:border]), torch.tensor(feature["input_ids"][border:])]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=self.pad_id)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        batch = {name: tensor.view(len(features), 2, -1) for name, tensor in (("input_ids", ids), ("attention_mask", mask))}
        if "labels" in features[0]:
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
        return batch


class CosineModel(torch.nn.Module):
    """Pairs as of `PairCollator` -> `logits`, the cosines (B,), and with labels (B,) in [0, 1] their mean squared error, `loss`."""

    def __init__(self, encoder: PreTrainedModel):
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """token_type_ids: not in a batch, but Trainer keeps the columns that are named here."""
        mask_2B_T = attention_mask.flatten(0, 1)
        hidden_2B_T_D = self.encoder(input_ids.flatten(0, 1), mask_2B_T).last_hidden_state
        pooled_B2D = mean_pool(hidden_2B_T_D, mask_2B_T).unflatten(0, (-1, 2))
        cosines_B = torch.cosine_similarity(pooled_B2D[:, 0], pooled_B2D[:, 1], dim=-1)
        loss = {} if labels is None else {"loss": torch.nn.functional.mse_loss(cosines_B, labels.float())}
        return loss | {"logits": cosines_B}


def score(split: str, outputs: np.ndarray, labels: np.ndarray, validation: Scores | None) -> Scores:
    """Cosines (rows,) and scores (rows,) -> Spearman's rank correlation, which is the score, and Pearson's."""
    found = regression_scores(outputs, labels)
    return {"score": found["spearman"], "spearman": found["spearman"], "pearson": found["pearson"]}


def sentence_transformers_files(hidden_size: int, max_seq_length: int) -> dict[str, str]:
    """With these beside the model, `sentence_transformers` pools as we do (its documentation, "Creating Custom Models")."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {"word_embedding_dimension": hidden_size, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    contents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_seq_length, "do_lower_case": False},
        "1_Pooling/config.json": pooling,
    }
    return {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}
