"""All tasks done: their counts become the manifest, the last file, and the intermediate files go."""

import dataclasses
from pathlib import Path

from data_prep.documents import PARTS
from data_prep.encode import check_tokenizer
from data_prep.folder import Folder
from data_prep.gather import read_totals
from data_prep.mixing import read_repeats
from data_prep.plan import Plan
from data_prep.schema import FORMAT_VERSION, MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, SourceCounts, SplitCounts
from data_prep.shuffle import Slot, shard_slots
from tokenizer.chain import FILE_NAMES
from tokenizer.files import sha256_of_files
from tokenizer.provenance import PROVENANCE_NAME

NAMED = ("seed", "max_seq_length")
"""Options that the manifest's `options` leave out, because it has fields for them."""


def finish(folder: Folder, plan: Plan, key: str) -> Manifest:
    """Write the tokenizer's copy and manifest.json, and remove the intermediate files."""
    totals, slots = read_totals(folder.url, key), shard_slots(folder.url, key)
    repeats = read_repeats(folder.url, key)
    added_up = {field.name for field in dataclasses.fields(SplitCounts)}
    splits = {
        split: SplitCounts(
            **{name: count for name, count in totals.counts[split].items() if name in added_up},
            **shard_counts(folder, [slot for slot in slots if slot.split == split]),
            unigram_entropy=totals.unigram_entropy[split],
        )
        for split in dict.fromkeys(slot.split for slot in slots)
    }
    options = {name: value for name, value in plan.shaping.items() if name not in NAMED}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        tokenizer_sha256=plan.tokenizer_sha256,
        vocab_size=plan.vocab_size,
        max_seq_length=plan.options.max_seq_length,
        seed=plan.options.seed,
        options=options | {"max_predictions": plan.options.num_predictions, "mask_seed": plan.options.seed},
        splits=splits,
        sources={label: SourceCounts(**counts, repeats=repeats.get(label, 1.0)) for label, counts in totals.sources.items()},
        **totals.encoder,
        duplicate_documents=totals.duplicate_documents,
        dropped=totals.dropped,
        changed=totals.changed,
        num_faults=totals.num_faults,
        faults=totals.faults,
        private=plan.options.private,
    )
    check_tokenizer(plan, sha256_of_files(*(plan.options.tokenizer / name for name in ("tokenizer.json", "tokenizer_config.json"))))
    copy_tokenizer(plan.options.tokenizer, folder)
    folder.write_json(MANIFEST_NAME, dataclasses.asdict(manifest))
    folder.remove(PARTS)
    return manifest


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


def copy_tokenizer(source: Path, folder: Folder) -> None:
    """A downloaded tokenizer may lack spiece.model and has no manifest."""
    for name in (*FILE_NAMES, PROVENANCE_NAME):
        if (source / name).is_file():
            folder.copy_in(source / name, f"{TOKENIZER_FOLDER}/{name}")
