"""The run config: every fault in one error, overrides, presets, and the page that documents it."""

from pathlib import Path

import pytest

from launch.config_reference import config_fields, page
from pretrain.config_file import check_config, differences, load_config, to_plain
from tokenizer.errors import UserError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_survives_a_round_trip(path):
    config = load_config(path, [("data.path", "some/data")])
    assert check_config(to_plain(config), source="again") == config


def test_all_recipes_of_the_readme_are_there():
    sizes = {f"albert_{size}_{version}" for size in ("base", "large", "xlarge", "xxlarge") for version in ("v1", "v2")}
    phases = {"albert_base_v2_phase1_128", "albert_base_v2_phase2_512"}
    assert {path.stem for path in CONFIGS} == sizes | phases | {"cpu", "demo", "small", "single_24gb"}


def test_the_two_phases_differ_in_steps_alone():
    first, second = (
        load_config(ROOT / "configs" / f"albert_base_v2_{name}.yaml", [("data.path", "d")]) for name in ("phase1_128", "phase2_512")
    )
    assert first.training.steps == 0.9 * second.training.steps == 0.9 * second.schedule.total_steps
    assert differences(first, second) == []


@pytest.mark.parametrize(("batch", "lr"), [(4096, 0.00176), (1024, 0.00088), (16384, 0.00352)])
def test_the_learning_rate_follows_the_batch_by_the_square_root_unless_it_is_given(batch, lr):
    content = {"data": {"path": "x"}, "training": {"global_batch_size": batch}}
    assert check_config(content, source="run.yaml").optimizer.lr == pytest.approx(lr)
    assert check_config(content | {"optimizer": {"lr": 0.5}}, source="run.yaml").optimizer.lr == 0.5
    with pytest.raises(UserError, match=r"optimizer\.lr: must be given for adamw"):
        check_config(content | {"optimizer": {"name": "adamw"}}, source="run.yaml")


def test_all_faults_come_in_one_error_with_their_fields():
    content = {
        "data": {"path": "x"},
        "optimzer": {},
        "optimizer": {"lr": -1, "beta3": 0.5},
        "training": {"steps": "many", "global_batch_size": 0},
        "model": {"share": "some", "hidden_dropout": 1.0},
    }
    with pytest.raises(UserError) as error:
        check_config(content, source="run.yaml")
    text = str(error.value)
    assert text.startswith("run.yaml: 7 fault(s)")
    assert "optimzer: no such field; did you mean optimizer?" in text
    assert "optimizer.beta3: no such field; did you mean beta" in text
    for field in ("optimizer.lr", "training.steps", "training.global_batch_size", "model.share", "model.hidden_dropout"):
        assert f"- {field}: " in text


@pytest.mark.parametrize(
    ("section", "content", "field"),
    [
        ("model", {"hidden_size": 100, "num_attention_heads": 12}, "model.num_attention_heads: must divide hidden_size 100"),
        ("model", {"num_hidden_layers": 5, "num_hidden_groups": 2}, "model.num_hidden_groups: must divide num_hidden_layers 5"),
        ("schedule", {"warmup_steps": 10, "total_steps": 10}, "schedule.warmup_steps: must be below total_steps 10"),
        (
            "training",
            {"micro_batch_size": "many"},
            "training.micro_batch_size: must be a whole number above 0, or auto, found 'many'",
        ),
        ("training", {"micro_batch_size": 0}, "training.micro_batch_size: must be a whole number above 0, or auto, found 0"),
        (
            "schedule",
            {"start_step": 95, "total_steps": 100, "warmup_steps": 5},
            "schedule.warmup_steps: must be below total_steps -",
        ),
        ("training", {"steps": 200_000}, "training.steps: must be at most schedule.total_steps 125000"),
        ("deepspeed", {"bf16": {"enabled": True}}, "deepspeed.bf16: cannot be set here: enabled, it makes LAMB"),
        ("deepspeed", {"fp16": {"enabled": True}}, "deepspeed.fp16: cannot be set here"),
        ("deepspeed", {"zero_optimization": {"stage": 1}}, "deepspeed.zero_optimization: cannot be set here: stages above 0"),
        ("deepspeed", {"communication_data_type": "fp16"}, "deepspeed.communication_data_type: cannot be set here"),
        ("deepspeed", {"coms_logger": {}}, "deepspeed.coms_logger: cannot be set here: is not among"),
        ("deepspeed", {"optimizer": {"type": "Lamb"}}, "deepspeed.optimizer: cannot be set here"),
        ("deepspeed", {"gradient_clipping": 1.0}, "deepspeed.gradient_clipping: cannot be set here"),
        ("deepspeed", {"train_batch_size": 8}, "deepspeed.train_batch_size: cannot be set here"),
    ],
)
def test_relations_and_deepspeed_keys_that_break_training_are_refused(section, content, field):
    with pytest.raises(UserError) as error:
        check_config({"data": {"path": "x"}, section: content}, source="run.yaml")
    assert field in str(error.value)


def test_faults_between_fields_come_together():
    content = {"model": {"num_attention_heads": 7, "num_hidden_groups": 5}, "schedule": {"warmup_steps": 9, "total_steps": 9}}
    with pytest.raises(UserError, match=r"(?s)num_attention_heads.*num_hidden_groups.*warmup_steps"):
        check_config({"data": {"path": "x"}} | content, source="run.yaml")
    with pytest.raises(UserError, match=r"(?s)training\.steps.*format_version: this release reads 1, found 9"):
        check_config({"data": {"path": "x"}, "training": {"steps": 10**6}, "format_version": 9}, source="run.yaml")


def test_harmless_deepspeed_keys_are_merged():
    from pretrain.engine import deepspeed_config

    config = check_config({"data": {"path": "x"}, "deepspeed": {"comms_logger": {"enabled": False}}}, source="run.yaml")
    merged = deepspeed_config(config)
    assert merged["comms_logger"] == {"enabled": False}
    assert merged["zero_optimization"] == {"stage": 0}
    assert merged["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}


def test_overrides_win_over_the_file_and_exponents_are_numbers(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optimizer: {lr: 1e-3}\ntraining:\n")
    config = load_config(path, [("data.path", "d"), ("optimizer.lr", "5e-4"), ("training.steps", "7")])
    assert (config.optimizer.lr, config.training.steps) == (5e-4, 7)
    with pytest.raises(UserError, match=r"training\.stepz: no such field; did you mean steps"):
        load_config(path, [("data.path", "d"), ("training.stepz", "7")])


@pytest.mark.parametrize("text", ["model: [", "- a list", "model: 3", "\x00"])
def test_a_file_that_is_no_config_is_a_user_error(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"run\.yaml"):
        load_config(path, [("data.path", "d")])


def test_only_the_listed_fields_may_differ_on_resume():
    def config(**sections):
        return check_config({"data": {"path": "x"}} | sections, source="run.yaml")

    free = {"training": {"steps": 3, "micro_batch_size": 1}, "checkpoint": {"keep_last": 9}, "logging": {"every_n_steps": 9}}
    assert differences(config(), config(**free)) == []
    changed = differences(config(), config(training={"global_batch_size": 8}, deepspeed={"comms_logger": {}}))
    assert [line.partition(":")[0] for line in changed] == [
        "deepspeed",
        "deepspeed.comms_logger",
        "optimizer.lr",  # it follows from the batch
        "training.global_batch_size",
    ]


def test_every_field_is_documented_and_the_page_is_current():
    assert [entry.name for entry in config_fields() if not entry.meaning] == []
    assert (ROOT / "docs" / "config.md").read_text() == page(), "run: python -m launch.config_reference > docs/config.md"
