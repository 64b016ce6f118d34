"""The README.md of an export: what the model is, what it was trained on, and its figures, all from the run's own records."""

from typing import Any

from data_prep.schema import Manifest
from pretrain.config import RunConfig

CARD = """---
library_name: transformers
tags:
- albert
- fill-mask
- sentence-order-prediction
pipeline_tag: fill-mask
---

# ALBERT, pretrained from scratch

An ALBERT encoder ([Lan et al., 2019](https://arxiv.org/abs/1909.11942)) pretrained with masked-language modelling and `{objective}`
sentence pairs. It is meant to be fine-tuned; it has learnt only from the corpus described here, with that corpus' gaps and biases.

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForMaskedLM.from_pretrained("PATH")
```

## Model

| | |
|---|---|
| layers x hidden x heads, feed-forward, embeddings | {layers} x {hidden} x {heads}, {ffn}, {embedding} |
| weights shared | {share}, {groups} hidden group(s) |
| vocabulary | {vocab_size} SentencePiece unigram pieces |
| longest input | {positions} pieces |

## Data

| | train | validation |
|---|---|---|
{data_rows}

Masks: {mask_unit}, up to {max_ngram} words, {mask_ratio:.0%} of the pieces. Tokenizer SHA-256 `{tokenizer_sha256}`.

## Training

{steps} steps of {batch} instances, {optimizer} with peak learning rate {lr:g}, {warmup} warm-up steps, weights in fp32,
arithmetic in {dtype}.

| figure on held-out text | value |
|---|---|
{figure_rows}
"""


def model_card(config: RunConfig, manifest: Manifest, state: dict[str, Any], metrics: list[dict[str, Any]]) -> str:
    """Markdown with the YAML header of Hugging Face's model cards."""
    model, options = config.model, manifest.options
    return CARD.format(
        objective=options["pair_objective"],
        layers=model.num_hidden_layers,
        hidden=model.hidden_size,
        heads=model.num_attention_heads,
        ffn=model.intermediate_size,
        embedding=model.embedding_size,
        share=model.share,
        groups=model.num_hidden_groups,
        vocab_size=f"{manifest.vocab_size:,}",
        positions=model.max_position_embeddings,
        data_rows=data_rows(manifest),
        mask_unit=options["mask_unit"],
        max_ngram=options["max_ngram"],
        mask_ratio=options["mask_ratio"],
        tokenizer_sha256=manifest.tokenizer_sha256,
        steps=f"{state['step']:,}",
        batch=config.training.global_batch_size,
        optimizer={"lamb": "LAMB", "adamw": "AdamW"}[config.optimizer.name],
        lr=config.optimizer.lr,
        warmup=config.schedule.warmup_steps,
        dtype=config.precision.dtype,
        figure_rows=figure_rows(metrics),
    )


def data_rows(manifest: Manifest) -> str:
    splits = [manifest.splits.get(name) for name in ("train", "validation")]
    rows = []
    for label, name in (
        ("documents", "documents"),
        ("sentences", "sentences"),
        ("pieces", "text_pieces"),
        ("instances", "instances"),
    ):
        cells = [f"{getattr(counts, name):,}" if counts else "-" for counts in splits]
        rows.append(f"| {label} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def figure_rows(metrics: list[dict[str, Any]]) -> str:
    """The newest validation, or a line that says there was none."""
    validations = [record for record in metrics if record["event"] == "validation"]
    if not validations:
        return "| no held-out text was kept | - |"
    newest = validations[-1]
    names = {
        "mlm_loss": "masked-LM loss (nats)",
        "unigram_entropy": "unigram entropy of the text (nats)",
        "mlm_accuracy": "masked-LM accuracy",
        "sop_accuracy": "sentence-order accuracy",
    }
    return "\n".join(f"| {label} | {newest[name]:.4f} |" for name, label in names.items() if newest[name] is not None)
