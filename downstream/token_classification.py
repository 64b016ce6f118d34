"""A tag for each word of a sentence: names, parts of speech.

A word's tag is learnt and read at its first piece (Devlin et al., arXiv 1810.04805, section 5.3). A sentence that is too long for
the model becomes several features, cut between words, so that every word gets a tag.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from downstream.finetune_options import FinetuneOptions
from downstream.held_out import draw_held_out, separate
from downstream.labelled import HF
from downstream.scores import is_constant, tag_scores
from downstream.tag_schemes import OUTSIDE, classes_of, unify_schemes
from downstream.tagged import Sentence, Tagged, has_rows, read_tagged
from downstream.task import Scores, Task, records_of
from downstream.text_files import Reading
from tokenizer.errors import UserError

NO_TAG = -100
"""What the loss leaves out."""


class Feature(NamedTuple):
    """A sentence, or a part of one."""

    sentence: int
    words: list[int]
    """Numbers of its words that have a piece."""
    positions: list[int]
    """Of the first piece of each."""
    input_ids: list[int]


def build(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    parts = read_parts(options, private=private)
    entities, parts = unify_schemes(parts)
    counts = Counter(tag for sentence in parts["train"].sentences for tag in sentence.tags)
    classes, usual = classes_of(counts, entities=entities), OUTSIDE if entities else counts.most_common(1)[0][0]
    if len(classes) < 2:
        quoted = parts["train"].reading.quote(classes)
        raise UserError(f"{options.train}: all words have the same tag ({quoted}); there is nothing to learn.")
    tell_tags(classes, options.train, entities=entities)
    tell_unknown(parts, set(classes))
    features = {split: encode(part.sentences, tokenizer, max_seq_length) for split, part in parts.items()}
    if blank := [parts[split].source for split, found in features.items() if not found]:
        raise UserError(f"{', '.join(blank)}: no word in it has a piece; all are blank to the tokenizer.")
    number_of = {tag: number for number, tag in enumerate(classes)}

    def tags_of(split: str, outputs: np.ndarray) -> list[list[str]]:
        """Of every word; one without a piece, such as a lone zero-width space, gets the usual one."""
        tags = [[usual] * len(sentence.words) for sentence in parts[split].sentences]
        for feature, row in zip(features[split], outputs, strict=True):
            for word, position in zip(feature.words, feature.positions, strict=True):
                tags[feature.sentence][word] = classes[row[position]]
        return tags

    def score(split: str, outputs: np.ndarray, labels: np.ndarray, validation: Scores | None) -> Scores:
        expected = [sentence.tags for sentence in parts[split].sentences]
        found = tag_scores(expected, tags_of(split, outputs), entities=entities)
        return {"score": found["f1" if entities else "accuracy"]} | found

    yield Task(
        name="",
        splits={split: as_dataset(features[split], part.sentences, number_of) for split, part in parts.items()},
        num_rows={split: len(part.sentences) for split, part in parts.items()},
        collate=DataCollatorForTokenClassification(tokenizer),
        inputs=records_of(parts),
        auto_class="AutoModelForTokenClassification",
        config={"num_labels": len(classes), "id2label": dict(enumerate(classes)), "label2id": number_of},
        score=score,
        predictions=lambda split, outputs, _: as_conll(split, parts[split].sentences, tags_of(split, outputs)),
        is_constant=lambda outputs, labels: is_constant(outputs[labels != NO_TAG], labels[labels != NO_TAG]),
        reduce=lambda logits, labels: logits.argmax(-1),
    )


def read_parts(options: FinetuneOptions, *, private: bool) -> dict[str, Tagged]:
    """`train`, `validation` and maybe `test`.

    Raises:
        UserError: a file or a column is not as it should be.
    """
    reading, asked = Reading(options.columns, options.on_error, private), (options.text, options.label)
    train = read_tagged(options.train, "train", *asked, reading, labelled=True)
    print(f"words: {train.words}, tags: {train.tags}")

    def columns_for(source: str) -> tuple[str | None, str | None]:
        """Those of training, but for a file of another kind."""
        return (train.words, train.tags) if has_rows(source) == has_rows(train.source) else asked

    parts = {"train": train}
    if options.validation:
        columns = columns_for(options.validation)
        parts["validation"] = read_tagged(options.validation, "validation", *columns, reading, labelled=True)
    else:
        parts |= hold_out(train, options.seed)
        print(f"validation: {len(parts['validation'].sentences):,} of the sentences of --train, held out")
    if options.test:
        parts["test"] = read_tagged(options.test, "test", *columns_for(options.test), reading, labelled=False)
    return parts


def hold_out(train: Tagged, seed: int) -> dict[str, Tagged]:
    """`train` and `validation` from one."""
    chosen = draw_held_out(len(train.sentences), seed, train.source, "sentences")
    sentences = separate(train.sentences, (number in chosen for number in range(len(train.sentences))))
    return {split: train._replace(sentences=found) for split, found in sentences.items()}


def tell_tags(classes: list[str], train: str, *, entities: bool) -> None:
    """train: as given by --train, where numbers may stand for the names of tags."""
    print(f"{len(classes)} tags{', as IOB2' if entities else '; they mark no entities, so they are scored by accuracy over words'}")
    if not entities and all(map(str.isdecimal, classes)):
        where = "give hf:NAME, which reads a dataset with its names, or write them" if not train.startswith(HF) else "write them"
        print(f"{train}: all tags are numbers. If they stand for names such as B-PER, {where} in place of the numbers.")


def tell_unknown(parts: dict[str, Tagged], classes: set[str]) -> None:
    """Treebanks' rare tags may come in one file alone, which is no reason to stop."""
    for split, part in parts.items():
        unknown = [tag for sentence in part.sentences for tag in sentence.tags or () if tag not in classes]
        if unknown:
            quoted = part.reading.quote(sorted(set(unknown)))
            print(f"{split}: {len(unknown):,} words have a tag that --train does not have ({quoted}); they count as missed")


def encode(sentences: Sequence[Sentence], tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> list[Feature]:
    """Words give the pieces that they give with spaces between them. Of a word longer than the model takes, its first pieces."""
    budget = max_seq_length - tokenizer.num_special_tokens_to_add()
    whole = tokenizer([sentence.words for sentence in sentences], is_split_into_words=True, add_special_tokens=False, verbose=False)
    spans, parts = [], []
    for number, sentence in enumerate(sentences):
        sizes = Counter(whole.word_ids(number))
        for first, last in split_sentence([sizes[word] for word in range(len(sentence.words))], budget):
            spans.append((number, first))
            parts.append(sentence.words[first:last])
    encoded = tokenizer(parts, is_split_into_words=True, truncation=True, max_length=max_seq_length)
    features = []
    for row, (number, first) in enumerate(spans):
        starts: dict[int, int] = {}
        for position, word in enumerate(encoded.word_ids(row)):
            if word is not None:
                starts.setdefault(word, position)
        if starts:
            words = [first + word for word in starts]
            features.append(Feature(number, words, list(starts.values()), encoded["input_ids"][row]))
    return features


def split_sentence(sizes: Sequence[int], budget: int) -> Iterator[tuple[int, int]]:
    """Bounds of runs of words with at most `budget` pieces together, or of one word with more."""
    first = total = 0
    for word, size in enumerate(sizes):
        if total + size > budget and word > first:
            yield first, word
            first, total = word, 0
        total += size
    if sizes:
        yield first, len(sizes)


def as_dataset(features: Sequence[Feature], sentences: Sequence[Sentence], number_of: dict[str, int]) -> Dataset:
    content: dict[str, list[Any]] = {"input_ids": [feature.input_ids for feature in features]}
    if all(sentence.tags is not None for sentence in sentences):
        content["labels"] = []
        for feature in features:
            labels = [NO_TAG] * len(feature.input_ids)
            for word, position in zip(feature.words, feature.positions, strict=True):
                labels[position] = number_of.get(sentences[feature.sentence].tags[word], NO_TAG)
            content["labels"].append(labels)
    return Dataset.from_dict(content)


def as_conll(split: str, sentences: Sequence[Sentence], predicted: Sequence[Sequence[str]]) -> dict[str, str]:
    """predictions_SPLIT.conll, as the conlleval script takes it: a word, its tag where the file has one, and the predicted one."""
    blocks = []
    for sentence, tags in zip(sentences, predicted, strict=True):
        columns = [sentence.words, *([sentence.tags] if sentence.tags else []), tags]
        lines = (" ".join(re.sub(r"\s+", "_", cell) or "_" for cell in cells) for cells in zip(*columns, strict=True))
        blocks.append("".join(f"{line}\n" for line in lines))
    return {f"predictions_{split}.conll": "\n".join(blocks)}
