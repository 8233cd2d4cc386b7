"""Races of backbones of equal size from random weights."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from mmengine.config import Config

from focalnet_backbone.benchmark import race
from focalnet_backbone.benchmark.race import ENTRANTS, build_backbone, make_options
from focalnet_backbone.benchmark.race_report import format_race, group, plot_races
from focalnet_backbone.command import race as command
from focalnet_backbone.openmmlab.runners import load_config
from tests.openmmlab.conftest import ROOT, SAMPLE_CONFIG

DETECTOR = ROOT / "configs" / "mmdet" / "mask_rcnn_focalnet_sample.py"
TINY = {
    "focalnet": {"type": "FocalNet", "embed_dim": 4, "depths": [1, 1, 1, 1]},
    "convnext": {"type": "TorchvisionConvNeXt", "size": None, "width": 6, "depths": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("config", [SAMPLE_CONFIG, DETECTOR], ids=["mmseg", "mmdet"])
def test_all_that_race_have_the_parameters_of_the_others_within_a_twentieth(config):
    networks = {entrant: build_backbone(load_config(config), entrant) for entrant in ENTRANTS}
    sizes = {entrant: sum(p.numel() for p in network.parameters()) for entrant, network in networks.items()}
    assert all(1e6 < size < 5e6 for size in sizes.values())
    assert max(sizes.values()) / min(sizes.values()) < 1.05


@pytest.mark.parametrize("config", [SAMPLE_CONFIG, DETECTOR], ids=["mmseg", "mmdet"])
def test_necks_and_heads_take_the_maps_of_each_backbone(config):
    options = make_options(load_config(config), "resnet", 7, None)
    channels = {key: value for key, value in options.items() if key.endswith("in_channels")}
    of_all = "model.decode_head.in_channels" if "mmseg" in str(config) else "model.neck.in_channels"
    assert channels.pop(of_all) == [22, 44, 88, 176]
    assert channels == ({"model.auxiliary_head.in_channels": 88} if "mmseg" in str(config) else {})
    assert options["randomness.seed"] == 7


def test_a_shorter_training_has_the_same_schedule_on_fewer_iterations():
    config = load_config(SAMPLE_CONFIG)
    options = make_options(config, "swin", 0, 120)
    warm, cosine = options["param_scheduler"]
    assert (options["train_cfg.max_iters"], warm["end"], cosine["begin"], cosine["end"]) == (120, 10, 10, 120)
    shortest = make_options(config, "swin", 0, 1)["param_scheduler"]
    assert all(scheduler["begin"] < scheduler["end"] for scheduler in shortest)
    with pytest.raises(ValueError, match="counts in epochs"):
        make_options(Config({**config, "train_cfg": {"max_epochs": 3}}), "swin", 0, 120)


@pytest.fixture
def run_race(tiny_options, tmp_path, monkeypatch):
    """`run_race(*flags)`: a race of two tiny backbones on the tiny sample dataset, of two iterations each."""
    monkeypatch.setattr(race, "ENTRANTS", TINY)
    monkeypatch.setattr(command, "ENTRANTS", TINY)
    options = [option for option in tiny_options if not option.startswith(("model.backbone", "train_cfg"))]

    def run(*flags: str) -> int:
        common = [str(SAMPLE_CONFIG), "--name", "tiny", "--out", str(tmp_path), "--iterations", "2"]
        return command.main([*common, *flags, "--cfg-options", *options])

    return run


def test_a_race_keeps_each_result_runs_what_is_missing_and_compares_all(run_race, tmp_path, monkeypatch, capsys):
    assert run_race("--seeds", "1", "--backbones", "convnext") == 0
    first = json.loads((tmp_path / "tiny" / "convnext-0.json").read_text())
    assert first["settings"]["iterations"] == first["iterations"] == 2
    assert first["parameters"] > 0
    assert first["seconds"] > 0
    ran = []
    real = command.run
    monkeypatch.setattr(command, "run", lambda *each: ran.append(each[1:3]) or real(*each))
    assert run_race("--seeds", "2", "--backbones", "convnext") == 0
    assert ran == [("convnext", 1)]
    summary = json.loads((tmp_path / "race.json").read_text())
    values = [r["metrics"]["mIoU"] for r in summary["results"] if r["entrant"] == "convnext"]
    assert all("data" not in result["settings"] for result in summary["results"])
    row = next(line for line in (tmp_path / "race.md").read_text().splitlines() if line.startswith("| ConvNeXt"))
    assert f"| {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} |" in row
    assert (tmp_path / "race.png").stat().st_size > 10_000
    capsys.readouterr()
    assert run_race("--seeds", "1", "--iterations", "3") == 2
    assert "was made with iterations 2, not 3" in capsys.readouterr().err


def test_a_training_that_was_interrupted_goes_on(run_race, tmp_path, monkeypatch, capsys):
    def interrupt(self, runner, *args, **kwargs):
        if runner.iter == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(race.TrainingTime, "before_train_iter", interrupt)
    flags = ("--backbones", "convnext", "--seeds", "1", "--iterations", "4")
    assert run_race(*flags) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "tiny" / "convnext-0.json").exists()
    seen = []
    monkeypatch.setattr(race.TrainingTime, "before_train_iter", lambda self, runner, *_, **__: seen.append(runner.iter))
    assert run_race(*flags) == 0
    assert seen == [2, 3]
    assert json.loads((tmp_path / "tiny" / "convnext-0.json").read_text())["metrics"].keys() == {"mIoU"}


def test_configs_that_cannot_race_are_refused(tmp_path, refused, capsys):
    assert command.main(["mask_rcnn_focalnet_sample.yaml", "--out", str(tmp_path)]) == 2
    assert "races are run in mmsegmentation and mmdetection" in capsys.readouterr().err
    assert command.main([str(SAMPLE_CONFIG), "--name", "../up", "--out", str(tmp_path)]) == 2
    assert "--name names a folder" in capsys.readouterr().err
    for content, message in (
        ("default_scope = 'mmdet'\n", "has no model, train_"),
        ("x = 1\n", "is no config: it names"),
    ):
        (tmp_path / "mine.py").write_text(content)
        assert command.main([str(tmp_path / "mine.py"), "--out", str(tmp_path / "out")]) == 2
        assert f"mine.py {message}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def make_result(entrant: str, seed: int, accuracy: float, name: str = "a") -> dict:
    size = {"parameters": 1_340_000, "macs": 70_000_000, "seconds": 0.2 + seed}
    return {"race": name, "entrant": entrant, "seed": seed, "metrics": {"box AP": accuracy, "mask AP": 1.0}, **size}


def test_the_table_ranks_by_the_mean_and_gives_each_seed():
    results = [make_result("focalnet", seed, 10.0 + seed) for seed in range(3)]
    results += [make_result("swin", seed, 20.0 + 2 * seed) for seed in range(3)]
    lines = format_race("a", group(results)["a"]).splitlines()
    assert lines[2] == "| Swin | 22.0 ± 2.0 | 1.0 ± 0.0 | 20.0, 22.0, 24.0 | 1.34 | 0.070 | 1200 |"
    assert lines[3].startswith("| FocalNet | 11.0 ± 1.0 | 1.0 ± 0.0 | 10.0, 11.0, 12.0 |")
    alone = format_race("a", group(results[:1])["a"]).splitlines()[2]
    assert alone.startswith("| FocalNet | 10.0 | 1.0 | 10.0 | ")


def test_the_picture_has_a_row_a_race_and_a_mark_for_the_mean_of_each_backbone():
    results = [make_result(entrant, seed, 10.0 + seed, name) for name in "ab" for entrant in TINY for seed in range(3)]
    axes = plot_races(group(results)).axes
    assert len(axes) == 6
    means = [tuple(bar.lines[0].get_ydata()) for bar in axes[0].containers]
    assert means == [(11.0,), (11.0,)]


def test_a_small_convnext_has_the_width_and_depths_that_it_is_given():
    from focalnet_backbone.benchmark.twins.convnext import ConvNeXt

    model = ConvNeXt(None, width=8, depths=[1, 2, 1, 1], layer_scale=0.5)
    assert [m.shape[1] for m in model(torch.zeros(1, 3, 64, 64))] == model.channels == [8, 16, 32, 64]
    assert len(model.features[3]) == 2
    assert model.features[1][0].layer_scale.unique().item() == 0.5
