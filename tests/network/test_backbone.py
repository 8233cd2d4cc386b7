"""FocalNet: reference vectors, shapes, invariances, and the ways in which torch may run it."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.export import Dim

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.network.blocks import DropPath
from tests.conftest import knobs_from_reference, load_golden

TINY = {"embed_dim": 8, "depths": [1, 1, 2, 1]}
SMALLEST = {"embed_dim": 4, "depths": [1, 1]}
CONV_STEM = {"use_conv_embed": True, "use_post_layernorm": True, "use_layerscale": True, "layerscale_value": 0.5}
ALL_STAGES = ["stage1", "stage2", "stage3", "stage4"]
STEMS = pytest.mark.parametrize("stem", [{}, CONV_STEM], ids=["patches", "convolution"])


def build(**knobs) -> FocalNet:
    torch.manual_seed(0)
    return FocalNet(**{**TINY, **knobs})


def assert_same_maps(found: dict, expected: dict, **tolerance) -> None:
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **tolerance)


# What the published implementations answer


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("name", ["srf", "lrf_odd_size", "windows_11_9_9_7_indices_1_2_3", "dino_large"])
def test_downstream_reference_vectors(name, dtype, tolerance):
    golden = load_golden(f"downstream_{name}")
    indices = [i + 1 for i in golden["kwargs"].get("out_indices", range(4))]
    model = FocalNet(out_indices=indices, **knobs_from_reference(golden["kwargs"]))
    model.load_state_dict(golden["state_dict"], strict=True)
    maps = model.eval().to(dtype)(golden["input"].to(dtype))
    assert list(maps) == [f"stage{i}" for i in indices]
    for found, expected in zip(maps.values(), golden["features"], strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


def test_the_stems_padding_is_the_one_chosen():
    model = build(use_conv_embed=True, conv_embed_stem_padding=3, out_features=["stem"])
    x = torch.zeros(1, 3, 16, 16)
    x[..., 0, 0] = 1
    # With a padding of 3, the first window's centre is the corner pixel.
    found = model.patch_embed.proj(x)[0, :, 0, 0] - model.patch_embed.proj.bias
    torch.testing.assert_close(found, model.patch_embed.proj.weight[:, :, 3, 3].sum(1))


# Shapes and invariances


@STEMS
@given(height=st.integers(1, 70), width=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_maps_have_the_promised_sizes_for_every_input_size(stem, height, width):
    model = FocalNet(**TINY, **stem, out_features=["stem", *ALL_STAGES])
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, height, width))
    for name, feature in maps.items():
        stride = model.strides[name]
        expected = (1, model.channels[name], math.ceil(height / stride), math.ceil(width / stride))
        assert tuple(feature.shape) == expected


def test_channels_and_strides_describe_the_outputs():
    model = build(out_indices=[0, 2, 4])
    assert model.out_features == ["stem", "stage2", "stage4"]
    assert model.channels == {"stem": 8, "stage2": 16, "stage4": 64}
    assert model.strides == {"stem": 4, "stage2": 8, "stage4": 32}


@pytest.mark.parametrize(
    "knobs",
    [
        {"depths": [2], "patch_size": 16},
        {"depths": [1] * 6, "image_size": 256},
        {"num_channels": 1},
        {"depths": [1, 1], "focal_levels": [1, 4], "focal_windows": [1, 11]},
    ],
    ids=["isotropic", "six stages", "greyscale", "levels and windows differ"],
)
def test_unusual_architectures_run(knobs):
    model = build(**knobs)
    x = torch.randn(2, model.config.num_channels, 40, 64)
    ((name, feature),) = model(x).items()
    assert name == f"stage{len(model.config.depths)}"
    assert feature.shape[1] == model.channels[name]


def test_only_output_stages_have_a_norm():
    names = {name for name, _ in build(out_indices=[0, 1, 3]).named_children()}
    assert names & {f"norm{i}" for i in range(4)} == {"norm0", "norm2"}


@STEMS
def test_every_parameter_gets_a_gradient(stem):
    model = build(**stem, out_features=ALL_STAGES, drop_path_rate=0.0)
    maps = model(torch.randn(2, 3, 64, 64))
    sum((feature * torch.randn_like(feature)).sum() for feature in maps.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@STEMS
def test_an_image_alone_is_the_same_as_within_a_batch(stem):
    model = build(**stem, out_features=ALL_STAGES).eval().double()
    x = torch.randn(3, 3, 45, 52, dtype=torch.double)
    for i in range(3):
        alone = model(x[i : i + 1])
        together = {name: feature[i : i + 1] for name, feature in model(x).items()}
        assert_same_maps(alone, together, rtol=1e-12, atol=1e-12)


@STEMS
def test_without_global_context_a_shift_by_the_stride_shifts_the_maps(stem):
    model = build(**stem, depths=[1, 1], out_features=["stage1", "stage2"]).eval().double()
    with torch.no_grad():
        for stage in model.layers:
            for block in stage.blocks:
                block.modulation.f.weight[-1] = 0
                block.modulation.f.bias[-1] = 0
    x = torch.randn(1, 3, 160, 160, dtype=torch.double)
    shifted = torch.roll(x, (8, 8), (2, 3))
    for name, feature in model(x).items():
        step = 8 // model.strides[name]
        # 72 pixels away from the borders, neither what wrapped around nor the padding reaches a position.
        margin = 72 // model.strides[name]
        expected = torch.roll(feature, (step, step), (2, 3))[..., margin:-margin, margin:-margin]
        found = model(shifted)[name][..., margin:-margin, margin:-margin]
        assert found.numel() > 0
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("indices", [c for n in range(1, 6) for c in itertools.combinations(range(5), n)], ids=str)
@pytest.mark.parametrize("knobs", [{}, {**CONV_STEM, "frozen_stages": 1}], ids=["plain", "frozen"])
def test_every_trained_parameter_has_a_gradient_whatever_maps_are_wanted(indices, knobs):
    model = build(embed_dim=4, depths=[1, 1, 1, 1], out_indices=indices, **knobs)
    loss = sum(feature.square().sum() for feature in model(torch.randn(2, 3, 20, 33)).values())
    if loss.requires_grad:
        loss.backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@pytest.mark.parametrize("indices", [[1, 2], [0], [0, 1, 2, 3, 4]], ids=str)
def test_distributed_training_waits_for_no_parameter(indices, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(build(embed_dim=4, out_indices=indices))
        for _ in range(3):  # What one iteration leaves out, the next one's start complains of.
            sum(feature.square().mean() for feature in model(torch.randn(1, 3, 32, 32)).values()).backward()
    finally:
        torch.distributed.destroy_process_group()


def test_what_is_built_without_the_last_stages_has_the_whole_networks_names_and_rates():
    whole = build(out_indices=[1, 2, 3, 4], drop_path_rate=0.4)
    part = build(out_indices=[1, 2], drop_path_rate=0.4)
    assert len(part.layers) == 2
    expected = [
        name
        for name in whole.state_dict()
        if not name.startswith(("layers.2.", "layers.3.", "layers.1.downsample.", "norm2.", "norm3."))
    ]
    assert list(part.state_dict()) == expected
    rates = [[block.drop_path.rate for stage in model.layers for block in stage.blocks] for model in (whole, part)]
    assert rates[1] == rates[0][:2] == pytest.approx([0.0, 0.1])
    assert part.config.depths == whole.config.depths


# Initialisation, dropout, freezing


def test_initialisation_follows_the_reference():
    torch.manual_seed(0)
    model = FocalNet(depths=[1, 1, 1, 1], initializer_range=0.05, use_layerscale=True, layerscale_value=0.01)
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            assert (parameter == 0.01).all()
        elif "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all()
        elif name.endswith(("modulation.f.weight", "modulation.proj.weight", "fc1.weight", "fc2.weight")):
            assert parameter.std().item() == pytest.approx(0.05, rel=0.1), name
            assert parameter.mean().abs() < 0.005, name
        elif name.endswith(("modulation.f.bias", "modulation.proj.bias", "fc1.bias", "fc2.bias")):
            assert (parameter == 0).all(), name
        else:
            fan_in = parameter[0].numel() if name.endswith("weight") else None
            assert fan_in is None or parameter.abs().max() <= 1 / math.sqrt(fan_in), name


def test_drop_path_rises_linearly_over_all_blocks():
    model = build(depths=[1, 2, 1, 1], drop_path_rate=0.4)
    rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    y = drop(torch.ones(4000, 2, 3))
    per_sample = y.flatten(1)
    assert per_sample.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (per_sample == per_sample[:, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert (drop.eval()(torch.ones(5)) == 1).all()
    assert (DropPath(1.0).train()(torch.ones(5)) == 0).all()


@pytest.mark.parametrize("place", ["pos_drop", "modulation.proj_drop", "mlp.drop", "drop_path"])
def test_each_dropout_acts_in_train_mode_only(place):
    model = build(drop_path_rate=0.5, hidden_dropout_prob=0.5)
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Dropout, DropPath)) and not name.endswith(place):
            module.p = module.rate = 0.0
    x = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model.train()(x)["stage4"], model(x)["stage4"])
    assert torch.equal(model.eval()(x)["stage4"], model(x)["stage4"])


def test_every_norm_has_the_configs_epsilon():
    model = build(layer_norm_eps=1e-3, use_post_layernorm_in_modulation=True)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    # The stem's, three downsamplings', three in each of five blocks, and the output's.
    assert [norm.eps for norm in norms] == [1e-3] * (1 + 3 + 3 * 5 + 1)


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 4])
def test_frozen_stages_have_no_gradient_and_no_dropout(frozen_stages):
    model = build(out_features=ALL_STAGES, frozen_stages=frozen_stages, drop_path_rate=0.5, hidden_dropout_prob=0.5)
    frozen_names = ["patch_embed."] if frozen_stages >= 0 else []
    for i in range(frozen_stages):
        frozen_names += [f"layers.{i}.", f"norm{i}."]
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(tuple(frozen_names))), name
    for mode in (True, False):
        assert model.train(mode) is model
        assert model.training is mode
        for name, module in model.named_modules():
            if f"{name}.".startswith(tuple(frozen_names)):
                assert not module.training, name
    x = torch.randn(2, 3, 32, 32)
    model.train()
    for i in range(1, frozen_stages + 1):
        assert torch.equal(model(x)[f"stage{i}"], model(x)[f"stage{i}"])


# Ways to run it


@STEMS
def test_activation_checkpointing_gives_the_same_gradients(stem):
    plain = build(**stem, out_features=ALL_STAGES).double().train()
    saving = build(**stem, out_features=ALL_STAGES, use_checkpoint=True).double().train()
    x = torch.randn(2, 3, 37, 64, dtype=torch.double)
    kept = {}
    for model in (plain, saving):
        torch.manual_seed(1)
        tensors = kept[model] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=tensors: to.append(t) or t, lambda t: t):
            loss = sum(feature.square().mean() for feature in model(x).values())
        loss.backward()
    for (name, ours), (_, theirs) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    elements = {model: sum(t.numel() for t in tensors) for model, tensors in kept.items()}
    assert elements[saving] < elements[plain] / 2


def test_bfloat16_autocast_stays_close_to_float32():
    model = build().eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x)["stage4"]
    full = model(x)["stage4"]
    assert (low.float() - full).norm() / full.norm() < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_autocast_takes_no_doubles_and_no_integers(dtype):
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"weights' type torch\.float32, got"):
        build()(torch.zeros(1, 3, 32, 32, dtype=dtype))


def test_an_empty_batch_gives_empty_maps_and_gradients():
    model = build(out_features=["stage1", "stage4"])
    maps = model(torch.zeros(0, 3, 40, 64))
    assert [tuple(feature.shape) for feature in maps.values()] == [(0, 8, 10, 16), (0, 64, 2, 2)]
    sum(feature.sum() for feature in maps.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@STEMS
def test_compiles_without_graph_breaks_for_any_size(stem):
    model = build(**stem, depths=[1, 1]).eval()
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for height, width in [(64, 72), (33, 70), (128, 31), (99, 99), (64, 96)]:
        x = torch.randn(2, 3, height, width)
        assert_same_maps(compiled(x), model(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_compiled_gradients_are_those_of_eager_code(use_checkpoint):
    model = build(**SMALLEST, drop_path_rate=0.0, use_checkpoint=use_checkpoint)
    x = torch.randn(2, 3, 32, 32)
    torch._dynamo.reset()
    gradients = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        run(x)["stage2"].square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_generated_code_computes_what_eager_code_does():
    model = build(embed_dim=4, depths=[1]).eval()
    x = torch.randn(1, 3, 32, 32)
    torch._dynamo.reset()
    with torch.no_grad():
        assert_same_maps(torch.compile(model, fullgraph=True)(x), model(x))


@STEMS
def test_exports_with_dynamic_height_and_width(stem):
    model = build(**stem, depths=[1, 1]).eval()
    sizes = {"pixel_values": {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    exported = torch.export.export(model, (torch.randn(1, 3, 64, 72),), dynamic_shapes=sizes).module()
    for height, width in [(45, 131), (128, 160)]:
        x = torch.randn(1, 3, height, width)
        assert_same_maps(exported(x), model(x))


@STEMS
def test_a_trace_serves_other_sizes_than_its_example(stem):
    model = build(**stem, embed_dim=4, out_features=ALL_STAGES).eval()
    for example in ((64, 64), (50, 77)):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.trace warns that it is old, and of the checks of the input.
            traced = torch.jit.trace(model, torch.randn(1, 3, *example), strict=False)
        for shape in ((2, 50, 77), (1, 64, 64), (3, 33, 32), (1, 7, 200), (1, 1, 1)):
            x = torch.randn(shape[0], 3, *shape[1:])
            assert_same_maps(traced(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_compute_the_same(duplicate):
    model = build(out_features=ALL_STAGES, frozen_stages=1, hidden_act="gelu_new").eval()
    x = torch.randn(1, 3, 32, 40)
    assert_same_maps(duplicate(model)(x), model(x), rtol=0, atol=0)


def test_the_meta_device_tells_the_shapes_without_memory():
    with torch.device("meta"):
        maps = FocalNet(out_indices=[1, 4])(torch.zeros(2, 3, 800, 1333))
    assert [tuple(feature.shape) for feature in maps.values()] == [(2, 96, 200, 334), (2, 768, 25, 42)]


def test_per_sample_gradients_by_vmap_are_those_of_each_sample_alone():
    backbone = FocalNet(embed_dim=8, depths=[1, 1, 1], out_features=["stage1", "stage3"]).eval()
    parameters = {name: value.detach() for name, value in backbone.named_parameters()}
    x = torch.randn(2, 3, 18, 23)

    def loss(parameters: dict, sample: torch.Tensor) -> torch.Tensor:
        maps = torch.func.functional_call(backbone, parameters, (sample[None],))
        return sum(map_.square().sum() for map_ in maps.values())

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for number, sample in enumerate(x):
        backbone.zero_grad()
        sum(map_.square().sum() for map_ in backbone(sample[None]).values()).backward()
        for name, parameter in backbone.named_parameters():
            torch.testing.assert_close(together[name][number], parameter.grad, rtol=1e-3, atol=1e-2)


def test_functional_call_takes_other_weights():
    model, other = build().eval(), FocalNet(**TINY).eval()
    x = torch.randn(1, 3, 32, 32)
    found = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert_same_maps(found, other(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("hidden_act", "function"),
    [
        ("relu", torch.relu),
        ("selu", torch.selu),
        ("gelu", torch.nn.functional.gelu),
        ("gelu_new", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        (torch.nn.SiLU, torch.nn.functional.silu),
        (torch.tanh, torch.tanh),
    ],
)
def test_hidden_act_is_the_mlps_activation(hidden_act, function):
    mlp = build(hidden_act=hidden_act).layers[0].blocks[0].mlp
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(mlp(x), mlp.fc2(function(mlp.fc1(x))))


# Bad input


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, r"expected a tensor \(N, C, H, W\), got list"),
        (torch.zeros(3, 32, 32), ValueError, r"got shape \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), ValueError, r"expected 3 channels \(num_channels\), got 1"),
        (torch.zeros(1, 32, 32, 3), ValueError, "expected 3 channels"),
        (torch.zeros(1, 3, 0, 32), ValueError, "height and width of at least 1"),
        (
            torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
            TypeError,
            "expected an input of the weights' type torch.float32",
        ),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), TypeError, "got torch.float64"),
    ],
)
def test_a_wrong_input_is_named(x, error, message):
    with pytest.raises(error, match=message):
        build()(x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frozen_stages": 5}, ValueError, "frozen_stages must be from -1 to 4, got 5"),
        ({"frozen_stages": -2}, ValueError, "frozen_stages must be from -1"),
        ({"frozen_stages": "all"}, TypeError, "frozen_stages must be an int"),
        ({"use_checkpoint": "no"}, TypeError, "use_checkpoint must be True or False, got 'no'"),
        ({"use_checkpoint": 1}, TypeError, "use_checkpoint must be True or False, got 1"),
        ({"config": {"embed_dim": 96}}, TypeError, "config must be a FocalNetConfig"),
        ({"config": "focalnet_tiny_srf"}, TypeError, "config must be a FocalNetConfig"),
        ({"config": FocalNetConfig(), "embed_dims": 8}, TypeError, "no knob 'embed_dims'. Did you mean 'embed_dim'"),
        ({"out_features": ["stage9"]}, ValueError, "which are not among"),
        ({"out_features": ["stage1"], "out_indices": [3]}, ValueError, "contradict each other"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        FocalNet(**arguments)
