"""A manifest in, what ruins training with this data out: a sentence each, with the number and what to do."""

import math

from data_prep.schema import Manifest

MAX_DUPLICATES = 0.01
"""Of the documents. Text seen again and again is learnt by heart, and the loss stays where it is on all other text."""
MAX_UNKNOWN = 0.01
"""Of the text pieces. The model learns nothing about them but to guess <unk>."""
MIN_MASKED = 0.10
"""Of all pieces. ALBERT masks 15 %; the fewer, the less an instance teaches."""
MAX_NEARLY_EMPTY = 0.10
"""Of the instances."""
MAX_OTHER_LANGUAGES = 0.50
"""Of the documents that reach --languages. Models know some languages badly: lid.176 gives Swahili a low probability."""
MIN_FILL = 0.40
"""Mean length over max_seq_length."""
MIN_INSTANCES = 1_000
MAX_DEVIATIONS = 5
"""Standard deviations of the share of swapped instances under fair coins: chance goes beyond 5 once in two million folders."""


def warnings(manifest: Manifest) -> list[str]:
    """What is wrong with the train split, the worst first; empty if nothing is."""
    train = manifest.splits["train"]
    documents = sum(counts.documents for counts in manifest.splits.values())
    labelled = train.in_order_instances + train.swapped_instances
    deviations = abs(train.swapped_instances - labelled / 2) / (math.sqrt(labelled) / 2) if labelled else 0
    found = []
    if manifest.num_faults:
        places = ", ".join(fault["location"] for fault in manifest.faults[:3])
        found.append(
            f"{manifest.num_faults:,} input(s), line(s) or record(s) could not be read and were left out ({places or 'unlisted'}): "
            "mend them, or make sure that nothing is missed (manifest.json, `faults`)."
        )
    others = manifest.dropped.get("languages", 0)
    if others > MAX_OTHER_LANGUAGES * (others + documents):
        found.append(
            f"--languages left out {others:,} documents and kept {documents:,}: unless so much of the text is in other languages, "
            "the model does not know yours well. Lower --language_threshold, or take another --language_model."
        )
    if train.instances < MIN_INSTANCES:
        found.append(
            f"The train split holds {train.instances:,} instance(s), too few to learn a language from: give more text, "
            f"at least enough for {MIN_INSTANCES:,} instances."
        )
    if manifest.duplicate_documents > MAX_DUPLICATES * documents:
        found.append(
            f"{manifest.duplicate_documents:,} of {documents:,} documents ({manifest.duplicate_documents / documents:.1%}) repeat "
            "an earlier one word for word, which traps the loss: prepare with --dedup exact, or minhash against near copies."
        )
    if train.unknown_pieces > MAX_UNKNOWN * train.text_pieces:
        found.append(
            f"{train.unknown_pieces / train.text_pieces:.1%} of the text pieces are unknown to the vocabulary: train a tokenizer "
            "on this text (`albert tokenizer`), or leave out text in other scripts."
        )
    if manifest.options.get("pair_objective") == "sop" and deviations > MAX_DEVIATIONS:
        found.append(
            f"{train.swapped_instances / labelled:.1%} of the instances with an order label are swapped, {deviations:.0f} standard "
            "deviations from a half, which chance does not do: prepare again, and report it if it stays."
        )
    if train.masked_pieces < MIN_MASKED * train.pieces:
        found.append(
            f"Only {train.masked_pieces / train.pieces:.1%} of the pieces are to be predicted (ALBERT: 15 %): raise --mask_ratio "
            "or --max_predictions; `albert prepare --remask` does it without the corpus."
        )
    if train.nearly_empty_instances > MAX_NEARLY_EMPTY * train.instances:
        found.append(
            f"{train.nearly_empty_instances / train.instances:.1%} of the instances fill less than a sixteenth of "
            f"{manifest.max_seq_length} pieces: leave out short documents (--min_chars), or join lines that belong to one document."
        )
    if train.pieces < MIN_FILL * train.instances * manifest.max_seq_length:
        found.append(
            f"Instances fill {train.pieces / train.instances / manifest.max_seq_length:.1%} of {manifest.max_seq_length} pieces on "
            "average: lower --max_seq_length, or join lines that belong to one document."
        )
    return found
