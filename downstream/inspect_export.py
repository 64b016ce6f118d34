"""`albert inspect` of an exported folder: what the model makes of a text's masks, and how its layers and heads attend.

Any ALBERT with a masked-LM head will do, as transformers loads it, on the CPU, in fp32. Attention weights are read from its plain
implementation ("eager"), the only one that forms them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from downstream.export_page import build_export_page
from downstream.text_files import is_text
from tokenizer.errors import UserError
from tokenizer.page import write_page
from tokenizer.printable import printable

NUM_GUESSES = 10
NUM_PRINTED = 5


class Guess(NamedTuple):
    piece: str
    probability: float


class ReadText(NamedTuple):
    """A text as the model reads it."""

    text: str
    pieces: list[str]
    """N, [CLS] and [SEP] among them."""
    masks: list[int]
    """Places of [MASK]."""
    guesses: list[list[Guess]]
    """Of each mask the likeliest pieces, the likeliest first."""
    attention_LHNN: np.ndarray
    """float32, layer, head, piece that attends, piece attended to; each row sums to 1."""


class Export(NamedTuple):
    """A model that transformers has loaded."""

    folder: Path
    model: Any
    tokenizer: Any
    can_guess: bool
    """Whether it has a masked-LM head."""


def inspect_export(folder: Path, texts: list[str], html: Path | None) -> None:
    """Print what each text's masks would be; with `html`, write a page with the attention, too.

    Raises:
        UserError: transformers is missing or cannot load the folder; a text is missing, empty, too long or no UTF-8, or has a
            [MASK] and the model no head for it; the page cannot be written.
    """
    if not texts:
        raise UserError(f'{folder}: is an exported model; say what to read, e.g. --text "The state of the [MASK] is strong."')
    export = load_export(folder)
    readings = [read_text(export, text) for text in texts]
    for reading in readings:
        print_reading(reading)
    if html is not None:
        config = export.model.config
        about = (
            f"{config.num_hidden_layers} layers x {config.hidden_size:,} hidden x {config.num_attention_heads} heads, "
            f"{config.vocab_size:,} pieces, embeddings of {config.embedding_size}."
        )
        write_page(html, build_export_page(folder, about, readings))


def load_export(folder: Path) -> Export:
    """Raises as `inspect_export`."""
    try:
        from downstream.hf_folder import load_model, open_tokenizer
    except ImportError as error:
        raise UserError(f"transformers reads exported models: pip install 'albert-pretraining[transformers]' ({error})") from error

    tokenizer, _ = open_tokenizer(folder)
    model, lacking = load_model(folder, "AutoModelForMaskedLM", {}, attn_implementation="eager")
    return Export(folder, model.eval(), tokenizer, not any(name.startswith("predictions.") for name in lacking))


def read_text(export: Export, text: str) -> ReadText:
    """Raises as `inspect_export`."""
    import torch

    named = f"--text {text[:60]!r}"
    if not is_text(text):
        raise UserError(f"{named}: is not in UTF-8. Set the terminal to UTF-8, or type the text anew.")
    inputs = export.tokenizer(text, return_tensors="pt", return_token_type_ids=True)
    ids, longest = inputs["input_ids"][0].tolist(), export.model.config.max_position_embeddings
    if len(ids) < 3:
        raise UserError(f"{named}: no piece is left of it after normalisation.")
    if len(ids) > longest:
        raise UserError(f"{named}: has {len(ids):,} pieces, and the model takes {longest:,} at most. Shorten it.")
    masks = [place for place, number in enumerate(ids) if number == export.tokenizer.mask_token_id]
    if masks and not export.can_guess:
        raise UserError(f"{named}: {export.folder} has no masked-LM head to fill a [MASK]; it was saved for another task.")
    with torch.no_grad():
        output = export.model(**inputs, output_attentions=True)
        likeliest = output.logits[0, masks].softmax(-1).topk(min(NUM_GUESSES, export.model.config.vocab_size))
    if not all(bool(tensor.isfinite().all()) for tensor in (output.logits, *output.attentions)):
        raise UserError(f"{export.folder}: gives values that are no finite numbers.")
    guesses = [
        [Guess(piece, probability) for piece, probability in zip(names, probabilities, strict=True)]
        for names, probabilities in zip(
            map(export.tokenizer.convert_ids_to_tokens, likeliest.indices.tolist()), likeliest.values.tolist(), strict=True
        )
    ]
    attention = torch.cat(output.attentions).numpy()
    return ReadText(text, export.tokenizer.convert_ids_to_tokens(ids), masks, guesses, attention)


def print_reading(reading: ReadText) -> None:
    console = Console(highlight=False)
    wrap = {"soft_wrap": not console.is_terminal}
    console.print(Text(printable(reading.text), "bold"), **wrap)
    if not reading.masks:
        console.print(Text("no [MASK] in it"), **wrap)
        return
    table = Table()
    for name in ("place", *(f"{number}." for number in range(1, NUM_PRINTED + 1))):
        table.add_column(name)
    for place, guesses in zip(reading.masks, reading.guesses, strict=True):
        cells = (Text(f"{printable(guess.piece)} {guess.probability:.1%}") for guess in guesses[:NUM_PRINTED])
        table.add_row(str(place), *cells)
    console.print(table)
