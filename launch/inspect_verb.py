"""`albert inspect FOLDER`: what the folder holds decides whether it is looked at as data or as a run."""

from data_prep.inspect_options import InspectOptions
from data_prep.schema import MANIFEST_NAME
from tokenizer.errors import UserError


def inspect(options: InspectOptions) -> None:
    """Raise a UserError for what is neither, beside those of the two."""
    options.check()
    is_data, is_run = ((options.folder / name).is_file() for name in (MANIFEST_NAME, "config.yaml"))
    if is_run and not is_data:
        from pretrain.inspect_run import inspect_run

        inspect_run(options)
        return
    if not is_data:
        raise UserError(
            f"{options.folder}: is no data folder (no {MANIFEST_NAME} in it) and no run (no config.yaml). Make data with "
            "`albert prepare`, start a run with `albert launch`."
        )
    from data_prep.inspect import inspect as inspect_data

    inspect_data(options)
