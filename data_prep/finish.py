"""All tasks done: their counts become the manifest, the last file, and the intermediate files go."""

import dataclasses
import math
from collections import Counter
from pathlib import Path

import numpy as np

from data_prep.documents import PARTS
from data_prep.encode import ENCODER_COUNTS, PartIndex, part_index
from data_prep.folder import Folder
from data_prep.mixing import read_repeats
from data_prep.plan import Plan
from data_prep.schema import FORMAT_VERSION, MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, SourceCounts, SplitCounts
from data_prep.shuffle import Slot, shard_slots
from tokenizer.chain import FILE_NAMES
from tokenizer.errors import UserError

LARGEST_VANISHED_SHARE = 0.01
"""Of the letters and marks of the text, that normalisation may take away."""

MAX_LISTED_FAULTS = 100

HASHES_AT_ONCE = 8_000_000
"""Documents whose hashes are looked at together for duplicates, about 64 MB."""

NAMED = ("seed", "max_seq_length")
"""Options that the manifest's `options` leave out, because it has fields for them."""


def check_encoded(url: str, key: str) -> None:
    """What can only be said when all text has been read, before it is shuffled.

    Raises:
        UserError: a split holds no sentence, or normalisation destroys the text.
    """
    index = part_index(url, key)
    letters, vanished = (sum(part["encoder"][name] for part in index.parts) for name in ("num_letters", "num_vanished"))
    if vanished > LARGEST_VANISHED_SHARE * letters:
        raise UserError(
            f"--tokenizer: its normalisation takes away {vanished / letters:.1%} of the letters and marks of this text (at most "
            f"{LARGEST_VANISHED_SHARE:.0%} is let through). Train the tokenizer on this text, with --keep_accents true."
        )
    for split in {slot.split for slot in shard_slots(url, key)} ^ {"train", *(["validation"] if has_validation(index) else [])}:
        raise UserError(
            f"--input: the {split} split holds {index.count(split, 'documents')} document(s) but no sentence that the tokenizer "
            "can encode. Expected text: look at the input and the filters, or choose another --seed or --validation_fraction."
        )


def has_validation(index: PartIndex) -> bool:
    return index.count("validation", "documents") > 0


def finish(folder: Folder, plan: Plan, key: str) -> Manifest:
    """Write the tokenizer's copy and manifest.json, and remove the intermediate files."""
    index = part_index(folder.url, key)
    slots = shard_slots(folder.url, key)
    piece_counts = {split: np.zeros(plan.vocab_size, np.int64) for split in plan.num_buckets}
    for task in range(len(plan.ranges)):
        table = folder.read_table(f"{PARTS}/encode/{task:05d}.pieces.arrow")
        for split, counts in piece_counts.items():
            counts += table[split].to_numpy()
    splits = {}
    for split in dict.fromkeys(slot.split for slot in slots):
        sums = {name: index.count(split, name) for name in ADDED_UP}
        splits[split] = SplitCounts(
            **sums,
            **shard_counts(folder, [slot for slot in slots if slot.split == split]),
            unigram_entropy=entropy(piece_counts[split]),
        )
    dropped, changed = (sum((Counter(part[what]) for part in index.parts), Counter()) for what in ("dropped", "changed"))
    options = {name: value for name, value in plan.options.shaping().items() if name not in NAMED}
    faults = plan.faults + [fault for part in index.parts for fault in part["faults"]]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        tokenizer_sha256=plan.tokenizer_sha256,
        vocab_size=plan.vocab_size,
        max_seq_length=plan.options.max_seq_length,
        seed=plan.options.seed,
        options=options | {"max_predictions": plan.options.num_predictions, "mask_seed": plan.options.seed},
        **{name: sum(part["encoder"][name] for part in index.parts) for name in ENCODER_COUNTS},
        splits=splits,
        sources=sources(plan, folder, index),
        duplicate_documents=count_duplicates(folder, len(plan.ranges)),
        dropped=dict(sorted(dropped.items())),
        changed=dict(sorted(changed.items())),
        num_faults=plan.num_faults + sum(part["num_faults"] for part in index.parts),
        faults=faults[:MAX_LISTED_FAULTS],
    )
    copy_tokenizer(plan.options.tokenizer, folder)
    folder.write_json(MANIFEST_NAME, dataclasses.asdict(manifest))
    folder.remove(PARTS)
    return manifest


ADDED_UP = (
    "documents", "sentences", "cut_sentences", "text_pieces", "unknown_pieces", "instances", "pieces", "one_sentence_instances",
    "nearly_empty_instances", "in_order_instances", "swapped_instances",
)  # fmt: skip
"""Fields of SplitCounts that are sums over the parts."""


def shard_counts(folder: Folder, slots: list[Slot]) -> dict[str, object]:
    """The fields of SplitCounts that come from the shards."""
    written = [folder.read_json(f"{PARTS}/shuffle/{slot.name}.json") for slot in slots]
    return {
        "masked_pieces": sum(shard["masked_pieces"] for shard in written),
        "shards": [slot.name for slot in slots],
        "shard_rows": [shard["rows"] for shard in written],
        "shard_bytes": [shard["bytes"] for shard in written],
        "shard_sha256": [shard["sha256"] for shard in written],
    }


def sources(plan: Plan, folder: Folder, index: PartIndex) -> dict[str, SourceCounts]:
    """By label."""
    repeats = read_repeats(plan, folder)
    counts: dict[str, Counter[str]] = {item.label: Counter() for item in plan.inputs}
    for part in index.parts:
        for split in part["counts"].values():
            counts[part["label"]].update({name: split.get(name, 0) for name in ("documents", "text_pieces")})
    return {label: SourceCounts(**count, repeats=repeats.get(label, 1.0)) for label, count in sorted(counts.items())}


def count_duplicates(folder: Folder, num_tasks: int) -> int:
    """Documents whose text occurred before. Hashes are looked at in intervals, so that memory stays bounded."""
    names = [f"{PARTS}/encode/{task:05d}.texts.arrow" for task in range(num_tasks)]
    num_intervals = 1 + sum(folder.read_table(name).num_rows for name in names) // HASHES_AT_ONCE
    borders = [(1 << 64) * interval // num_intervals for interval in range(num_intervals)]
    num_duplicates = 0
    for first, last in zip(borders, [*borders[1:], None], strict=True):
        found = []
        for name in names:
            hashes = folder.read_table(name)["hash"].combine_chunks().to_numpy()
            begin = np.searchsorted(hashes, np.uint64(first))
            found.append(hashes[begin : len(hashes) if last is None else np.searchsorted(hashes, np.uint64(last))])
        hashes = np.concatenate(found)
        num_duplicates += len(hashes) - len(np.unique(hashes))
    return num_duplicates


def copy_tokenizer(source: Path, folder: Folder) -> None:
    """A downloaded tokenizer may lack spiece.model and has no manifest."""
    for name in FILE_NAMES:
        if (source / name).is_file():
            folder.copy_in(source / name, f"{TOKENIZER_FOLDER}/{name}")


def entropy(counts: np.ndarray) -> float:
    """Plug-in entropy in nats. Summed exactly, so that it does not depend on the machine's vector units."""
    total = int(counts.sum())
    return -math.fsum(int(count) / total * math.log(int(count) / total) for count in counts[counts > 0])
