"""`albert inspect FOLDER`: what the folder holds decides whether it is looked at as data, as a run, or as an exported model."""

from data_prep.inspect_options import InspectOptions
from data_prep.schema import MANIFEST_NAME
from tokenizer.errors import UserError


def inspect(options: InspectOptions) -> None:
    """Raise a UserError for what is none of them, beside those of the three."""
    options.check()
    is_data, is_run, is_model = ((options.folder / name).is_file() for name in (MANIFEST_NAME, "config.yaml", "config.json"))
    if options.text and (is_data or is_run):
        raise UserError(f"--text: is for an exported model, and {options.folder} is {'data' if is_data else 'a run: export it'}.")
    if is_run and not is_data:
        from pretrain.inspect_run import inspect_run

        inspect_run(options)
        return
    if is_model and not is_data:
        from downstream.inspect_export import inspect_export

        inspect_export(options.folder, options.text, options.html)
        return
    if not is_data:
        raise UserError(
            f"{options.folder}: is no data folder (no {MANIFEST_NAME} in it) and no run (no config.yaml), nor an exported model "
            "(no config.json). Make data with `albert prepare`, start a run with `albert launch`, export it with `albert export`."
        )
    from data_prep.inspect import inspect as inspect_data

    inspect_data(options)
