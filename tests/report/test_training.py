"""The page of a training, in a real browser."""

from __future__ import annotations

import pytest
from PIL import Image

from focalnet_backbone.command.report import main
from tests.report.test_detection import BOXES, truth, write  # noqa: F401  (a fixture)
from tests.report.test_runs import detectron2_run, mmengine_run, write_lines  # noqa: F401  (fixtures)


def open_page(page, path) -> None:
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.main-svg').length > 0")


def test_a_detectors_page_shows_curves_config_and_what_it_finds(page, tmp_path, truth, detectron2_run):  # noqa: F811
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("0.jpg", "1.jpg"):
        Image.new("RGB", (64, 64), "grey").save(photos / name)
    found = write(tmp_path, (1, "0.jpg", 7, BOXES["ball"], 0.9), (2, "1.jpg", 9, [0, 44, 20, 20], 0.7))
    options = ["--annotations", str(truth), "--predictions", str(found), "--images", str(photos)]
    out = tmp_path / "page.html"
    assert main([str(detectron2_run), *options, "--out", str(out)]) == 0
    open_page(page, out)
    assert "40 of 80 iterations, not ended" in page.content()
    curves = page.evaluate("Array.from(document.querySelectorAll('.js-plotly-plot')).flatMap(p => p.data)")
    (loss,) = [curve for curve in curves if curve.get("name") == "loss"]
    assert (list(loss["x"]), list(loss["y"])) == ([20, 40], [3.0, 2.0])
    assert page.locator("td", has_text="SOLVER.MAX_ITER").count() == 1
    pictures = page.locator("figure img")
    assert pictures.count() == 3
    assert all(page.evaluate("Array.from(document.images).map(image => image.naturalWidth > 100)"))
    assert "star 0.70 (background)" in page.locator("figcaption").last.inner_text()


def test_several_trainings_stand_in_one_plot_with_their_differences(
    page,
    tmp_path,
    detectron2_run,  # noqa: F811
    mmengine_run,  # noqa: F811
):
    other = write_lines(tmp_path / "other" / "mask_rcnn" / "metrics.json", {"iteration": 9, "total_loss": 1.0}).parent
    out = tmp_path / "page.html"
    assert main([str(detectron2_run), str(other), str(mmengine_run), "--out", str(out)]) == 0
    open_page(page, out)
    plots = "Array.from(document.querySelectorAll('.js-plotly-plot'))"
    names = page.evaluate(f"{plots}.flatMap(plot => plot.data.map(curve => curve.name))")
    assert {f"{tmp_path.name}/mask_rcnn: loss", "other/mask_rcnn: loss", f"{tmp_path.name}/upernet: loss"} <= set(names)
    assert "Where the configs differ" in page.content()


def test_names_of_trainings_are_text_not_markup(page, tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    name = "<script>document.title='taken'</script>loss"
    write_lines(folder / "metrics.json", {"iteration": 9, "total_loss": 1.0, name: 2.0})
    out = tmp_path / "page.html"
    assert main([str(folder), "--out", str(out)]) == 0
    open_page(page, out)
    assert page.title() == folder.name
    assert page.locator("h1 img").count() == 0


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen(page, tmp_path, detectron2_run, width):  # noqa: F811
    assert main([str(detectron2_run), "--out", str(tmp_path / "page.html")]) == 0
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, tmp_path / "page.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no folder nowhere"),
        (["empty"], "no training in empty"),
        (["run", "--predictions", "found.json"], "--predictions and --annotations go together"),
        (["run", "--predictions", "found.json", "--annotations", "none.json"], "no file none.json"),
        (["run", "--predictions", "empty", "--annotations", "found.json"], "must be the one of the true ones"),
        (["run", "--out", "mine.html"], "--force replaces it"),
    ],
)
def test_wrong_arguments_get_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "run" / "metrics.json", {"iteration": 9, "total_loss": 1.0})
    (tmp_path / "empty").mkdir()
    (tmp_path / "found.json").write_text("[]")
    (tmp_path / "mine.html").write_text("mine")
    assert main(arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("focalnet report: ")
    assert message in last
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert not list(tmp_path.rglob("report.html"))
