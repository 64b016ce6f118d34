"""`@compiled`: numba's njit with a cache on disk, so that only the first run waits for the compiler (about 8 s).

numba compiles callees and constants of other files into a function, but discards its cache only when the file of the function
itself changes. Ours is discarded when any file changes that compiled code may be drawn from.
"""

from pathlib import Path

from numba import config, njit

from tokenizer import special_tokens
from tokenizer.files import sha256_of_files

SOURCES_SHA256 = sha256_of_files(*sorted(Path(__file__).parent.glob("*.py")), Path(special_tokens.__file__))


def compiled(function):
    """Compile when first called; without a cache where neither this folder nor the user's cache folder can be written."""
    try:
        dispatcher = njit(cache=True)(function)
    except RuntimeError:
        return njit(function)
    if not config.DISABLE_JIT:
        dispatcher._cache._cache_file._source_stamp = SOURCES_SHA256
    return dispatcher
