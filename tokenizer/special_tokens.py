"""Special tokens and their ids: the same for every vocabulary this project trains.

Source: google-research/albert README, section SentencePiece (control and user-defined symbols, pad_id, unk_id).
"""

PAD_TOKEN, PAD_ID = "<pad>", 0
UNK_TOKEN, UNK_ID = "<unk>", 1
CLS_TOKEN, CLS_ID = "[CLS]", 2
SEP_TOKEN, SEP_ID = "[SEP]", 3
MASK_TOKEN, MASK_ID = "[MASK]", 4

CONTROL_SYMBOLS = [CLS_TOKEN, SEP_TOKEN, MASK_TOKEN]
"""Ids 2, 3, 4 in this order."""

USER_DEFINED_SYMBOLS = ["(", ")", '"', "-", ".", "–", "£", "€"]
"""Ids 5-12 in this order; passed to SentencePiece as a list, because in its comma-separated flag `"` opens a CSV quote."""

FIRST_ORDINARY_ID = 5
"""Pieces from here on stand for text; random replacements of masked pieces are drawn from them alone."""

FORBIDDEN_TEXT_IDS = (PAD_ID, CLS_ID, SEP_ID, MASK_ID)
"""Ids that plain text must never yield."""
