"""FeatureExtractor and FeaturePyramid: photos in, pyramids out, to files and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file

from focalnet_backbone import FeatureExtractor, FeaturePyramid, FocalNet
from focalnet_backbone.features.images import load_image, normalize, to_rgb

CAT, WOMAN = skimage.data.chelsea(), skimage.data.astronaut()


def backbone(**knobs) -> FocalNet:
    torch.manual_seed(0)
    return FocalNet(**{"embed_dim": 8, "depths": [1, 1, 1, 1], "out_indices": [1, 2, 3, 4], **knobs})


@pytest.fixture
def extractor() -> FeatureExtractor:
    return FeatureExtractor(backbone())


def test_a_pyramid_holds_what_the_backbone_answers(extractor):
    pyramid = extractor(CAT)
    with torch.no_grad():
        expected = extractor.model(normalize(to_rgb(CAT), torch.float32)[None])
    assert list(pyramid) == ["stage1", "stage2", "stage3", "stage4"]
    assert pyramid.image_size == (300, 451)
    assert pyramid.strides == {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
    assert pyramid.channels == {"stage1": 8, "stage2": 16, "stage3": 32, "stage4": 64}
    for name, feature in pyramid.items():
        stride = pyramid.strides[name]
        assert feature.shape[1:] == (math.ceil(300 / stride), math.ceil(451 / stride))
        torch.testing.assert_close(feature, expected[name][0])


def test_a_variant_gives_all_its_stages_by_default():
    pyramid = FeatureExtractor("focalnet_tiny_srf", max_size=64)(CAT)
    assert pyramid.channels == {"stage1": 96, "stage2": 192, "stage3": 384, "stage4": 768}
    assert pyramid.image_size == (43, 64)


def test_an_images_features_do_not_depend_on_its_neighbours(tmp_path):
    extractor = FeatureExtractor(backbone(), dtype=torch.float64)
    Image.fromarray(WOMAN).save(tmp_path / "woman.png")
    images = [CAT, to_rgb(WOMAN), Image.fromarray(CAT[:, ::-1].copy()), tmp_path / "woman.png", CAT]
    for batch_size in (1, 2, 8):
        together = extractor(images, batch_size=batch_size)
        for image, pyramid in zip(images, together, strict=True):
            alone = extractor(image)
            for name in alone:
                torch.testing.assert_close(pyramid[name], alone[name], rtol=1e-11, atol=1e-11)


def test_an_empty_list_gives_an_empty_list(extractor):
    assert extractor([]) == []


def test_a_stream_yields_the_files_in_order(extractor, tmp_path):
    for i, size in enumerate([40, 64, 40, 33, 64]):
        Image.fromarray(CAT[:size, :50]).save(tmp_path / f"{i}.png")
    for num_workers in (0, 2):
        pyramids = list(extractor.stream(tmp_path, batch_size=2, num_workers=num_workers))
        assert [pyramid.image_size[0] for pyramid in pyramids] == [40, 64, 40, 33, 64]
        assert [pyramid.metadata["source"] for pyramid in pyramids] == [str(tmp_path / f"{i}.png") for i in range(5)]
        torch.testing.assert_close(pyramids[3]["stage4"], extractor(load_image(tmp_path / "3.png"))["stage4"])


def test_a_stream_limits_the_size_as_a_call_does(tmp_path):
    Image.fromarray(CAT).save(tmp_path / "a.png")
    (pyramid,) = FeatureExtractor(backbone(), max_size=100).stream(tmp_path)
    assert pyramid.image_size == (67, 100)


def test_a_stream_reads_no_further_than_it_is_asked(extractor, tmp_path):
    Image.fromarray(CAT).save(tmp_path / "a.png")
    stream = extractor.stream([tmp_path / "a.png", tmp_path / "missing.png"], batch_size=1)
    assert next(stream).image_size == (300, 451)
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        next(stream)


def test_a_bad_file_of_a_stream_can_be_left_out(extractor, tmp_path):
    Image.fromarray(CAT).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    failures = []
    pyramids = list(extractor.stream(tmp_path, on_error=lambda path, error: failures.append((path.name, str(error)))))
    assert len(pyramids) == 1
    assert failures[0][0] == "a.png"
    assert "cannot read" in failures[0][1]


def test_with_fpn_every_level_has_the_same_channels():
    extractor = FeatureExtractor(backbone(), with_fpn=12)
    pyramid, plain = extractor(CAT), FeatureExtractor(backbone())(CAT)
    assert pyramid.channels == dict.fromkeys(plain, 12)
    assert all(pyramid[name].shape[1:] == plain[name].shape[1:] for name in plain)
    # The top level of torchvision's network is its lateral, then its output convolution of the last map.
    lateral = extractor.fpn.inner_blocks[-1](plain["stage4"][None])
    torch.testing.assert_close(pyramid["stage4"], extractor.fpn.layer_blocks[-1](lateral)[0])


def test_dtype_changes_the_type_of_the_maps():
    pyramid = FeatureExtractor(backbone(), dtype=torch.bfloat16)(CAT)
    assert all(feature.dtype == torch.bfloat16 for feature in pyramid.values())


def test_a_pyramid_is_read_only_and_names_what_it_has(extractor):
    pyramid = extractor(CAT[:32, :32])
    with pytest.raises(TypeError):
        pyramid["stage1"] = torch.zeros(1)
    with pytest.raises(KeyError, match="no feature map 'stage9'; there are"):
        pyramid["stage9"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_pyramid_comes_back_whole(tmp_path, dtype):
    pyramid = FeatureExtractor(backbone(), dtype=dtype)(CAT)
    pyramid.metadata["note"] = "a cat"
    path = pyramid.save(tmp_path / "new" / "cat.safetensors")
    loaded = FeaturePyramid.load(path)
    assert list(loaded) == list(pyramid)
    assert all(torch.equal(loaded[name], pyramid[name]) for name in pyramid)
    assert torch.equal(loaded.image, to_rgb(CAT))
    assert (loaded.strides, loaded.metadata) == (pyramid.strides, {"note": "a cat"})
    assert [file.name for file in path.parent.iterdir()] == ["cat.safetensors"]


def test_a_pyramid_keeps_its_photo_when_the_array_is_used_again(extractor):
    frame = CAT.copy()
    pyramid = extractor(frame)
    frame[:] = 0
    assert torch.equal(pyramid.image, to_rgb(CAT))


def test_a_saved_pyramid_can_be_read_by_whom_the_umask_allows(extractor, tmp_path):
    (tmp_path / "other").touch()
    path = extractor(CAT[:8, :8]).save(tmp_path / "cat.safetensors")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_holds_no_pyramid_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature pyramid at"):
        FeaturePyramid.load(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no feature pyramid, but \['weight'\]"):
        FeaturePyramid.load(tmp_path / "other.safetensors")
    header = {"format": "focalnet-backbone feature pyramid", "strides": '{"stage1": 4}', "metadata": "{}"}
    save_file({"image": torch.zeros(3, 4, 4)}, tmp_path / "damaged.safetensors", metadata=header)
    with pytest.raises(ValueError, match=r"holds a damaged feature pyramid: KeyError\('stage1'\)"):
        FeaturePyramid.load(tmp_path / "damaged.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        FeaturePyramid.load(tmp_path / "cut.safetensors")


def test_the_plot_has_the_photo_and_a_panel_a_map(extractor):
    figure = extractor(CAT).plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "image, 451x300 px"
    assert titles[1:] == [
        "stage1: 8 x 75 x 113, stride 4",
        "stage2: 16 x 38 x 57, stride 8",
        "stage3: 32 x 19 x 29, stride 16",
        "stage4: 64 x 10 x 15, stride 32",
    ]
    for axes in figure.axes:
        assert len(axes.images) == 1
        # All panels share the photo's coordinates.
        assert (axes.get_xlim(), axes.get_ylim()) in [((-0.5, 450.5), (299.5, -0.5)), ((0, 451), (300, 0))]


def test_a_panel_shows_the_three_principal_components():
    torch.manual_seed(0)
    feature = torch.randn(6, 8, 9) * torch.tensor([1, 5, 1, 9, 1, 3.0])[:, None, None]
    figure = FeaturePyramid({"a": feature}, {"a": 4}, torch.zeros(3, 32, 36, dtype=torch.uint8)).plot()
    drawn = figure.axes[1].images[0].get_array().reshape(-1, 3)
    assert (drawn.min(), drawn.max()) == (0, 1)
    flat = feature.flatten(1).T.numpy()
    components = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[0][:, :3]
    for channel in range(3):
        # But for the clipping of the outermost 2 %, and up to its sign.
        assert abs(np.corrcoef(drawn[:, channel], components[:, channel])[0, 1]) > 0.99


def test_a_very_tall_photo_can_be_drawn(extractor, tmp_path):
    extractor(CAT[:, :1].repeat(10, 0)).plot().savefig(tmp_path / "tall.png")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model_or_variant": "focalnet_tiny"}, KeyError, "Did you mean 'focalnet_tiny_srf'"),
        (
            {"model_or_variant": torch.nn.Conv2d(3, 3, 1)},
            TypeError,
            "expected a variant's name or a FocalNet, got Conv2d",
        ),
        ({"out_features": ["stage1"]}, ValueError, "but the model returns"),
        ({"max_size": 0}, ValueError, "max_size must be a positive int or None, got 0"),
        ({"with_fpn": 256.0}, ValueError, "with_fpn must be a positive int"),
        ({"dtype": "float16"}, TypeError, r"dtype must be one of torch\.float32, .*, got 'float16'"),
        ({"dtype": torch.int8}, TypeError, r"dtype must be one of .*, got torch\.int8"),
        ({"dtype": torch.float8_e4m3fn}, TypeError, r"dtype must be one of .*, got torch\.float8_e4m3fn"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        FeatureExtractor(**{"model_or_variant": backbone(), **arguments})


def test_a_wrong_batch_size_or_number_of_workers_is_named(extractor):
    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, got 0"):
        extractor([CAT], batch_size=0)
    with pytest.raises(ValueError, match="num_workers must be an int of at least 0, got -1"):
        next(extractor.stream([], num_workers=-1))
