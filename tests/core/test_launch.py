from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest

from core.kit import Kit
from core.launch import launch


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass
class OptimConfig:
    lr: float = 1e-3  # the step size
    # Which rule.
    rule: Literal["adam", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"optim.lr={self.lr} is not positive; set optim.lr")


@dataclass
class DataConfig:
    name: str = "none"
    seed: int = 0


@dataclass
class LiteralData(DataConfig):
    name: str = "literal"
    kind: Literal["a", "b"] | None = None


@dataclass
class FileData(DataConfig):
    name: str = "file"
    path: str = "nowhere"


@dataclass
class TrainConfig:
    steps: int
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    colour: Colour = Colour.red
    layers: tuple[int, ...] = (1, 2)
    names: dict[str, str] = field(default_factory=dict)
    note: str | None = None


KIT = Kit(
    name="toy",
    schemas={"train": TrainConfig},
    groups={"data": {"literal": LiteralData, "file": FileData}},
    build_task=lambda cfg: cfg,
    build_service=lambda cfg: cfg,
    open_run=lambda path: path,
)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "train.yaml").write_text(
        "defaults: [train_schema, _self_, {data: literal}, {optim: null}, {experiment: null}]\n"
        "steps: 3\n"
    )
    (tmp_path / "experiment" / "fast.yaml").write_text("# @package _global_\noptim: {lr: 0.5}\n")
    (tmp_path / "experiment" / "wrong.yaml").write_text("# @package _global_\noptim: {lrr: 1}\n")
    (tmp_path / "data" / "desk.yaml").write_text("defaults: [file]\npath: desk\n")

    def call(*arguments):
        seen = []
        launch(seen.append, KIT, "train", arguments=arguments, config_dir=tmp_path)
        return seen

    return call


@pytest.fixture
def refusal(run, capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    return call


def test_job_gets_the_real_dataclass(run):
    (cfg,) = run("optim.lr=3e-4", "layers=[4,5]", "colour=blue", "data=file", "+names.a=b")
    assert cfg == TrainConfig(
        steps=3,
        data=FileData(),
        optim=OptimConfig(lr=3e-4),
        colour=Colour.blue,
        layers=(4, 5),
        names={"a": "b"},
    )


def test_an_option_brings_its_own_class_and_nothing_of_another(run):
    (cfg,) = run()
    assert cfg.data == LiteralData()
    (cfg,) = run("data=desk", "data.seed=3")
    assert cfg.data == FileData(path="desk", seed=3)


def test_an_experiment_wins_over_defaults_and_the_command_line_over_it(run):
    assert run("experiment=fast")[0].optim.lr == 0.5
    assert run("experiment=fast", "optim.lr=2")[0].optim.lr == 2.0


def test_multirun_runs_every_combination(run):
    seen = run("-m", "optim.lr=1,2", "data=literal,file")
    assert [(cfg.optim.lr, cfg.data.name) for cfg in seen] == [
        (1.0, "literal"),
        (1.0, "file"),
        (2.0, "literal"),
        (2.0, "file"),
    ]


def test_multirun_checks_all_before_the_first_job(run, capsys):
    with pytest.raises(SystemExit):
        run("-m", "optim.lr=1,-1")
    assert "optim.lr=-1.0 is not positive" in capsys.readouterr().err


def test_cfg_job_prints_yaml_and_runs_nothing(run, capsys):
    assert run("--cfg", "job", "optim.lr=7") == []
    assert "lr: 7.0" in capsys.readouterr().out


def test_help_names_groups_options_keys_defaults_types_and_comments(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--help")
    assert stopped.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "data desk file [literal]" in lines
    assert "experiment [null] fast wrong" in lines
    assert "optim.lr=0.001 float the step size" in lines
    assert "optim.rule=adam adam|sgd Which rule." in lines
    assert "colour=red Colour" in lines
    assert "data.kind=null a|b|None" in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optim.lrr=1"], ["optim.lrr is not a key", "betas, lr, rule", "mean optim.lr?"]),
        (["optim.seed=1"], ["optim.seed is not a key, optim has betas, lr, rule; see --help"]),
        (["lr=1"], ["lr is not a key", "colour, compress, data", "mean optim.lr?"]),
        (["optm.lr=1"], ["optm is not a key", "optim"]),
        (["+optim.momentum=1"], ["optim.momentum is not a key", "betas, lr, rule"]),
        (["+zzz=1"], ["zzz is not a key", "colour, data"]),
        (["data=desk", "data.pat=x"], ["data.pat is not a key", "path", "mean data.path?"]),
        (["experiment=wrong"], ["optim.lrr is not a key", "experiment/wrong.yaml"]),
        (["data=moon"], ["data=moon is not an option", "desk, file, literal"]),
        (["experiment=moon"], ["experiment=moon is not an option", "fast, wrong"]),
        (["optim.lr=abc"], ["optim.lr='abc' is not of type float; set optim.lr"]),
        (["steps=2.5"], ["steps=2.5 is not of type int"]),
        (["layers=[a]"], ["layers[0]='a' is not of type tuple[int, ...]"]),
        (["optim=[1]"], ["optim=[1] is not an option"]),
        (["colour=green"], ["colour='green' is not one of red, blue"]),
        (["optim.rule=lion"], ["optim.rule='lion' is not one of adam, sgd; set optim.rule"]),
        (["data.kind=c"], ["data.kind='c' is not one of a, b"]),
        (["optim.betas=[1]"], ["optim.betas=[1.0] is not of length 2"]),
        (["optim.lr=-1"], ["optim.lr=-1.0 is not positive; set optim.lr"]),
        (["steps=???"], ["steps is not set; add steps=..."]),
        (["data=null"], ["data=null is not an option; choose one of desk, file, literal"]),
        (["~optim.lr"], ["optim.lr"]),
        (["optim.lr"], ["'optim.lr' is not of the form key=value"]),
        (["optim.lr=1,2"], ["optim.lr=1,2 names several values", "--multirun"]),
    ],
)
def test_a_mistake_is_named_in_one_line(refusal, arguments, words):
    message = refusal(*arguments)
    assert message.startswith("error: ")
    for word in words:
        assert word in message


def test_unknown_flags_are_refused(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--hepl")
    assert stopped.value.code == 2
    assert "--hepl" in capsys.readouterr().err


def test_nothing_is_written_to_the_working_directory(run, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    run()
    assert list(Path().iterdir()) == []
