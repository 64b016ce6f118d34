"""`model.init_from`: a Hugging Face ALBERT's weights as the beginning of a run, with the vocabulary of the run's data.

A piece that both vocabularies hold keeps its row of the embeddings and its entry of the output bias, whatever its id. A new one
gets the mean over the pieces that the former tokenizer cuts it into (Gee et al., Fast Vocabulary Transfer for Language Model
Compression, EMNLP 2022, industry track). Where that one knows nothing of it, the row is a draw from a normal with mean and standard
deviation of the former rows (Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021; without covariances).
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from pretrain.config import ModelConfig
from pretrain.hf_weights import check_hf_config, find_weights, read_hf_weights
from pretrain.model import Albert
from tokenizer.chain import SPECIAL_IDS
from tokenizer.errors import UserError
from tokenizer.imported import load_file

BY_PIECE = ("embeddings.word.weight", "mlm_head.bias")
"""Weights [pieces, ...]."""


class KeptRows(NamedTuple):
    """What became of the pieces of the data's vocabulary."""

    kept: int
    """Those that the folder's vocabulary holds, too."""
    composed: int
    """New ones of pieces of the folder's."""
    drawn: int
    """New ones that it knows nothing of."""
    moved: int
    """Of those kept, the ones with another id than before."""

    def __str__(self) -> str:
        total = self.kept + self.composed + self.drawn
        if not (self.composed or self.drawn or self.moved):
            return f"its pieces are those of the data: all {total:,} keep their rows"
        return (
            f"of the {total:,} pieces of the data {self.kept:,} keep their rows ({self.moved:,} under another id), "
            f"{self.composed:,} begin with the mean over former pieces, {self.drawn:,} are drawn"
        )


class Former(NamedTuple):
    """The folder's vocabulary."""

    tokenizer: Tokenizer
    number_of: dict[str, int]
    """Piece -> id."""


def check_init_from(config: ModelConfig) -> None:
    """What can be known before a process is started, without reading the weights.

    Raises:
        UserError: no such folder, another shape, weights that are missing or pickled, or no tokenizer whose pieces compare.
    """
    folder = config.init_from
    try:
        check_hf_config(config, folder)
        with safe_open(find_weights(folder), "pt") as file:
            names = [name for name in file.keys() if name.endswith("word_embeddings.weight")]  # noqa: SIM118 no mapping
            num_rows = [file.get_slice(name).get_shape()[0] for name in names]
        check_size(read_former(folder), *num_rows[:1], folder=folder)
    except (UserError, SafetensorError) as error:
        raise UserError(f"model.init_from: {error}") from error


def load_init_weights(model: Albert, config: ModelConfig, pieces: list[str], seed: int) -> tuple[KeptRows, list[str]]:
    """Start `model` from `init_from`. Also gives the parts that it lacks, which keep their random weights: a model saved for masked
    words alone has no sentence-order head, an encoder no masked-LM head.

    pieces: of the data. seed: of the draws.

    Raises:
        UserError: as `check_init_from`; or the weights are damaged, or an encoder weight is missing.
    """
    folder = config.init_from
    try:
        check_hf_config(config, folder)
        former, weights = read_former(folder), read_hf_weights(config, folder)
        check_size(former, len(weights[BY_PIECE[0]]), folder=folder)
        rows = replace_rows(weights, former, pieces, torch.Generator().manual_seed(seed))
        model.load_state_dict(weights, strict=False)
    except UserError as error:
        raise UserError(f"model.init_from: {error}") from error
    except RuntimeError as error:
        where = folder / "model.safetensors"
        raise UserError(f"model.init_from: {where} does not fit config.json: {' '.join(str(error).split())}") from error
    return rows, sorted({name.partition(".")[0] for name in model.state_dict().keys() - weights.keys()})


def replace_rows(weights: dict[str, Tensor], former: Former, pieces: list[str], generator: torch.Generator) -> KeptRows:
    """Put rows for `pieces` in place of the former ones, fp32."""
    sources = [[former.number_of[piece]] if piece in former.number_of else cut(piece, former) for piece in pieces]
    is_kept = [piece in former.number_of for piece in pieces]
    is_drawn = torch.tensor([not source for source in sources])
    offsets = torch.tensor([0, *map(len, sources)]).cumsum(0)[:-1]
    flat = torch.tensor([number for source in sources for number in source])
    ordinary = torch.tensor([number for piece, number in former.number_of.items() if piece not in SPECIAL_IDS])
    for name in BY_PIECE:
        if name not in weights:  # an encoder without heads
            continue
        old = weights[name].reshape(len(weights[name]), -1)
        new = F.embedding_bag(flat, old, offsets, mode="mean")  # of one row: that row, bit for bit
        mean, std = old[ordinary].mean(0), old[ordinary].std(0)
        new[is_drawn] = mean + std * torch.randn(int(is_drawn.sum()), old.shape[1], generator=generator)
        weights[name] = new.reshape(len(pieces), *weights[name].shape[1:])
    kept = sum(is_kept)
    drawn = int(is_drawn.sum())
    moved = sum(keeps and source != [number] for number, (keeps, source) in enumerate(zip(is_kept, sources, strict=True)))
    return KeptRows(kept, len(pieces) - kept - drawn, drawn, moved)


def cut(piece: str, former: Former) -> list[int]:
    """Ids of the former pieces that the text of this one is cut into, without unknown characters."""
    begins, text = piece.startswith("▁"), piece.removeprefix("▁")
    normalizer, model = former.tokenizer.normalizer, former.tokenizer.model
    normal = normalizer.normalize_str(text) if normalizer else text
    tokens = model.tokenize("▁" * begins + normal) if normal.strip() else []
    ids = [token.id for token in tokens if token.value not in SPECIAL_IDS and token.value in former.number_of]
    return [] if ids == [former.number_of.get("▁")] else ids


def read_former(folder: Path) -> Former:
    """Raise a UserError unless it has a SentencePiece unigram vocabulary with ALBERT's special tokens."""
    path, wordpiece = folder / "tokenizer.json", folder / "vocab.txt"
    if not path.is_file() and wordpiece.is_file():
        raise no_rows(wordpiece, "WordPiece")
    if not path.is_file():
        raise UserError(
            f"{folder} has no tokenizer.json, so nothing says which piece a row of its embeddings stands for. Put the one that it "
            "was trained with there."
        )
    tokenizer = load_file(path)
    kind = json.loads(tokenizer.to_str())["model"]["type"]
    number_of = tokenizer.get_vocab(with_added_tokens=True)
    if kind != "Unigram":
        raise no_rows(path, kind)
    if missing := [token for token in SPECIAL_IDS if token not in number_of]:
        raise UserError(f"{path}: lacks {', '.join(missing)}, so it is not that of an ALBERT.")
    return Former(tokenizer, number_of)


def no_rows(path: Path, kind: str) -> UserError:
    return UserError(
        f"{path}: its vocabulary is {kind}, whose pieces do not compare with those of SentencePiece (Unigram), so no row can be "
        "kept. Begin with an ALBERT that has a SentencePiece vocabulary, in whatever language, or leave model.init_from out."
    )


def check_size(former: Former, num_rows: int = 0, *, folder: Path) -> None:
    """num_rows: of the embeddings; 0 if there are none."""
    num_pieces = max(former.number_of.values()) + 1
    if num_pieces > num_rows:
        raise UserError(
            f"{folder} has {num_rows:,} rows of embeddings, but {num_pieces:,} pieces in tokenizer.json: one is of another model."
        )
