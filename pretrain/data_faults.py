"""What does not fit between a run config, its data folder, and the tokenizer beside the shards."""

from pathlib import Path

from data_prep.schema import TOKENIZER_FOLDER, Manifest
from pretrain.config import RunConfig
from tokenizer.files import sha256_of_files


def data_faults(config: RunConfig, manifest: Manifest, num_procs: int) -> list[str]:
    """What does not fit between config, data folder and number of processes; a line each."""
    faults = []
    if manifest.max_seq_length > config.model.max_position_embeddings:
        faults.append(
            f"model.max_position_embeddings: is {config.model.max_position_embeddings}, but {config.data.path} holds sequences "
            f"of up to {manifest.max_seq_length} pieces. Raise it, or prepare with a smaller --max_seq_length."
        )
    if config.training.global_batch_size < num_procs:
        faults.append(
            f"training.global_batch_size: is {config.training.global_batch_size}, below the {num_procs} processes. "
            "Raise it or start fewer."
        )
    return faults + tokenizer_faults(config.data.path, manifest)


def tokenizer_faults(data: Path, manifest: Manifest) -> list[str]:
    """A line if the tokenizer beside the shards is not the one they were made with."""
    folder = data / TOKENIZER_FOLDER
    try:
        found = sha256_of_files(folder / "tokenizer.json", folder / "tokenizer_config.json")
    except OSError as error:
        return [f"{error.filename}: cannot be read ({error.strerror}). Prepare the data again."]
    if found == manifest.tokenizer_sha256:
        return []
    return [
        f"{folder}: is not the tokenizer of the shards (SHA-256 {found[:12]}..., the manifest has "
        f"{manifest.tokenizer_sha256[:12]}...). Put the former files back, or prepare the data again."
    ]
