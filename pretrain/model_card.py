"""The README.md of an export: what the model is, what it was trained on and how, and its figures, all from the run's own records.

It is meant to be published, so it holds no path and no host; of private data it names no file either.
"""

import math
from typing import Any

import yaml

from data_prep.schema import Manifest
from pretrain.config import RunConfig
from pretrain.export_options import ExportOptions
from pretrain.export_source import Source
from pretrain.lineage import chain_rows, corpus_rows, hub_datasets
from pretrain.progress import progress_from
from tokenizer.provenance import Record

CARD = """---
{header}---

# ALBERT, {begun}

An ALBERT encoder ([Lan et al., 2019](https://arxiv.org/abs/1909.11942)) pretrained with masked-language modelling{objective}. It is
meant to be fine-tuned; it has learnt {learnt}, with the gaps and biases of that text.

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForMaskedLM.from_pretrained("PATH")
```

Licence of the weights: {licence}. Licence of the corpus: {data_licence}.

## Model

| | |
|---|---|
| layers x hidden x heads, feed-forward, embeddings | {layers} x {hidden} x {heads}, {ffn}, {embedding} |
| weights shared | {share}, {groups} hidden group(s) |
| activation | {hidden_act} |
| vocabulary | {vocab_size} SentencePiece unigram pieces |
| longest input | {positions} pieces |
| weights | {weights} |

## Data

| | train | validation |
|---|---|---|
{data_rows}

Instances of up to {length} pieces, {dupe_factor} copies of the text with masks of their own. Masked are {mask_unit},
{mask_ratio:.0%} of the pieces. {corpus_rows}

## Training

{steps} of {batch} instances, {optimizer} with peak learning rate {lr:g}, {warmup} warm-up steps, weights in fp32,
arithmetic in {dtype}.

| | |
|---|---|
{recipe_rows}

| figure on held-out text | value |
|---|---|
{figure_rows}

## Checked

{checks}

## Where it comes from

provenance.json, beside this file where it was kept, has the whole chain with commands and inputs. A file's SHA-256 stands for
the artefact: the file holds the hashes of the others.

| artefact | file | SHA-256 | code | made (UTC) |
|---|---|---|---|---|
{chain_rows}

| hash | SHA-256 |
|---|---|
| tokenizer (tokenizer.json and tokenizer_config.json of the data, end to end) | `{tokenizer_sha256}` |
| data (its manifest.json) | `{data_sha256}` |
"""

FIGURES = {
    "mlm_loss": "masked-LM loss (nats)",
    "unigram_entropy": "unigram entropy of the text (nats)",
    "mlm_accuracy": "masked-LM accuracy",
    "sop_accuracy": "{order} accuracy",
}
MASK_UNITS = {"ngram": "runs of up to {max_ngram} words", "word": "whole words", "piece": "single pieces"}
ORDER_TASKS = {"sop": "sentence-order prediction", "nsp": "next-sentence prediction", "none": ""}
"""By `albert prepare --pair_objective`."""
LEARNT = {True: "only from the corpus described here", False: "from the corpus described here, and from what came before"}
NOT_STATED = "not stated by whoever exported it"


def model_card(
    config: RunConfig,
    manifest: Manifest,
    source: Source,
    metrics: list[dict[str, Any]],
    parents: list[Record],
    options: ExportOptions,
    checks: list[str],
    *,
    private: bool,
) -> str:
    """Markdown with the YAML header of Hugging Face's model cards.

    metrics: up to the checkpoint. parents: of the export. checks: what was compared, a sentence each. private: whether no file of
    the corpus may be named.
    """
    model, prepared, state = config.model, manifest.options, source.state
    validation, datasets = newest_validation(metrics), [] if private else hub_datasets(parents)
    is_of_these_weights = (
        validation is not None
        and validation["step"] == state["step"]
        and math.isfinite(validation["mlm_loss"])
        and (options.average, options.dtype) == (1, "fp32")
    )
    from_scratch = config.model.init_from is None and config.continue_from is None
    order = ORDER_TASKS[prepared["pair_objective"]]
    return CARD.format(
        header=yaml.safe_dump(
            header(options, validation if is_of_these_weights else None, datasets, order), sort_keys=False, allow_unicode=True
        ),
        begun="pretrained from scratch" if from_scratch else "pretrained further",
        objective=f" and {order}" if order else "",
        learnt=LEARNT[from_scratch],
        licence=licence(options),
        data_licence=options.data_license or NOT_STATED,
        layers=model.num_hidden_layers,
        hidden=model.hidden_size,
        heads=model.num_attention_heads,
        ffn=model.intermediate_size,
        embedding=model.embedding_size,
        share=model.share,
        groups=model.num_hidden_groups,
        hidden_act=model.hidden_act,
        vocab_size=f"{manifest.vocab_size:,}",
        positions=model.max_position_embeddings,
        weights=f"{options.dtype}, of {' and '.join(source.checkpoints)}"
        + (" (their mean)" if len(source.checkpoints) > 1 else ""),
        data_rows=data_rows(manifest),
        length=manifest.max_seq_length,
        dupe_factor=prepared.get("dupe_factor", "?"),
        mask_unit=MASK_UNITS[prepared["mask_unit"]].format(max_ngram=prepared["max_ngram"]),
        mask_ratio=prepared["mask_ratio"],
        corpus_rows=corpus_rows(parents, private=private),
        steps=f"{state['step']:,} steps"
        if config.continue_from is None
        else f"Steps up to {state['step']:,}, counted on from the run before,",
        batch=config.training.global_batch_size,
        optimizer={"lamb": "LAMB", "adamw": "AdamW"}[config.optimizer.name],
        lr=config.optimizer.lr,
        warmup=config.schedule.warmup_steps,
        dtype=config.precision.dtype,
        recipe_rows=recipe_rows(config, manifest, state),
        figure_rows=figure_rows(validation, order, options, held_out="validation" in manifest.splits),
        checks="\n".join(f"- {check}" for check in checks),
        chain_rows=chain_rows(parents),
        tokenizer_sha256=manifest.tokenizer_sha256,
        data_sha256=state["data_sha256"],
    )


def header(options: ExportOptions, validation: dict[str, Any] | None, datasets: list[str], order: str) -> dict[str, Any]:
    """What the Hugging Face Hub reads; a field that nobody gave is left out.

    validation: of these very weights. order: the task of the pairs.
    """
    fields = {
        "language": options.language,
        "license": options.license,
        "license_name": options.license_name,
        "license_link": options.license_link,
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["albert", "fill-mask", *([order.replace(" ", "-")] if order else [])],
        "datasets": datasets,
        "model-index": model_index(validation, order) if validation else None,
    }
    return {name: value for name, value in fields.items() if value}


def model_index(validation: dict[str, Any], order: str) -> list[dict[str, Any]]:
    """The held-out figures as the Hub lists results."""
    names = figure_names(order)
    metrics = [
        {"type": "accuracy" if "accuracy" in name else "loss", "name": names[name], "value": round(validation[name], 4)}
        for name in ("mlm_loss", "mlm_accuracy", "sop_accuracy")
        if validation[name] is not None
    ]
    task = {"type": "fill-mask", "name": f"masked-language modelling{f' and {order}' if order else ''}"}
    return [
        {
            "name": "albert",
            "results": [
                {"task": task, "dataset": {"type": "held-out", "name": "held-out documents of the corpus"}, "metrics": metrics}
            ],
        }
    ]


def figure_names(order: str) -> dict[str, str]:
    """What the figures of a validation are called. order: the task of the pairs."""
    return {name: label.format(order=order) for name, label in FIGURES.items()}


def licence(options: ExportOptions) -> str:
    if options.license == "other":
        return f"[{options.license_name}]({options.license_link})"
    return options.license or NOT_STATED


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


def recipe_rows(config: RunConfig, manifest: Manifest, state: dict[str, Any]) -> str:
    """What a second run would need beside the sentence above."""
    optimizer, schedule, progress = config.optimizer, config.schedule, progress_from(state)
    epochs = progress.samples_seen / manifest.splits["train"].instances
    begun = "random weights"
    if config.model.init_from is not None:
        begun = "another model's weights (model.init_from)"
    elif config.continue_from is not None:
        begun = f"an earlier phase (continue_from), at step {schedule.start_step:,} or later"
    hours = config.training.max_hours
    rate = f"linear warm-up from step {schedule.start_step:,} on, then linear to 0 at step {schedule.total_steps:,}"
    if hours is not None:
        rate += f", at most the peak times the share left of {hours:g} hours of training"
    rows = {
        "began with": begun,
        "instances seen": f"{progress.samples_seen:,} ({epochs:.2f} times those of the data)",
        "learning rate": rate,
        "optimizer": f"beta {optimizer.beta1:g} and {optimizer.beta2:g}, epsilon {optimizer.eps:g}, weight decay "
        f"{optimizer.weight_decay:g}, gradients clipped to norm {optimizer.max_grad_norm:g}",
        "dropout": f"{config.model.hidden_dropout:g} of hidden states, {config.model.attention_dropout:g} of attention",
        "seeds": f"{config.training.seed} of the run, {manifest.seed} of the data",
        "steps without an update, rollbacks": f"{progress.skipped_steps}, {len(progress.rollbacks)}",
    }
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def newest_validation(metrics: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((record for record in reversed(metrics) if record["event"] == "validation"), None)


def figure_rows(validation: dict[str, Any] | None, order: str, options: ExportOptions, *, held_out: bool) -> str:
    """The validation's figures, or a line that says there was none."""
    if validation is None:
        return f"| {'not validated up to this step' if held_out else 'no held-out text was kept'} | - |"
    rows = [f"| {label} | {validation[name]:.4f} |" for name, label in figure_names(order).items() if validation[name] is not None]
    of = ", of the weights before their mean was taken" if options.average > 1 else ""
    of += ", of the weights before they were rounded" if options.dtype != "fp32" else ""
    return "\n".join([*rows, f"| validated at step | {validation['step']:,}{of} |"])
