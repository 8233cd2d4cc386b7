"""What the network sees: against the paper's equations, on every kind of model, and the command line that draws it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from focalnet_backbone import FocalNet, FocalNetConfig, create_backbone, list_variants
from focalnet_backbone.features.images import normalize, to_rgb
from focalnet_backbone.features.to_files import plan_outputs
from focalnet_backbone.models import (
    FocalNetForImageClassification,
    FocalNetForMaskedImageModeling,
    FocalNetModel,
)
from focalnet_backbone.pictures import (
    draw_gates,
    draw_kernels,
    draw_modulators,
    read_kernels,
    watch_modulation,
)

TOOL = "visualize.py"
CAT = skimage.data.chelsea()
SMALL = {"embed_dim": 8, "depths": [1, 2], "focal_levels": [3, 2], "focal_windows": [3, 5]}


def make_model(**knobs) -> FocalNet:
    torch.manual_seed(0)
    model = FocalNet(**{**SMALL, "drop_path_rate": 0.5, **knobs}, out_indices=[1, 2])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.double()


class Paper:
    """A FocalNet by the paper's equations: windows as sums over shifts and linear layers as products.

    Notes the gates `(N, H, W, L + 1)` and modulators `(N, H, W, C)` of each block, by stage and block from 1.
    """

    def __init__(self, model: FocalNet) -> None:
        self.weights = dict(model.named_parameters())
        self.config = model.config
        self.gates: dict = {}
        self.modulators: dict = {}

    def run(self, x: torch.Tensor) -> None:
        """Images `(N, 3, H, W)`."""
        x = self.embed("patch_embed", x.permute(0, 2, 3, 1), 4)
        for stage, depth in enumerate(self.config.depths):
            if stage > 0:
                x = self.embed(f"layers.{stage - 1}.downsample", x, 2)
            for block in range(depth):
                name = f"layers.{stage}.blocks.{block}"
                x = x + self.modulate(stage, block, self.normalise(f"{name}.norm1", x))
                hidden = F.gelu(self.linear(f"{name}.mlp.fc1", self.normalise(f"{name}.norm2", x)))
                x = x + self.linear(f"{name}.mlp.fc2", hidden)

    def modulate(self, stage: int, block: int, x: torch.Tensor) -> torch.Tensor:
        name = f"layers.{stage}.blocks.{block}.modulation"
        query, context, gates = self.linear(f"{name}.f", x).tensor_split([x.shape[-1], 2 * x.shape[-1]], dim=-1)
        total = 0
        for level in range(self.config.focal_levels[stage]):
            kernel = self.weights[f"{name}.focal_layers.{level}.0.weight"][:, 0]
            context = F.gelu(self.correlate(context, kernel))
            total = total + context * gates[..., [level]]
        total = total + F.gelu(context.mean((1, 2), keepdim=True)) * gates[..., [-1]]
        if self.config.normalize_modulator:
            total = total / (self.config.focal_levels[stage] + 1)
        modulator = total @ self.weights[f"{name}.h.weight"][:, :, 0, 0].T + self.weights[f"{name}.h.bias"]
        self.gates[stage + 1, block + 1] = gates
        self.modulators[stage + 1, block + 1] = modulator
        return self.linear(f"{name}.proj", query * modulator)

    def correlate(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        reach = kernel.shape[-1] // 2
        padded = F.pad(x, (0, 0, reach, reach, reach, reach))
        _, height, width, _ = x.shape
        shifts = [(dy, dx) for dy in range(kernel.shape[-1]) for dx in range(kernel.shape[-1])]
        return sum(padded[:, dy : dy + height, dx : dx + width] * kernel[:, dy, dx] for dy, dx in shifts)

    def embed(self, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        n, height, width, channels = x.shape
        patches = x.reshape(n, height // stride, stride, width // stride, stride, channels)
        x = torch.einsum("nyaxbc,dcab->nyxd", patches, self.weights[f"{name}.proj.weight"])
        return self.normalise(f"{name}.norm", x + self.weights[f"{name}.proj.bias"])

    def normalise(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("normalize_modulator", [False, True])
@pytest.mark.parametrize("block", [None, 1])
def test_gates_and_modulators_are_those_of_the_papers_equations(block, normalize_modulator):
    model = make_model(normalize_modulator=normalize_modulator)
    paper = Paper(model)
    paper.run(images(2, 3, 32, 48))
    views = watch_modulation(model, images(2, 3, 32, 48), block=block)
    assert [(view.stage, view.block, view.stride) for view in views] == [(1, 1, 4), (2, block or 2, 8)]
    for view in views:
        gates, modulator = paper.gates[view.stage, view.block], paper.modulators[view.stage, view.block]
        torch.testing.assert_close(view.gates, gates.detach().permute(0, 3, 1, 2), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(view.modulator, modulator.detach().permute(0, 3, 1, 2), rtol=1e-9, atol=1e-9)
        magnitude = modulator.detach().square().sum(-1).sqrt()
        torch.testing.assert_close(view.magnitude, magnitude, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", [FocalNetModel, FocalNetForImageClassification, FocalNetForMaskedImageModeling])
def test_models_with_heads_show_what_the_backbone_with_their_weights_shows(cls):
    torch.manual_seed(0)
    model = cls(FocalNetConfig(**SMALL, encoder_stride=8))
    backbone = FocalNet(model.config, out_indices=[1, 2])
    backbone.load_state_dict(model.state_dict(), strict=False)
    pixels = torch.randn(1, 3, 32, 32)
    for seen, expected in zip(watch_modulation(model, pixels), watch_modulation(backbone, pixels), strict=True):
        assert torch.equal(seen.gates, expected.gates)
        assert torch.equal(seen.modulator, expected.modulator)


def test_the_model_is_left_as_it_was():
    model = make_model().train()
    model.layers[0].eval()
    before = {name: (module.training, set(vars(module))) for name, module in model.named_modules()}
    first = watch_modulation(model, images(1, 3, 32, 32))
    again = watch_modulation(model, images(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expected 3 channels"):
        watch_modulation(model, images(1, 2, 32, 32))
    assert {name: (module.training, set(vars(module))) for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    # Drop path would make a difference in train mode.
    assert torch.equal(first[1].modulator, again[1].modulator)
    assert not first[1].modulator.requires_grad


def test_a_model_inside_another_is_found():
    model = make_model()
    whole = nn.ModuleDict({"backbone": model, "head": nn.Linear(1, 1)})
    (view,) = watch_modulation(whole, images(1, 3, 32, 32), [2])
    assert torch.equal(view.gates, watch_modulation(model, images(1, 3, 32, 32), [2])[0].gates)
    assert torch.equal(read_kernels(whole, 1)[0].levels[0], read_kernels(model, 1)[0].levels[0])
    with pytest.raises(TypeError, match="holds no FocalNet: Linear"):
        watch_modulation(whole["head"], images(1, 3, 32, 32))
    with pytest.raises(ValueError, match="holds 2 FocalNets"):
        read_kernels(nn.ModuleList([model, make_model()]), 1)


@pytest.mark.parametrize(
    ("stages", "block", "message"),
    [
        ([3], None, "stage must be from 1 to 2, got 3"),
        ([0], None, "stage must be from 1 to 2, got 0"),
        (None, 2, "block must be from 1 to 1 in stage 1, got 2"),
    ],
)
def test_a_stage_or_block_that_there_is_not_is_named(stages, block, message):
    with pytest.raises(ValueError, match=message):
        watch_modulation(make_model(), images(1, 3, 32, 32), stages, block)


def test_a_stage_that_the_backbone_does_not_build_is_named():
    model = FocalNet(**SMALL, out_features=["stage1"])
    assert [view.stage for view in watch_modulation(model, images(1, 3, 32, 32).float())] == [1]
    message = r"stage 2 is not built in a backbone that returns \['stage1'\]"
    with pytest.raises(ValueError, match=message):
        watch_modulation(model, torch.randn(1, 3, 32, 32), stages=[2])
    with pytest.raises(ValueError, match=message):
        read_kernels(model, 2)


def test_half_precision_gives_float32_on_the_cpu():
    (view,) = watch_modulation(make_model().bfloat16(), images(1, 3, 32, 32).bfloat16(), [1])
    assert view.gates.dtype == view.modulator.dtype == torch.float32


def test_kernels_are_those_of_the_state_dict():
    model = make_model()
    weights = model.state_dict()
    kernels = read_kernels(model, 2)
    assert [(block.stage, block.block) for block in kernels] == [(2, 1), (2, 2)]
    for block in kernels:
        assert [tuple(level.shape) for level in block.levels] == [(16, 5, 5), (16, 7, 7)]
        for i, level in enumerate(block.levels):
            name = f"layers.1.blocks.{block.block - 1}.modulation.focal_layers.{i}.0.weight"
            assert torch.equal(level, weights[name].squeeze(1))
    assert [block.block for block in read_kernels(model, 2, block=1)] == [1]
    with pytest.raises(ValueError, match="block must be from 1 to 2 in stage 2, got 3"):
        read_kernels(model, 2, block=3)


def drawn_maps(figure) -> list[np.ndarray]:
    """What each panel shows on top; the colour bars are no panels of theirs."""
    return [axes.images[-1].get_array() for axes in figure.axes if axes.images and axes.get_title()]


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def colour_bars(figure) -> int:
    return sum(axes.get_label() == "<colorbar>" for axes in figure.axes)


@pytest.mark.parametrize("overlay", [False, True])
def test_pictures_show_the_maps_of_the_chosen_image(overlay):
    photos = to_rgb(CAT[:48, :64])[None].repeat(2, 1, 1, 1)
    photos[1] = photos[0].flip(2)
    views = watch_modulation(make_model(), normalize(photos, torch.double))
    figure = draw_gates(photos[1], views, index=1, overlay=overlay)
    levels = ["gate of focal level 1", "gate of focal level 2"]
    first = ["stage 1, block 1", *levels, "gate of focal level 3", "gate of global context"]
    assert titles(figure) == [*first, "stage 2, block 2", *levels, "gate of global context"]
    maps = drawn_maps(figure)
    np.testing.assert_array_equal(maps[0], photos[1].permute(1, 2, 0))
    np.testing.assert_array_equal(np.stack(maps[1:5]), views[0].gates[1])
    np.testing.assert_array_equal(np.stack(maps[6:]), views[1].gates[1])
    assert colour_bars(figure) == 2

    figure = draw_modulators(photos[1], views, index=1, overlay=overlay)
    assert titles(figure) == ["image, 64x48 px", "modulator, stage 1, block 1", "modulator, stage 2, block 2"]
    np.testing.assert_array_equal(drawn_maps(figure)[2], views[1].magnitude[1])
    assert colour_bars(figure) == 2


def test_maps_lie_where_they_belong_on_a_photo_of_an_odd_size():
    photo = to_rgb(CAT[:37, :50])
    views = watch_modulation(make_model(), normalize(photo[None], torch.double))
    panel = draw_modulators(photo, views).axes[2]
    # Stage 2 has stride 8: 5 x 7 positions over 40 x 56 pixels, cut to the photo's.
    assert panel.images[0].get_extent() == [0, 56, 40, 0]
    assert (panel.get_xlim(), panel.get_ylim()) == ((0, 50), (37, 0))


def test_the_kernel_picture_shows_the_strongest_kernels_first():
    model = make_model()
    with torch.no_grad():
        model.layers[1].blocks[0].modulation.focal_layers[0][0].weight[5] = 7.0
    kernels = read_kernels(model, 2)
    figure = draw_kernels(kernels, channels=9)
    assert titles(figure) == [f"stage 2, block {b}, level {i}: {k}x{k}" for b in (1, 2) for i, k in ((1, 5), (2, 7))]
    mosaic = drawn_maps(figure)[0]
    assert mosaic.shape == (17, 17)
    assert (mosaic[:5, :5] == 7).all()
    assert np.ma.masked_invalid(mosaic).mask[5].all()
    norms = kernels[0].levels[0].flatten(1).norm(dim=1).sort(descending=True).values
    np.testing.assert_allclose(np.linalg.norm(mosaic[6:11, 6:11]), norms[4], rtol=1e-12)
    assert colour_bars(figure) == 4


@pytest.mark.parametrize("channels", [1, 3, 16, 100])
def test_any_number_of_kernels_can_be_drawn(channels, tmp_path):
    draw_kernels(read_kernels(make_model(), 1), channels=channels).savefig(tmp_path / "kernels.png")


@pytest.mark.parametrize("size", [(1, 1), (300, 3), (3, 300)])
def test_photos_of_any_size_can_be_drawn(size, tmp_path):
    photo = torch.zeros(3, *size, dtype=torch.uint8)
    views = watch_modulation(make_model(), normalize(photo[None], torch.double))
    for draw in (draw_gates, draw_modulators):
        draw(photo, views, overlay=True).savefig(tmp_path / "map.png")
        assert Image.open(tmp_path / "map.png").size[0] > 300


@pytest.mark.parametrize("name", list_variants("*_tiny_*"))
def test_published_variants_can_be_watched(name):
    model = create_backbone(name)
    views = watch_modulation(model, torch.zeros(1, 3, 64, 64))
    for view, levels, channels in zip(views, model.config.focal_levels, model.config.stage_channels, strict=True):
        assert view.gates.shape[1] == levels + 1
        assert view.modulator.shape == (1, channels, 64 // view.stride, 64 // view.stride)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(CAT[:64, :80]).save(folder / "a.png")
    Image.fromarray(CAT[:40, :48]).save(folder / "sub" / "b.jpg")
    return folder


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_tool_writes_three_pictures(photos, tmp_path, run_tool):
    out = tmp_path / "out"
    status, output, errors = run_tool(TOOL, photos, "--out", out, "--stage", 1, 4, "--overlay", "--max-size", 48)
    assert status == 0, errors
    assert "RANDOM weights (seed 0), 2 images" in output
    assert "2 images drawn, 0 failed" in output
    pictures = [f"{name}.{what}.png" for name in ("a.png", "sub/b.jpg") for what in ("gates", "modulator")]
    assert names_below(out) == sorted([*pictures, "kernels_stage1.png", "kernels_stage4.png"])
    assert all(Image.open(out / name).format == "PNG" for name in names_below(out))


def test_the_tool_draws_kernels_without_images(tmp_path, run_tool):
    arguments = ("--what", "kernels", "--stage", 3, "--block", 2, "--out", tmp_path)
    status, output, errors = run_tool(TOOL, *arguments, "--variant", "focalnet_tiny_srf")
    assert status == 0, errors
    assert output.endswith(f"kernels drawn, to {tmp_path}\n")
    assert names_below(tmp_path) == ["kernels_stage3.png"]


def test_the_tools_pictures_are_no_photos_of_the_next_run(photos, run_tool):
    run_tool(TOOL, photos, "--out", photos, "--what", "modulator", "--stage", 1, "--max-size", 32)
    assert len(names_below(photos)) == 4
    assert len(plan_outputs([photos], "out")) == 2


def test_the_tool_reports_a_bad_file_and_draws_the_rest(photos, tmp_path, run_tool):
    (photos / "page.jpg").write_text("<html></html>")
    arguments = (photos, "--out", tmp_path / "out", "--what", "gates", "--stage", 1, "--max-size", 32)
    status, output, errors = run_tool(TOOL, *arguments)
    assert status == 1
    assert "visualize.py: cannot read" in errors
    assert "page.jpg" in errors
    assert "2 images drawn, 1 failed" in output


def test_the_tool_draws_a_detectors_weights_with_their_own_sizes(photos, tmp_path, run_tool):
    """As a detector's checkpoint has them: under a prefix, beside a head, with larger kernels."""
    model = create_backbone("focalnet_tiny_srf", depths=[1, 1, 1], focal_windows=[9, 9, 9], embed_dim=8)
    weights = {f"backbone.bottom_up.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": {**weights, "roi_heads.weight": torch.zeros(2)}}, tmp_path / "detector.pth")
    arguments = (photos, "--weights", tmp_path / "detector.pth", "--out", tmp_path / "out", "--max-size", 32)
    status, _, errors = run_tool(TOOL, *arguments)
    assert status == 2
    assert "name one of the same family" in errors
    status, _, errors = run_tool(TOOL, *arguments, "--variant", "focalnet_tiny_srf")
    assert status == 0, errors
    assert sum(name.startswith("kernels_stage") for name in names_below(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no image at nowhere"),
        ([], "no images given to draw gates and modulator of; --what kernels needs none"),
        ([".", "--variant", "focalnet_tiny"], "Did you mean 'focalnet_tiny_srf'"),
        ([".", "--weights", "nothing.pth"], "no checkpoint at nothing.pth"),
        ([".", "--weights", "pretrained"], "(--weights pretrained) need a variant"),
        ([".", "--stage", "5"], "stage must be from 1 to 4, got 5"),
        ([".", "--block", "3"], "block must be from 1 to 2 in stage 1, got 3"),
        ([".", "--block", "0"], "argument --block: must be a whole number of at least 1, got '0'"),
        ([".", "--what", "queries"], "argument --what: invalid choice"),
        ([".", "--device", "gpu"], "gpu"),
    ],
)
def test_the_tool_answers_a_wrong_argument_in_one_line(photos, tmp_path, monkeypatch, run_tool, arguments, message):
    monkeypatch.chdir(photos)
    status, _, errors = run_tool(TOOL, *arguments, "--out", tmp_path / "out")
    assert status == 2
    assert message in errors.splitlines()[-1]
    assert not (tmp_path / "out").exists()
