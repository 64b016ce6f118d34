"""What the ablations of one call consist of: runs, where each lies, its config, and what it is judged on."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ablation_rows import CONFIGS, Row, Table
from pretrain.config import RunConfig
from pretrain.config_file import differences, load_config
from tokenizer.files import write_json


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Runs of the tables that are wanted, at one budget."""

    work: Path
    budget: str
    """Such as `steps_1000`: name of the folder of these runs."""
    tables: dict[str, Table]
    num_seeds: int
    overrides: list[tuple[str, str]]
    """Fields of the run config, with values as YAML, that hold for all runs."""

    @property
    def folder(self) -> Path:
        return self.work / self.budget

    @property
    def rows(self) -> dict[str, Row]:
        """Name of its runs -> row, those of several tables once."""
        return {row.run: row for table in self.tables.values() for row in table.rows}

    @property
    def runs(self) -> dict[str, tuple[Row, int]]:
        """Name -> row and seed, those of seed 0 first."""
        return {f"{row.run} seed {seed}": (row, seed) for seed in range(self.num_seeds) for row in self.rows.values()}

    @property
    def data_names(self) -> set[str]:
        """Data folders that rows are trained or judged on."""
        judged = {name for table in self.tables.values() for name in (*table.masked_lm_on, *table.order_on)}
        return judged | {row.data for row in self.rows.values()}

    def data(self, name: str) -> Path:
        return self.work / "data" / name

    def has_data(self, name: str) -> bool:
        return (self.data(name) / "manifest.json").exists()

    def config(self, row: Row, seed: int) -> RunConfig:
        """As `albert launch` will have it.

        Raises:
            UserError: an override does not fit.
        """
        path = ("data.path", json.dumps(str(self.data(row.data).absolute())))
        return load_config(CONFIGS / f"{row.config}.yaml", [path, *self.fields(seed)])

    def fields(self, seed: int) -> list[tuple[str, str]]:
        """All overrides of a run."""
        return [*self.overrides, ("training.seed", str(seed))]

    def run_folder(self, row: Row, seed: int) -> Path:
        return self.folder / row.run / f"seed-{seed}"

    def has_run(self, row: Row, seed: int) -> bool:
        return (self.run_folder(row, seed) / "DONE").exists()

    def changes(self, row: Row, seed: int) -> list[str]:
        """Fields, as `section.field: old -> new`, in which a run that is there differs from what is planned."""
        if not self.has_run(row, seed):
            return []
        return differences(load_config(self.run_folder(row, seed) / "config.yaml"), self.config(row, seed))

    def is_done(self, row: Row, seed: int) -> bool:
        """Whether it ran, and as planned: the figures of another config have no place in the tables."""
        return self.has_run(row, seed) and not self.changes(row, seed)

    def crowds(self) -> list[int]:
        """How many runs were trained at once, in the calls so far; speeds hang on it."""
        path = self.folder / "crowds.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def note_crowd(self, at_once: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "crowds.json", sorted({*self.crowds(), at_once}))

    def evaluations(self) -> list[tuple[str, int, list[Path]]]:
        """Data folder, seed, and the finished runs to be judged there."""
        rows_on: dict[str, dict[str, Row]] = {}
        for table in self.tables.values():
            for name in (*table.masked_lm_on, *table.order_on):
                rows_on.setdefault(name, {}).update({row.run: row for row in table.rows})
        return [
            (name, seed, [self.run_folder(row, seed) for row in rows.values() if self.is_done(row, seed)])
            for name, rows in rows_on.items()
            for seed in range(self.num_seeds)
        ]

    def evaluation(self, data: str, seed: int) -> Path:
        """What `albert evaluate` writes of them."""
        return self.folder / "evaluations" / f"{data}-{seed}.json"
