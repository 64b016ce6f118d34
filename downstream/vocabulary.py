"""Whether a folder's tokenizer and model belong together."""

from typing import Any

from tokenizer.errors import UserError


def check_vocabulary(folder: str, tokenizer: Any, vocab_size: int) -> None:
    """Raise a UserError where the tokenizer has pieces that the model has no embedding for. folder: as a message names it."""
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"{folder}: {len(tokenizer):,} pieces in tokenizer.json, but {vocab_size:,} in the model. "
            "Put the model's own tokenizer there."
        )
