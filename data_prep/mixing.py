"""`--weights`: how often the documents of each named input are taken, so that each gets its share of the training text.

The size of an input is the text that its documents hold after filters and de-duplication, so it is measured in a stage of its own.
The whole stays as large as it was: an input that gets more than its size repeats documents, one that gets less leaves some out.
"""

import functools

from data_prep.documents import PARTS, read_kept
from data_prep.folder import Folder
from data_prep.options import parse_weights
from data_prep.plan import read_plan
from tokenizer.errors import UserError


def measure_task(url: str, key: str, task: int) -> None:
    """Write parts/measure/TASK.json: characters of the documents that the task will prepare."""
    folder, plan = Folder(url), read_plan(url, key)
    num_chars = sum(len(document.text) for document in read_kept(plan, folder, task))
    folder.write_json(f"{PARTS}/measure/{task:05d}.json", {"num_chars": num_chars})


@functools.lru_cache(maxsize=1)
def read_repeats(url: str, key: str) -> dict[str, float]:
    """By label, how often a document is taken on average; empty without weights. Needs the files of `measure_task`.

    Raises:
        UserError: an input with a weight above 0 holds no text.
    """
    folder, plan = Folder(url), read_plan(url, key)
    weights = parse_weights(plan.options.weights, {item.label for item in plan.inputs})
    if not weights:
        return {}
    sizes = dict.fromkeys(weights, 0)
    for task in range(len(plan.tasks)):
        sizes[plan.label(task)] += folder.read_json(f"{PARTS}/measure/{task:05d}.json")["num_chars"]
    empty = [label for label, size in sizes.items() if weights[label] and not size]
    if empty:
        raise UserError(f"--weights: {empty[0]} has a weight of {weights[empty[0]]:.2f}, but its documents hold no text.")
    total = sum(sizes.values())
    return {label: weights[label] * total / size if size else 0.0 for label, size in sizes.items()}
