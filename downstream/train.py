"""One fine-tuning with `transformers.Trainer`: the weights of its best epoch, its outputs and figures."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import EvalPrediction, PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from downstream.contexts import Features
from downstream.finetune_options import FinetuneOptions
from downstream.hf_folder import load_model
from downstream.task import Arrays, Scores, Task
from tokenizer.device import choose_device
from tokenizer.errors import UserError, first_line

WARMUP = 0.1
"""Share of the steps."""


class Trained(NamedTuple):
    """What one seed came to."""

    seed: int
    epoch: int
    """The best one, whose weights these are."""
    constant: bool
    """Whether it gives all validation rows the same class, though they have several."""
    model: PreTrainedModel | None
    scores: dict[str, Scores]
    """Of every split with labels but `train`."""
    outputs: dict[str, Arrays]
    """Of the splits other than `train` and `validation`."""


def train(
    task: Task, options: FinetuneOptions, seed: int, folder: Path, keep: Callable[[Trained], object] | None = None
) -> Trained:
    """folder: an empty one, for Trainer; nothing is left in it. keep: given each epoch that is better than those before it, without
    the splits that are looked at after the training."""
    transformers.set_seed(seed)
    device = choose_device(options.device).type
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # deepspeed, which Trainer imports, else warns that it found no GPU
    model = make_model(task, options)

    def keep_epoch(best: BestEpoch) -> None:
        if keep:
            keep(Trained(seed, best.epoch, best.constant, model, {"validation": best.scores}, {}))

    trained, best = task.wrap(model), BestEpoch(seed, options.patience, keep_epoch)
    steps = options.epochs * math.ceil(len(task.splits.get("train", ())) / options.batch_size)
    at_once = options.micro_batch_size or options.batch_size
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=at_once,
        per_device_eval_batch_size=2 * at_once,
        gradient_accumulation_steps=options.batch_size // at_once,
        learning_rate=options.learning_rate,
        warmup_steps=round(WARMUP * steps),
        weight_decay=options.weight_decay,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",  # Trainer's checkpoints hold pickles
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=options.dtype == "bf16",
        fp16=options.dtype == "fp16",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # DataParallel would make the batch larger than asked for

    def compute(predicted: EvalPrediction) -> dict[str, float | bool]:
        of_validation = predicted.predictions, predicted.label_ids
        return task.score("validation", *of_validation, None) | {"constant": task.is_constant(*of_validation)}

    with memory_errors(options, model.config.max_position_embeddings):
        trainer = InOrder(
            model=trained,
            args=arguments,
            train_dataset=task.splits.get("train"),
            eval_dataset=task.splits["validation"],
            data_collator=task.collate,
            compute_metrics=compute,
            preprocess_logits_for_metrics=task.reduce,
            callbacks=[best],
        )
        trainer.remove_callback(PrinterCallback)
        if options.epochs:
            trainer.train()
        else:
            trainer.evaluate()
        trained.load_state_dict(best.weights)
        scores, outputs = {"validation": best.scores}, {}
        trainer.compute_metrics = None  # which takes all for validation
        for split in [name for name in task.splits if name not in ("train", "validation")]:
            predicted = trainer.predict(task.splits[split])
            outputs[split] = predicted.predictions
            if predicted.label_ids is not None:
                scores[split] = task.score(split, predicted.predictions, predicted.label_ids, best.scores)
    return Trained(seed, best.epoch, best.constant, model, scores, outputs)


@contextmanager
def memory_errors(options: FinetuneOptions, positions: int) -> Iterator[None]:
    """A GPU that is too small becomes a UserError that says what needs less. positions: pieces that the model takes."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        at_once = options.micro_batch_size or options.batch_size
        size = f"--{'micro_' if options.micro_batch_size else ''}batch_size {at_once}"
        ways = [f"--micro_batch_size {max(n for n in range(1, at_once) if options.batch_size % n == 0)}"] if at_once > 1 else []
        ways += ["a smaller --max_seq_length", *(["--dtype bf16"] if options.dtype == "fp32" else [])]
        raise UserError(
            f"{size}, --max_seq_length {options.max_seq_length or positions}, --dtype {options.dtype}: the GPU's memory has no "
            f"room for it ({first_line(error)}). Give {' or '.join(ways)}."
        ) from error


def check_device(device: str, dtype: str) -> None:
    """Raise a UserError for what this machine cannot do."""
    on_gpu = choose_device(device).type == "cuda"
    if dtype == "fp16" and not on_gpu:
        raise UserError("--dtype fp16: is for GPUs. Give bf16 or fp32.")
    if dtype == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise UserError("--dtype bf16: this GPU does not have it. Give fp16 or fp32.")


def make_model(task: Task, options: FinetuneOptions) -> PreTrainedModel:
    """The encoder with a new head, or all of it at random.

    Raises:
        UserError: as `load_model`.
    """
    config = transformers.AutoConfig.from_pretrained(options.model, local_files_only=True, **task.config)
    drawn = getattr(transformers, task.auto_class).from_config(config, dtype=torch.float32)
    if options.random_weights:
        return drawn
    model, lacking = load_model(options.model, task.auto_class, task.config)
    if any(name.startswith(f"{model.base_model_prefix}.pooler.") for name in lacking):  # and it is below a head that reads it
        print(f"{options.model}: has no pooler, as models saved for masked words alone; it begins with random weights")
    for name, part in drawn.named_children():
        if drawn.base_model not in (drawn, part):
            setattr(model, name, part)  # a folder that was fine-tuned for as many classes has a head that would fit
    return model


class InOrder(Trainer):
    """Evaluates and predicts in the order of the features; Trainer's way is that of training, by length. Lengths that are known are
    not measured, for which Trainer would make all features. A batch's loss is the mean over it in however many micro-batches it
    comes; Trainer takes ALBERT's heads for such as divide by the number of labels in the batch, and adds up their means."""

    def __init__(self, **more: Any):
        super().__init__(**more)
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(self, *micro_batches: Any) -> tuple[list[dict[str, Any]], torch.Tensor | int]:
        batch, _ = super().get_batch_samples(*micro_batches)
        return batch, sum(map(num_labels, batch))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if model.training:
            loss = loss * (num_labels(inputs) / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset | Features) -> Sampler | None:
        if isinstance(train_dataset, Features):
            batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthGroupedSampler(batch_size, lengths=train_dataset.lengths)
        return super()._get_train_sampler(train_dataset)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> SequentialSampler:
        return SequentialSampler(eval_dataset)


def num_labels(batch: dict[str, Any]) -> torch.Tensor | int:
    """Over how many the loss of a batch is a mean: words with a tag, or else rows."""
    labels = batch.get("labels")
    return len(batch["input_ids"]) if labels is None or labels.ndim == 1 else labels.ne(-100).sum()


class BestEpoch(TrainerCallback):
    """Keeps the weights of the epoch with the best validation score, and ends training after `patience` epochs without a better.
    at_better: called with this when an epoch is the best so far, whose weights the model then has."""

    def __init__(self, seed: int, patience: int, at_better: "Callable[[BestEpoch], None]" = lambda best: None):
        self.seed, self.patience, self.at_better = seed, patience, at_better
        self.epoch, self.constant, self.scores, self.weights = 0, False, {}, {}
        self.loss = math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **more: Any) -> None:
        self.loss = logs.get("loss", self.loss)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], model: PreTrainedModel, **more: Any
    ) -> None:
        epoch = round(state.epoch or 0)
        measured = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
        scores = {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}
        scores = {name: value for name, value in scores.items() if name not in measured}
        constant = scores.pop("constant", False)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "score")
        loss = "" if math.isnan(self.loss) else f"loss {self.loss:.4f}, "
        print(f"seed {self.seed}, epoch {epoch} of {args.num_train_epochs}: {loss}validation {shown}", flush=True)
        if not self.scores or scores["score"] > self.scores["score"]:
            self.epoch, self.constant, self.scores = epoch, constant, scores
            self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
            self.at_better(self)
        elif epoch - self.epoch >= self.patience:
            control.should_training_stop = True
