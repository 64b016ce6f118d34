"""`albert prepare --remask`: new masks over the pairs of a data folder."""

import shutil

import numpy as np
import pytest
from prepared import BUNDLED, GOLDEN, hashes, options, read, restored

from data_prep.options import PrepareOptions
from data_prep.prepare import prepare
from data_prep.schema import read_manifest
from data_prep.shuffle import write_shard
from tokenizer.errors import UserError


def remasked(data, output, **changes):
    return prepare(PrepareOptions(remask=str(data), output=str(output), **changes))


def test_the_same_masking_options_give_the_same_bytes(tmp_path, data):
    manifest = remasked(data, tmp_path / "again")
    shards = {name: digest for name, digest in hashes(data).items() if name.endswith(".arrow")}
    assert {name: digest for name, digest in hashes(tmp_path / "again").items() if name.endswith(".arrow")} == shards
    assert manifest["splits"] == {name: vars(counts) for name, counts in read_manifest(data).splits.items()}


@pytest.mark.parametrize(
    "changes",
    [{"seed": 7}, {"mask_unit": "piece"}, {"mask_ratio": 0.3, "max_ngram": 5}, {"mask_unit": "word", "max_predictions": 3}],
)
def test_other_masks_are_those_of_a_preparation_with_the_same_options(tmp_path, corpus, tokenizer, data, changes):
    manifest = remasked(data, tmp_path / "new", **changes)
    for name in ("train", "validation"):
        old, new = read(data, name), read(tmp_path / "new", name)
        assert restored(old) == restored(new)
        assert old["segment_b_start"].equals(new["segment_b_start"])
        assert old["sentence_order_label"].equals(new["sentence_order_label"])
        assert not old["mlm_positions"].equals(new["mlm_positions"])
        assert manifest["splits"][name]["masked_pieces"] == sum(map(len, new["mlm_labels"].to_pylist()))
    assert manifest["options"]["mask_seed"] == changes.get("seed", 0)
    assert manifest["seed"] == 0
    if "seed" not in changes:
        prepare(options(corpus, tokenizer, tmp_path / "prepared", **changes))
        assert read(tmp_path / "prepared").equals(read(tmp_path / "new"))


def test_the_new_folder_is_whole_without_the_old_one(tmp_path, data):
    remasked(data, tmp_path / "new", seed=1, compression="zstd", workers=2)
    manifest = read_manifest(tmp_path / "new")
    assert (tmp_path / "new" / "tokenizer" / "tokenizer.json").exists()
    assert manifest.options["compression"] == "zstd"
    share = manifest.splits["train"].masked_pieces / manifest.splits["train"].pieces
    assert np.isclose(share, 0.15, atol=0.02)  # words that do not fit and rounding at length 64 take a little
    (again,) = [remasked(data, tmp_path / "new", seed=1, compression="zstd")]
    assert again["splits"]["train"]["shard_sha256"] == manifest.splits["train"].shard_sha256


def test_what_cannot_be_remasked_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="no data folder"):
        remasked(BUNDLED.parent, tmp_path / "new")
    with pytest.raises(UserError, match="--dupe_factor is 3, but must be left out beside --remask"):
        remasked(data, tmp_path / "new", dupe_factor=3)
    with pytest.raises(UserError, match="holds other data or other masks"):
        remasked(data, data)
    with pytest.raises(UserError, match="holds something else"):
        remasked(data, BUNDLED.parent)
    with pytest.raises(UserError, match="earlier release"):
        remasked(GOLDEN / "shards_1", tmp_path / "new")
    with pytest.raises(UserError, match="expected a data folder of this machine"):
        remasked("memory://data", tmp_path / "new")
    remasked(data, tmp_path / "new", seed=1)
    with pytest.raises(UserError, match="--seed is 2, there it is 1"):
        remasked(data, tmp_path / "new", seed=2)


def test_a_remask_of_several_shards_goes_on_after_a_kill(tmp_path, corpus, tokenizer, monkeypatch):
    many = {"shard_size": 20_000, "dupe_factor": 2}
    prepare(options(corpus, tokenizer, tmp_path / "data", **many))
    assert len(read_manifest(tmp_path / "data").splits["train"].shards) >= 3
    # With the same masking options the rows of each shard, not of the first alone, get the masks of their number.
    remasked(tmp_path / "data", tmp_path / "again")
    assert shards_of(tmp_path / "again") == shards_of(tmp_path / "data")
    remasked(tmp_path / "data", tmp_path / "whole", seed=4)

    written = []

    def dies(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write_shard(*arguments))

    monkeypatch.setattr("data_prep.remask.write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        remasked(tmp_path / "data", tmp_path / "new", seed=4)
    monkeypatch.undo()
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").glob("*.arrow")}
    assert len(first) == 2
    remasked(tmp_path / "data", tmp_path / "new", seed=4)
    assert all(path.stat().st_mtime_ns == written_at for path, written_at in first.items())
    assert hashes(tmp_path / "new") == hashes(tmp_path / "whole")


def shards_of(folder):
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".arrow")}


@pytest.mark.parametrize("damage", ["another shard", "cut", "flipped"])
def test_a_damaged_shard_is_named_and_not_remasked(tmp_path, data, damage):
    copy = shutil.copytree(data, tmp_path / "copy")
    shard = copy / "train-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(
        {"another shard": (copy / "validation-00000.arrow").read_bytes(), "cut": content[:5000], "flipped": content}[damage]
    )
    with pytest.raises(UserError, match=r"train-00000\.arrow: is not what its manifest says"):
        remasked(copy, tmp_path / "new")
    assert not (tmp_path / "new" / "manifest.json").exists()
