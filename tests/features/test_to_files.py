"""Pyramids of whole folders into files, and the command line that does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file

from focalnet_backbone import FeatureExtractor, FeaturePyramid, FocalNet, create_backbone
from focalnet_backbone.features.to_files import extract_to_files, plan_outputs

TOOL = Path(__file__).parents[2] / "tools" / "extract_features.py"
SMALL = ["--variant", "focalnet_tiny_iso", "--max-size", "32"]
CAT = skimage.data.chelsea()


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with three photos, one of them below, and two files that are none."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(CAT[:64, :80]).save(folder / "a.png")
    Image.fromarray(CAT[:64, :80]).save(folder / "a.jpg")
    Image.fromarray(CAT[:40, :48]).save(folder / "sub" / "b.png")
    return folder


@pytest.fixture
def extractor() -> FeatureExtractor:
    torch.manual_seed(0)
    return FeatureExtractor(FocalNet(embed_dim=8, depths=[1, 1], out_indices=[1, 2]))


def add_bad_files(folder: Path) -> None:
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "sub" / "page.jpg").write_text("<html></html>")


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_outputs_mirror_the_folders(photos):
    outputs = plan_outputs([photos], "out")
    assert {str(path.relative_to(photos)): str(output) for path, output in outputs.items()} == {
        "a.jpg": "out/a.jpg.safetensors",
        "a.png": "out/a.png.safetensors",
        "sub/b.png": "out/sub/b.png.safetensors",
    }


def test_files_and_globs_land_at_the_top(photos):
    assert list(plan_outputs([photos / "sub" / "b.png"], "out").values()) == [Path("out/b.png.safetensors")]
    globbed = plan_outputs([f"{photos}/**/*.png"], "out")
    assert sorted(map(str, globbed.values())) == ["out/a.png.safetensors", "out/b.png.safetensors"]


def test_inputs_that_are_not_there_or_collide_are_named(photos):
    with pytest.raises(FileNotFoundError, match="no image at nowhere"):
        plan_outputs([photos, "nowhere"], "out")
    Image.fromarray(CAT).save(photos / "b.png")
    with pytest.raises(ValueError, match="would both be written to"):
        plan_outputs([photos / "b.png", photos / "sub" / "b.png"], "out")


def test_each_file_holds_the_images_pyramid(extractor, photos, tmp_path):
    outputs = plan_outputs([photos], tmp_path / "out")
    summary = extract_to_files(extractor, outputs, settings={"seed": 0}, plot=True)
    assert (summary.written, summary.skipped, summary.failed) == (3, 0, [])
    for image, output in outputs.items():
        found, expected = FeaturePyramid.load(output), extractor(image)
        assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)
        assert found.metadata["source"] == str(image)
        assert json.loads(found.metadata["settings"]) == {"seed": 0}
        assert Image.open(output.with_suffix(".png")).size[0] > 300


def test_bad_files_are_reported_and_the_rest_is_written(extractor, photos, tmp_path):
    add_bad_files(photos)
    lines = []
    outputs = plan_outputs([photos], tmp_path / "out")
    summary = extract_to_files(extractor, outputs, settings={}, report=lines.append)
    assert summary.written == 3
    assert [Path(path).name for path, _ in summary.failed] == ["bad.png", "page.jpg"]
    assert len(lines) == 2
    assert files_below(tmp_path / "out") == ["a.jpg.safetensors", "a.png.safetensors", "sub/b.png.safetensors"]


def test_resume_skips_what_was_done_with_the_same_settings(extractor, photos, tmp_path):
    outputs = plan_outputs([photos], tmp_path / "out")
    extract_to_files(extractor, outputs, settings={"seed": 0})
    written = outputs[photos / "a.png"]
    written.write_bytes(written.read_bytes()[:-9])
    again = extract_to_files(extractor, outputs, settings={"seed": 0}, resume=True)
    assert (again.written, again.skipped) == (1, 2)
    with_plots = extract_to_files(extractor, outputs, settings={"seed": 0}, resume=True, plot=True)
    assert (with_plots.written, with_plots.skipped) == (3, 0)
    other = extract_to_files(extractor, outputs, settings={"seed": 1}, resume=True)
    assert (other.written, other.skipped) == (3, 0)


@pytest.mark.parametrize("change", ["size", "time", "weights", "architecture"])
def test_resume_does_again_what_has_changed(extractor, photos, tmp_path, change):
    outputs = plan_outputs([photos], tmp_path / "out")
    extract_to_files(extractor, outputs, settings={})
    image, others = photos / "a.png", 0
    if change == "size":
        status = image.stat()
        Image.fromarray(CAT[:60, :80]).save(image)
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(image)
    else:
        others = 2
        knobs = {"use_post_layernorm": True} if change == "architecture" else {}
        model = FocalNet(embed_dim=8, depths=[1, 1], out_indices=[1, 2], **knobs)
        model.load_state_dict(extractor.model.state_dict())
        if change == "weights":
            with torch.no_grad():
                model.norm0.bias[3] += 1e-6
        extractor = FeatureExtractor(model)
    again = extract_to_files(extractor, outputs, settings={}, resume=True)
    assert (again.written, again.skipped) == (1 + others, 2 - others)
    assert torch.equal(FeaturePyramid.load(outputs[image])["stage1"], extractor(image)["stage1"])


FOREIGN = {
    "safetensors": lambda path: save_file({"a": torch.zeros(1)}, path),
    "foreign metadata": lambda path: save_file({"a": torch.zeros(1)}, path, {"metadata": "{", "format": "pt"}),
    "text": lambda path: path.write_text("a user's"),
    "empty": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("nowhere"),
    "plot": lambda path: Image.fromarray(CAT).save(path.with_suffix(".png")),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_users_file_in_a_pyramids_place_is_passed_over_unless_forced(extractor, photos, tmp_path, kind):
    outputs = plan_outputs([photos], tmp_path / "out")
    (tmp_path / "out").mkdir()
    place = outputs[photos / "a.png"]
    FOREIGN[kind](place)
    before = {path: path.is_file() and path.read_bytes() for path in (tmp_path / "out").iterdir()}
    lines = []
    options = {"settings": {}, "plot": kind == "plot", "resume": kind != "text", "report": lines.append}
    summary = extract_to_files(extractor, outputs, **options)
    assert (summary.written, summary.skipped) == (2, 0)
    ((failed, reason),) = summary.failed
    assert (failed, lines) == (str(photos / "a.png"), [f"skipped: {reason}"])
    assert "a.png" in reason
    assert {path: path.is_file() and path.read_bytes() for path in before} == before
    if kind != "folder":
        assert extract_to_files(extractor, outputs, force=True, **options).failed == []
        assert list(FeaturePyramid.load(place)) == ["stage1", "stage2"]


def test_names_that_grow_too_long_are_passed_over(extractor, photos, tmp_path):
    for length in (239, 240):  # With .png and .safetensors, 255 and 256.
        Image.fromarray(CAT[:32, :32]).save(photos / ("n" * length + ".png"))
    summary = extract_to_files(extractor, plan_outputs([photos], tmp_path / "out"), settings={})
    assert summary.written == 4
    assert [(Path(name).stem, "more than 255 bytes" in reason) for name, reason in summary.failed] == [
        ("n" * 240, True)
    ]


def test_nothing_that_has_an_images_name_is_left_out_without_a_word(photos, tmp_path, run_tool):
    (photos / "sub" / "b.safetensors").write_bytes(b"a user's")
    (photos / "gone.png").symlink_to("nowhere.png")
    (photos / "round.png").symlink_to("round.png")
    (photos / "sub" / "up").symlink_to("..")
    os.mkfifo(photos / "pipe.png")
    (photos / ".unfinished-1.png").write_bytes(b"half")
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(CAT[:32, :32]).save(tmp_path / "elsewhere" / "c.png")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "folder.png").mkdir()
    Image.fromarray(CAT[:32, :32]).save(photos / "folder.png" / "d.png")
    status, output, errors = run_tool(TOOL.name, photos, "--out", tmp_path / "out", *SMALL)
    assert (status, "5 written, 0 skipped (done before), 4 failed" in output) == (1, True), output + errors
    failed = [line for line in errors.splitlines() if line.startswith("failed: ")]
    for name, reason in {
        "sub/up": "a link back",
        "gone.png": "a link to nothing",
        "round.png": "a link to nothing",
        "pipe.png": "no file",
    }.items():
        assert [reason in line for line in failed if f"{photos}/{name}" in line] == [True]
    names = ["a.jpg", "a.png", "folder.png/d.png", "linked/c.png", "sub/b.png"]
    assert files_below(tmp_path / "out") == [f"{name}.safetensors" for name in names]


def test_a_picture_is_never_written_over_a_photo(photos, run_tool):
    Image.fromarray(CAT[:50, :50]).save(photos / "a.jpg.png")
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    for force in ([], ["--force"]):
        status, _, errors = run_tool(TOOL.name, photos, "--out", photos, "--plot", *SMALL, *force)
        assert (status, "a.jpg.png would be written over the input" in errors) == (2, True), errors
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_photo_for_which_the_memory_is_not_enough_is_passed_over(
    extractor, photos, tmp_path, monkeypatch, batch_size
):
    forward = extractor.model.forward

    def forward_small(x):
        if x.shape[0] * x.shape[2] > 64:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return forward(x)

    monkeypatch.setattr(extractor.model, "forward", forward_small)
    Image.fromarray(CAT[:80, :80]).save(photos / "large.png")
    summary = extract_to_files(extractor, plan_outputs([photos], tmp_path / "out"), settings={}, batch_size=batch_size)
    assert summary.written == 3
    assert summary.failed == [
        (
            str(photos / "large.png"),
            f"the memory is not enough for {photos / 'large.png'} (80x80 pixels); see --max-size",
        )
    ]


def test_resume_does_not_take_another_folders_image_of_that_name_for_done(extractor, photos, tmp_path):
    extract_to_files(extractor, plan_outputs([photos], tmp_path / "out"), settings={})
    photos.rename(tmp_path / "others")
    outputs = plan_outputs([tmp_path / "others"], tmp_path / "out")
    summary = extract_to_files(extractor, outputs, settings={}, resume=True)
    assert (summary.written, summary.skipped) == (3, 0)


def test_pictures_of_an_earlier_run_are_no_photos(extractor, photos):
    outputs = plan_outputs([photos], photos)
    extract_to_files(extractor, outputs, settings={}, plot=True)
    assert plan_outputs([photos], photos) == outputs
    assert len(plan_outputs([f"{photos}/**/*.png"], "out")) == 2


def test_the_tool_reports_bad_files_in_its_exit_status(photos, tmp_path, run_tool):
    arguments = (photos, "--out", tmp_path / "out", "--plot", *SMALL)
    status, output, errors = run_tool(TOOL.name, *arguments)
    assert status == 0, errors
    assert "RANDOM weights (seed 0), 3 images" in output
    assert "3 written, 0 skipped (done before), 0 failed" in output
    assert len(files_below(tmp_path / "out")) == 6
    add_bad_files(photos)
    status, output, errors = run_tool(TOOL.name, *arguments, "--resume")
    assert status == 1
    assert "0 written, 3 skipped (done before), 2 failed" in output
    assert [line.rpartition(" as an image")[0] for line in errors.splitlines() if line.startswith("failed")] == [
        f"failed: cannot read {photos / name}" for name in ("bad.png", "sub/page.jpg")
    ]


@pytest.mark.parametrize(("leaked", "value"), [("RANK", "0"), ("WORLD_SIZE", "2")])
def test_half_of_a_launchers_environment_starts_nothing(photos, tmp_path, monkeypatch, run_tool, leaked, value):
    monkeypatch.setenv(leaked, value)
    status, output, errors = run_tool(TOOL.name, photos / "sub", "--out", tmp_path / "out", *SMALL)
    assert status == 0, errors
    assert "1 written" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_lets_the_file_in_work_be_finished(extractor, photos, tmp_path, number):
    before = signal.getsignal(number)
    outputs = plan_outputs([photos], tmp_path / "out")
    # Sent while the first file, which is none, is reported.
    (photos / "a.jpg").write_bytes(b"no image")
    with pytest.raises(KeyboardInterrupt):
        extract_to_files(extractor, outputs, settings={}, batch_size=1, report=lambda _: signal.raise_signal(number))
    assert files_below(tmp_path / "out") == ["a.png.safetensors"]
    assert signal.getsignal(number) is before


def test_folders_are_extracted_in_threads_too(extractor, photos, tmp_path):
    outputs = plan_outputs([photos], tmp_path / "out")
    with ThreadPoolExecutor() as pool:
        assert pool.submit(extract_to_files, extractor, outputs, settings={}).result().written == 3


def test_the_tool_takes_a_detectors_backbone_with_its_own_sizes(photos, tmp_path, run_tool):
    detector = create_backbone("focalnet_tiny_srf", focal_windows=[9, 9, 9, 9], out_features=["stage1", "stage3"])
    weights = {f"backbone.bottom_up.{name}": tensor for name, tensor in detector.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "detector.pth")
    arguments = ("--weights", tmp_path / "detector.pth", "--variant", "focalnet_tiny_srf", "--out", tmp_path / "out")
    status, _, errors = run_tool(TOOL.name, photos / "a.png", *arguments, "--out-features", "stage1", "stage3")
    assert status == 0, errors
    written, expected = (
        FeaturePyramid.load(tmp_path / "out" / "a.png.safetensors"),
        FeatureExtractor(detector)(CAT[:64, :80]),
    )
    assert list(written) == list(expected)
    assert all(torch.equal(written[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no image at nowhere"),
        ([".", "--variant", "focalnet_tiny"], "Did you mean 'focalnet_tiny_srf'"),
        ([".", "--out-features", "stage9"], "['stage9'], which are not among"),
        ([".", "--max-size", "-1"], "max_size must be a positive int"),
        ([".", "--batch-size", "0"], "batch_size must be an int of at least 1"),
        ([".", "--dtype", "int8"], "argument --dtype: invalid choice"),
    ],
)
def test_the_tool_answers_a_wrong_argument_in_one_line(photos, tmp_path, monkeypatch, run_tool, arguments, message):
    monkeypatch.chdir(photos)
    status, _, errors = run_tool(TOOL.name, *arguments, "--out", tmp_path / "out")
    assert status == 2
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_two_processes_share_the_work(photos, tmp_path, run_tool, warm_environment):
    add_bad_files(photos)
    no_text = photos / os.fsdecode(b"\xff.png")
    no_text.write_bytes(b"no image, and a name that cannot be printed as it is")
    python = str(warm_environment / "bin" / "python")
    launcher = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(TOOL), str(photos), "--out", str(tmp_path / "out"), *SMALL]
    variables = {**os.environ, "PYTHON_EXEC": python}  # That of torchrun's processes.
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert "3 written, 0 skipped (done before), 3 failed" in result.stdout
    assert result.returncode == 1
    assert r"photos/\udcff.png" in result.stderr
    no_text.unlink()
    run_tool(TOOL.name, photos, "--out", tmp_path / "alone", *SMALL)
    assert files_below(tmp_path / "out") == files_below(tmp_path / "alone")
    for name in files_below(tmp_path / "out"):
        shared, single = (FeaturePyramid.load(tmp_path / folder / name) for folder in ("out", "alone"))
        assert all(torch.allclose(shared[key], single[key], atol=1e-4) for key in single)


def test_an_interrupted_run_leaves_only_whole_files(photos, tmp_path):
    for i in range(2000):
        os.link(photos / "a.png", photos / f"copy{i}.png")
    out = tmp_path / "out"
    command = [sys.executable, str(TOOL), str(photos), "--out", str(out), "--batch-size", "1", *SMALL]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out.is_dir() and len(files_below(out)) > 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in stderr
    written = files_below(out)
    assert 3 < len(written) < 2003
    for name in written:
        assert list(FeaturePyramid.load(out / name)) == ["stage1"]
