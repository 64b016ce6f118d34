"""Which page answers a query best? `python -m downstream.rank --model FOLDER --query "..." --input pages.jsonl`

Pages are cut into passages, query and passages embedded, and a page ranks by the cosine of its best passage. An example of
`downstream.embeddings`, for exports and what `albert finetune --task similarity` wrote.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizer.errors import UserError
from tokenizer.printable import printable
from tokenizer.privacy import is_private_tokenizer, words_withheld

PASSAGE_LENGTH = 128


class Hit(NamedTuple):
    """A page and its best passage."""

    page: str
    score: float
    """Cosine."""
    passage: str


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m downstream.rank", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of an export, or of --task similarity")
    parser.add_argument("--query", required=True)
    parser.add_argument("--input", nargs="+", required=True, help=".html, .jsonl, .tsv, .csv, .txt or .parquet files")
    parser.add_argument("--top", type=int, default=5, help="pages to show")
    parser.add_argument("--passage_length", type=int, help="pieces of a passage; default: 128, or what the model takes")
    options = parser.parse_args(arguments)
    try:
        if options.top < 1:
            raise UserError(f"--top: must be at least 1, found {options.top}")
        with words_withheld(private := is_private_tokenizer(options.model)):
            hits = rank(options.model, options.query, options.input, options.passage_length, private=private)
    except UserError as error:
        print("\n".join(map(printable, f"rank: {error}".split("\n"))), file=sys.stderr)
        return 2
    for place, hit in enumerate(hits[: options.top], 1):
        print(f"{place}. {printable(hit.page)}  {hit.score:.4f}\n   {printable(' '.join(hit.passage.split()))}")
    return 0


def rank(folder: Path, query: str, inputs: Sequence[str], passage_length: int | None, *, private: bool = False) -> list[Hit]:
    """All pages, the best first.

    Raises:
        UserError: as `load_encoder` and `read_pages`; `transformers` is missing, the query is no text, or a passage would be
            longer than the model takes.
    """
    from downstream.finetune import refuse_missing_libraries

    refuse_missing_libraries("transformers")
    from downstream.embeddings import embed_ids, embed_texts, load_encoder, normalize
    from downstream.pages import cut_passages, read_pages
    from downstream.text_files import is_text

    if not is_text(query) or not query.strip():
        raise UserError("--query: is empty, or not in UTF-8.")
    model, tokenizer = load_encoder(folder)
    positions = model.config.max_position_embeddings
    passage_length = min(PASSAGE_LENGTH, positions) if passage_length is None else passage_length
    if not 8 <= passage_length <= positions:
        raise UserError(f"--passage_length: expected 8 to {positions} pieces, as the model takes, found {passage_length}.")
    pages = read_pages(inputs, private=private)
    passages = list(cut_passages(pages, tokenizer, passage_length))
    if not passages:
        raise UserError(f"--input {' '.join(inputs)}: all pages are blank to the tokenizer.")
    vector_D = normalize(embed_texts([query], model, tokenizer))[0]
    cosines = normalize(embed_ids([passage.ids for passage in passages], model, tokenizer.pad_token_id)) @ vector_D
    best: dict[int, Hit] = {}
    for passage, cosine in sorted(zip(passages, cosines.tolist(), strict=True), key=lambda pair: -pair[1]):
        best.setdefault(passage.page, Hit(pages[passage.page].name, cosine, passage.text))
    return list(best.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
