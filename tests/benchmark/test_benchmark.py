"""The benchmark measures what it says: equal work, bytes that are known beforehand, growth with a known exponent."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.benchmark import Case, cases, contenders, depthwise, describe_environment, measure_case
from focalnet_backbone.benchmark.against import check_comparable, format_changes
from focalnet_backbone.benchmark.depthwise import measure_depthwise
from focalnet_backbone.benchmark.floor import make_floor
from focalnet_backbone.benchmark.memory import peak_bytes, saved_bytes
from focalnet_backbone.benchmark.report import format_environment
from focalnet_backbone.benchmark.timing import alternate, calls_per_timing, summarise, time_once
from focalnet_backbone.fast import native
from focalnet_backbone.system.processor import instruction_sets

CPU = torch.device("cpu")
SMALL = {"embed_dim": 8, "depths": [1, 2], "focal_levels": [2, 2], "focal_windows": [3, 3]}
SETTINGS = [f"--set={knob}={value}" for knob, value in SMALL.items()]


def test_the_implementations_do_the_same_work():
    case = Case("small", FocalNetConfig(**SMALL), (48, 64), batch_size=2, rounds=2, seconds=600)
    result = measure_case(case, ["forward"])
    assert result["difference"] < 1e-5
    assert list(result["forward"]) == ["ours", "timm", "transformers", "ours, fused", "floor"]
    assert all(entry["seconds"] > 0 and entry["rounds"] == 2 for entry in result["forward"].values())
    assert result["forward"]["ours"]["ratio"] == 1


def test_training_and_memory_are_measured_with_and_without_the_saving():
    config = FocalNetConfig(embed_dim=16, depths=[2, 2], focal_levels=[3, 3], focal_windows=[3, 3])
    case = Case("small", config, (128, 128), rounds=1)
    # Without a GPU, Triton's kernels are asked for and not there.
    result = measure_case(case, ["training", "saving", "triton", "triton-training", "memory"])
    assert list(result["training"]) == ["ours", "timm", "transformers"]
    assert list(result["saving"]) == ["ours", "ours, plain autograd"]
    assert list(result["triton"]) == list(result["triton-training"]) == ["ours", "ours, Triton"]
    memory = result["memory"]
    assert list(memory) == ["ours", "timm", "transformers", "ours, use_checkpoint"]
    assert memory["timm"]["ratio"] > 1 / 0.55
    assert memory["transformers"]["ratio"] > 1 / 0.55
    assert memory["ours, use_checkpoint"]["saved"] < 0.2 * memory["timm"]["saved"]


def test_autocast_is_measured_beside_float32():
    case = Case("small", FocalNetConfig(**SMALL), (64, 64), rounds=1)
    result = measure_case(case, ["autocast", "autocast-training"])
    assert 0 < result["autocast"]["error"] < 0.02
    assert [list(result[name])[:2] for name in ("autocast", "autocast-training")] == [["ours", "ours, float32"]] * 2


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(contenders, "missing_peers", lambda: ["timm"])
    found = contenders.make_contenders(FocalNetConfig(**SMALL), CPU)
    assert [contender.name for contender in found] == ["ours", "transformers"]


def test_the_functions_take_turns_and_rounds_end_in_time():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = alternate(runs, CPU, rounds=3, seconds=100)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert [sorted(order) for order in rounds] == [list("abc")] * 4
    assert len(set(rounds)) > 1
    assert [len(series) for series in times.values()] == [3, 3, 3]
    # No time at all: the round to warm up counts.
    assert [len(series) for series in alternate(runs, CPU, rounds=3, seconds=0).values()] == [1, 1, 1]


def test_calls_in_a_row_share_their_time():
    calls = []
    seconds = time_once(lambda: (calls.append(1), time.sleep(0.02)), CPU, calls=3)
    assert len(calls) == 3
    assert 0.02 <= seconds < 0.05
    assert calls_per_timing(calls.append, CPU) == 1, "of a processor each call is timed alone"


def test_a_gpu_is_described_with_what_its_times_depend_on():
    environment = {"device": "NVIDIA X", "gpu": {"CUDA": "13.0", "TF32 in": "nothing"}, "versions": {"torch": "2.14"}}
    assert format_environment(environment) == "NVIDIA X, CUDA 13.0, TF32 in nothing, torch 2.14"


def test_ratios_are_taken_within_rounds():
    summary = summarise({"ours": [1.0, 2.0, 4.0], "other": [3.0, 4.0, 8.0]}, "ours")
    assert summary["other"] == {
        "seconds": 4.0,
        "ratio": 2.0,
        "quartiles": [2.0, 2.5],
        "rounds": 3,
        "spread": [3.5, 6.0],
    }


def test_saved_bytes_are_those_of_the_tensors_that_autograd_holds():
    model = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.Linear(20, 5))
    x = torch.randn(7, 10)
    # The input, the activation's input and its result; neither the weights nor the last result.
    assert saved_bytes(model, lambda: model(x)) == 4 * 7 * (10 + 20 + 20)
    # A tensor that two operations hold counts once.
    y = torch.randn(100, requires_grad=True)
    assert saved_bytes(model, lambda: y.exp().square()) == 4 * 100


def test_the_peak_is_that_of_the_call():
    found = peak_bytes(lambda: torch.ones(25_000_000), CPU)
    assert found == pytest.approx(100e6, rel=0.05)


def test_the_floor_is_the_models_convolutions_and_matrix_products(monkeypatch):
    (ours, *_) = contenders.make_contenders(FocalNetConfig(**SMALL), CPU)
    with torch.no_grad():
        floor = make_floor(ours, torch.randn(1, 3, 32, 32))
        with torch.profiler.profile() as recorded:
            floor()
    names = [event.name for event in recorded.events() if event.cpu_parent is None]
    # Two strided convolutions; in each of three blocks two levels, f, h, proj, and the MLP's two layers.
    kinds = (
        "aten::linear",
        "aten::conv2d",
        "aten::conv_transpose2d",
        "mkldnn::_linear_pointwise",
        native.OPERATOR,
    )
    products = [name for name in names if name in kinds]
    assert len(products) == 2 + 3 * (2 + 5)
    assert not [name for name in names if "norm" in name or "gelu" in name or "add" in name]


def test_depthwise_convolutions_are_timed_by_every_kernel_and_pass():
    lines = list(measure_depthwise(CPU, torch.float32, shapes=[(1, 6, 7, 4)], sizes=[3, 5], trials=1))
    assert lines[0] == "| map | kernel | pass | channels-last | planes | ours |"
    assert lines[3].startswith("| 1x6x7x4 | 3x3 | input gradient | ")
    assert len(lines) == 2 + 2 * 3


def test_depthwise_convolutions_of_named_maps_are_timed_by_a_command(monkeypatch, capsys):
    arguments = ["depthwise.py", "cpu", "float32", "--trials", "1", "--map"]
    monkeypatch.setattr("sys.argv", [*arguments, "1x6x7x4", "1x3x3x16"])
    assert depthwise.main() == 0
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[::3] == [[f"| {shape}", f"{k}x{k}"] for shape in ("1x6x7x4", "1x3x3x16") for k in (3, 9, 13)]
    monkeypatch.setattr("sys.argv", [*arguments, "6x7x4"])
    with pytest.raises(SystemExit):
        depthwise.main()
    assert "expected NxHxWxC, got '6x7x4'" in capsys.readouterr().err


def test_a_straight_line_has_exponent_one():
    fit = cases._fit([100, 400, 1600], [1.0, 4.0, 16.0])
    assert fit["exponent"] == pytest.approx(1)
    assert fit["r_squared"] == pytest.approx(1)
    assert cases._fit([100, 400, 1600], [1.0, 16.0, 256.0])["exponent"] == pytest.approx(2)


@pytest.fixture
def same_threads_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("same_threads_afterwards")
def test_the_tool_prints_writes_and_draws(run_tool, tmp_path):
    files = ["--json", tmp_path / "speed.json", "--plot", tmp_path / "speed.png"]
    arguments = ["--size", "32", "32x64", "--batch-size", 1, 2, "--measure", "forward", "memory"]
    arguments += ["--rounds", 1, "--scaling", 32, 64, "--threads", 1]
    status, output, errors = run_tool("benchmark.py", "focalnet_tiny_lrf", *SETTINGS, *arguments, *files)
    assert status == 0, errors
    sets = " ".join(instruction_sets())
    capability = torch.backends.cpu.get_cpu_capability() + (f" ({sets})" if sets else "")
    compiled = "compiled depth-wise convolutions, " if native.is_used() else ""
    assert f" cores, 1 threads, {capability}, {compiled}torch {torch.__version__.partition('+')[0]}" in output
    assert "focalnet_tiny_lrf, 2 x 32x64, float32" in output
    assert "kept for the backward pass" in output
    report = json.loads((tmp_path / "speed.json").read_text())
    assert [set(case) & {"forward", "memory", "training"} for case in report["cases"]] == [{"forward", "memory"}] * 4
    assert [(case["size"], case["batch_size"]) for case in report["cases"]] == [
        ([32, 32], 1),
        ([32, 32], 2),
        ([32, 64], 1),
        ([32, 64], 2),
    ]
    assert report["scaling"]["sides"] == [32, 64]
    assert report["environment"]["threads"] == 1
    (kept,) = re.findall(r"kept as (.*)", output)
    assert json.loads(Path(kept).read_text()) == report
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_earlier_measurements_are_read_and_completed(run_tool, tmp_path):
    first, second, picture = (tmp_path / name for name in ("first.json", "second.json", "speed.svg"))
    common = ["focalnet_tiny_lrf", *SETTINGS, "--rounds", 1, "--size", 32]
    assert run_tool("benchmark.py", *common, "--measure", "forward", "--scaling", 32, 64, "--json", first)[0] == 0
    more = ["--batch-size", 1, 2, "--measure", "memory", "--read", first, "--json", second]
    assert run_tool("benchmark.py", *common, *more)[0] == 0
    before, after = (json.loads(path.read_text()) for path in (first, second))
    assert after["scaling"] == before["scaling"]
    assert after["cases"][0]["forward"] == before["cases"][0]["forward"]
    assert [sorted(set(case) & {"forward", "memory"}) for case in after["cases"]] == [["forward", "memory"], ["memory"]]
    status, output, errors = run_tool("benchmark.py", "--read", second, "--plot", picture, "--table")
    assert status == 0, errors
    assert "focalnet_tiny_lrf, 2 x 32x32" in output
    rows = [line for line in output.splitlines() if line.startswith("|")]
    assert rows[0] == "| case | forward | fused | floor | kept for backward |"
    assert rows[2].startswith("| tiny_lrf, 1 x 32x32 | ")
    assert rows[3].count("x,") == 2
    assert picture.read_text().count("<svg") == 1


ENVIRONMENT = {"device": "a processor", "instruction_sets": ["avx2"], "threads": 2, "versions": {"torch": "2.14.1"}}


def timed(seconds: float, spread: float = 0.1) -> dict[str, object]:
    return {"seconds": seconds, "spread": [seconds * (1 - spread), seconds * (1 + spread)], "ratio": 1.0}


def a_case(**measures: dict[str, dict]) -> dict[str, object]:
    return {"variant": "tiny", "size": [32, 64], "batch_size": 2, "dtype": "float32", "difference": 0.0, **measures}


def test_what_became_slower_or_faster_beyond_its_spread_is_told():
    then = a_case(
        forward={"ours": timed(1.0), "timm": timed(1.0), "floor": timed(1.0, 0.0)},
        training={"ours": timed(4.0)},
        memory={"ours": {"saved": 1, "ratio": 1.0}},
    )
    now = a_case(
        forward={"ours": timed(1.15), "timm": timed(1.3), "floor": timed(1.01, 0.0)},
        training={"ours": timed(2.0)},
        memory={"ours": {"saved": 2, "ratio": 1.0}},
        autocast={"ours": timed(9.0), "error": 0.1},
    )
    other = {**a_case(forward={"ours": timed(50.0)}), "batch_size": 1}
    assert format_changes([now, other], [then]).splitlines() == [
        "4 times compared, 2 changed beyond their spread",
        "  slower 1.30x: tiny, 2 x 32x64, float32, forward, timm, 1000.0 ms, now 1300.0 ms",
        "  faster 0.50x: tiny, 2 x 32x64, float32, training, ours, 4000.0 ms, now 2000.0 ms",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "another"}, "device was another, and is a processor"),
        ({"threads": 1}, "threads was 1, and is 2"),
        ({"instruction_sets": []}, r"instruction_sets was \[\], and is \['avx2'\]"),
        ({"versions": {"torch": "2.7.0"}}, "torch was 2.7.0, and is 2.14.1"),
    ],
)
def test_times_of_another_machine_are_not_compared(change, message):
    check_comparable(ENVIRONMENT, {**ENVIRONMENT, "versions": {"torch": "2.14.1", "timm": "1.0"}})
    with pytest.raises(ValueError, match=message):
        check_comparable(ENVIRONMENT, {**ENVIRONMENT, **change})


def test_reports_are_compared_on_the_command_line(run_tool, tmp_path):
    paths = [tmp_path / name for name in ("then.json", "now.json", "elsewhere.json")]
    environments = [describe_environment(CPU)] * 2 + [{**describe_environment(CPU), "device": "another"}]
    for path, environment, seconds in zip(paths, environments, (1.0, 2.0, 3.0), strict=True):
        entry = {**timed(seconds), "quartiles": [1.0, 1.0], "rounds": 3}
        report = {"environment": environment, "cases": [a_case(forward={"ours": entry})], "scaling": None}
        path.write_text(json.dumps(report))
    then, now, elsewhere = paths
    status, output, errors = run_tool("benchmark.py", "--read", now, "--against", then)
    assert status == 0, errors
    assert f"against {then}: 1 times compared, 1 changed beyond their spread" in output
    assert "slower 2.00x: tiny, 2 x 32x64, float32, forward, ours, 1000.0 ms, now 2000.0 ms" in output
    status, output, errors = run_tool("benchmark.py", "focalnet_tiny_lrf", "--against", elsewhere)
    assert (status, output) == (2, "")
    assert f"--against {elsewhere}: its times are of another machine or set-up: device was another" in errors


def test_a_users_file_is_kept_unless_it_may_be_replaced(run_tool, tmp_path):
    path = tmp_path / "speed.json"
    path.write_text("{}")
    arguments = ["focalnet_tiny_lrf", *SETTINGS, "--rounds", 1, "--size", 32, "--measure", "memory", "--json", path]
    status, output, errors = run_tool("benchmark.py", *arguments)
    assert (status, output) == (2, "")
    assert f"{path} exists already and was not written by this program; --force replaces it" in errors
    assert path.read_text() == "{}"
    assert run_tool("benchmark.py", *arguments, "--force")[0] == 0
    assert len(json.loads(path.read_text())["cases"]) == 1
    assert run_tool("benchmark.py", *arguments)[0] == 0, "its own file may be replaced"


def test_compiled_models_are_timed(run_tool, tmp_path):
    path = tmp_path / "speed.json"
    knobs = ["--set=embed_dim=4", "--set=depths=[1]", "--set=focal_levels=[1]", "--set=focal_windows=[3]"]
    status, _, errors = run_tool(
        "benchmark.py",
        "focalnet_tiny_lrf",
        *knobs,
        "--size",
        32,
        "--measure",
        "compiled",
        "--rounds",
        1,
        "--json",
        path,
    )
    assert status == 0, errors
    compiled = json.loads(path.read_text())["cases"][0]["compiled"]
    assert list(compiled) == ["ours", "ours, eager", "timm", "timm, eager"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["focalnet_minute"], "focalnet_minute"),
        (["focalnet_tiny_lrf", "--set", "embed_dims=8"], "Did you mean 'embed_dim'"),
        (["focalnet_tiny_lrf", "--set", "embed_dim"], "expected KNOB=VALUE"),
        (["focalnet_tiny_lrf", "--size", "big"], "a size is like 512 or 800x1280, not 'big'"),
        (["focalnet_tiny_lrf", "--size", "512x500"], "must be multiples of the last stride 32, got 512x500"),
        (["focalnet_tiny_lrf", "--size", "0"], "a size is at least 1 pixel"),
        (["focalnet_tiny_lrf", "--rounds", "0"], "must be a whole number of at least 1"),
        (["focalnet_tiny_lrf", "--device", "tpu"], "tpu"),
        (["focalnet_tiny_lrf", "--measure", "triton"], "--measure triton needs --device cuda"),
        ([], "a variant or --read is needed"),
        (["--read", "nowhere.json"], "nowhere.json"),
        (["--read", __file__], "is not valid JSON"),
        (["focalnet_tiny_lrf", "--against", "nowhere.json"], "nowhere.json"),
        (["focalnet_tiny_lrf", "--json", "nowhere/speed.json"], "no folder nowhere"),
        (["focalnet_tiny_lrf", "--json", "."], "folder"),
        (["focalnet_tiny_lrf", "--plot", "speed.xyz"], "no picture can have the ending '.xyz'"),
    ],
)
def test_bad_arguments_get_one_clear_line(run_tool, arguments, message):
    status, output, errors = run_tool("benchmark.py", *arguments)
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert output == ""
