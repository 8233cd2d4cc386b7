"""FocalNetConfig: defaults, derivation, validation, and the config.json of transformers."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from focalnet_backbone import FocalNetConfig


def test_defaults_are_those_of_transformers():
    ours, theirs = FocalNetConfig(), transformers.FocalNetConfig()
    shared = [name for name in ours.to_dict() if hasattr(theirs, name)]
    assert set(ours.to_dict()) - set(shared) == {"conv_embed_stem_padding"}
    for name in shared:
        expected, found = getattr(theirs, name), getattr(ours, name)
        assert found == (list(expected) if isinstance(expected, tuple) else expected), name


def test_config_json_of_transformers_is_read(tmp_path):
    theirs = transformers.FocalNetConfig(
        embed_dim=64, depths=[1, 2], focal_levels=[3, 3], focal_windows=[5, 5], num_labels=5, use_layerscale=True
    )
    theirs.save_pretrained(tmp_path)
    ours = FocalNetConfig.from_pretrained(tmp_path)
    assert (ours.embed_dim, ours.depths, ours.focal_windows, ours.num_labels) == (64, [1, 2], [5, 5], 5)
    # transformers leaves hidden_sizes at its default there, which does not fit the width.
    assert ours.hidden_sizes == [128, 128]


def test_transformers_reads_our_config_json(tmp_path):
    ours = FocalNetConfig(embed_dim=32, depths=[1, 1], id2label={0: "cat", 1: "dog", 2: "owl"}, out_indices=[1, 2])
    ours.save_pretrained(tmp_path)
    theirs = transformers.FocalNetConfig.from_pretrained(tmp_path)
    assert theirs.id2label == {0: "cat", 1: "dog", 2: "owl"}
    assert theirs.hidden_sizes == [64, 64]
    assert theirs.out_features == ["stage1", "stage2"]


def test_unknown_keys_of_a_config_json_are_kept(tmp_path):
    values = {"model_type": "focalnet", "embed_dim": 32, "architectures": ["FocalNetModel"], "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = FocalNetConfig.from_pretrained(tmp_path).replace(depths=[1, 1, 1, 1])
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["architectures"] == ["FocalNetModel"]
    assert written["torch_dtype"] == "float32"
    assert written["depths"] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("knobs", "hidden_sizes"),
    [
        ({}, [192, 384, 768, 768]),
        ({"embed_dim": 128}, [256, 512, 1024, 1024]),
        ({"embed_dim": 64, "depths": [2]}, [64]),
        ({"embed_dim": 8, "depths": [1] * 6}, [16, 32, 64, 128, 256, 256]),
    ],
)
def test_hidden_sizes_follow_width_and_depth(knobs, hidden_sizes):
    config = FocalNetConfig(**knobs)
    assert config.hidden_sizes == hidden_sizes
    assert len(config.focal_levels) == len(config.focal_windows) == len(config.depths)


@pytest.mark.parametrize(
    ("knobs", "features", "indices"),
    [
        ({}, ["stage4"], [4]),
        ({"out_features": ["stage3", "stem"]}, ["stem", "stage3"], [0, 3]),
        ({"out_indices": (4, 1)}, ["stage1", "stage4"], [1, 4]),
        ({"out_indices": [-1]}, ["stage4"], [4]),
        ({"out_features": ["stage2"], "out_indices": [2]}, ["stage2"], [2]),
    ],
)
def test_outputs_come_in_the_networks_order(knobs, features, indices):
    config = FocalNetConfig(**knobs)
    assert config.out_features == features
    assert config.out_indices == indices


def test_another_number_of_stages_moves_the_default_output():
    config = FocalNetConfig().replace(depths=[1, 1])
    assert config.out_features == ["stage2"]
    assert (config.focal_levels, config.focal_windows) == ([2, 2], [3, 3])


def test_levels_that_were_chosen_are_kept_when_the_stages_change():
    with pytest.raises(ValueError, match=r"focal_levels must have one entry a stage \(2"):
        FocalNetConfig(focal_levels=[3, 3, 3, 3]).replace(depths=[1, 1])


@pytest.mark.parametrize(
    "labels", [{"id2label": {"0": "cat", "1": "dog", "2": "owl"}}, {"label2id": {"cat": 0, "dog": "1", "owl": 2}}]
)
def test_labels_follow_from_either_mapping(labels):
    for config in (FocalNetConfig(**labels), FocalNetConfig().replace(**labels)):
        assert config.num_labels == 3
        assert config.id2label == {0: "cat", 1: "dog", 2: "owl"}
        assert config.label2id == {"cat": 0, "dog": 1, "owl": 2}


def test_replace_derives_again_and_leaves_the_original():
    config = FocalNetConfig(out_features=["stage1"], num_labels=3)
    changed = config.replace(embed_dim=32, out_indices=[2], num_labels=2)
    assert changed.hidden_sizes == [64, 128, 256, 256]
    assert changed.out_features == ["stage2"]
    assert changed.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert (config.embed_dim, config.out_features, config.num_labels) == (96, ["stage1"], 3)


BAD_KNOBS = [
    ({"num_labels": 10**8}, ValueError, "num_labels must be at most 1000000, got 100000000"),
    ({"depths": [10**8]}, ValueError, "every entry of depths must be at most"),
    ({"focal_levels": [10**6] * 4}, ValueError, "every entry of focal_levels must be at most"),
    ({"embed_dim": 0}, ValueError, "embed_dim must be at least 1"),
    ({"embed_dim": 96.0}, TypeError, "embed_dim must be an int"),
    ({"embed_dim": True}, TypeError, "embed_dim must be an int"),
    ({"patch_size": -4}, ValueError, "patch_size must be at least 1"),
    ({"patch_size": [4, 8]}, TypeError, "patch_size must be an int"),
    ({"patch_size": 16, "use_conv_embed": True}, ValueError, "patch_size must be 4 with use_conv_embed"),
    ({"num_channels": "3"}, TypeError, "num_channels must be an int"),
    ({"image_size": 0}, ValueError, "image_size must be at least 1"),
    ({"image_size": (224, 224, 3)}, TypeError, "image_size must be an int or"),
    ({"depths": []}, ValueError, "depths must have at least one stage"),
    ({"depths": [2, 0]}, ValueError, "every entry of depths must be at least 1"),
    ({"depths": 4}, TypeError, "depths must be a list of ints"),
    ({"depths": [2, 2.5]}, TypeError, "depths must be a list of ints"),
    ({"focal_levels": [2, 2]}, ValueError, "focal_levels must have one entry a stage"),
    ({"focal_levels": [0, 2, 2, 2]}, ValueError, "every entry of focal_levels must be at least 1"),
    ({"focal_windows": [3, 3, 3, 4]}, ValueError, "every entry of focal_windows must be odd"),
    ({"hidden_sizes": [96, 192, 384, 768]}, ValueError, "hidden_sizes must be"),
    ({"hidden_sizes": 96}, TypeError, "hidden_sizes must be a list of ints"),
    ({"hidden_act": "swish"}, ValueError, "hidden_act must be one of"),
    ({"mlp_ratio": 0}, ValueError, "mlp_ratio must be above 0"),
    ({"mlp_ratio": 0.01}, ValueError, "mlp_ratio must leave the MLPs a width, got 0.01 of embed_dim 96"),
    ({"mlp_ratio": "4"}, TypeError, "mlp_ratio must be a number"),
    ({"hidden_dropout_prob": 1.5}, ValueError, "hidden_dropout_prob must be at least 0"),
    ({"drop_path_rate": -0.1}, ValueError, "drop_path_rate must be at least 0"),
    ({"drop_path_rate": float("nan")}, ValueError, "drop_path_rate must be at least 0"),
    ({"use_layerscale": 1}, TypeError, "use_layerscale must be True or False"),
    ({"layerscale_value": -1.0}, ValueError, "layerscale_value must be at least 0"),
    ({"layer_norm_eps": 0.0}, ValueError, "layer_norm_eps must be above 0"),
    ({"initializer_range": float("inf")}, ValueError, "initializer_range must be at least 0"),
    ({"conv_embed_stem_padding": 1}, ValueError, "conv_embed_stem_padding must be at least 2"),
    ({"conv_embed_stem_padding": 4}, ValueError, "conv_embed_stem_padding must be 2 or 3, got 4"),
    ({"out_features": ["stage5"]}, ValueError, r"\['stage5'\], which are not among \['stem', 'stage1'"),
    ({"out_features": "stage4"}, TypeError, "out_features must be a list of names"),
    ({"out_features": 4}, TypeError, "out_features must be a list of names"),
    ({"out_features": []}, ValueError, "out_features is empty"),
    ({"out_features": ["stage1", "stage1"]}, ValueError, "out_features has duplicates"),
    ({"out_indices": [5]}, ValueError, r"out_indices has \[5\], valid are 0 to 4"),
    ({"out_indices": 3}, TypeError, "out_indices must be a list"),
    ({"out_indices": [True]}, ValueError, r"out_indices has \[True\]"),
    ({"out_indices": [4, -1]}, ValueError, "out_indices has duplicates"),
    ({"out_features": ["stage1"], "out_indices": [2]}, ValueError, "contradict each other"),
    ({"num_labels": 3, "id2label": {0: "a"}}, ValueError, "num_labels=3, but id2label has 1 entries"),
    ({"num_labels": 3, "label2id": {"a": 0}}, ValueError, "num_labels=3, but id2label has 1 entries"),
    ({"id2label": ["cat", "dog"]}, TypeError, "id2label must be a dict"),
    ({"label2id": {"a": 0, "b": 0}}, ValueError, "label2id must give each class an index of its own"),
    ({"id2label": {"cat": 0}}, ValueError, "id2label must have class indices for keys"),
    ({"id2label": {0: "a", 2: "b"}}, ValueError, "id2label must number the classes from 0 without a gap"),
    ({"problem_type": "ranking"}, ValueError, "problem_type must be None or one of"),
    ({"embed_dims": 96}, TypeError, "no knob 'embed_dims'. Did you mean 'embed_dim'"),
    ({"use_postln": True}, TypeError, "no knob 'use_postln'. Did you mean 'use_post_layernorm'"),
]


@pytest.mark.parametrize(("knobs", "error", "message"), BAD_KNOBS, ids=[str(knobs) for knobs, *_ in BAD_KNOBS])
def test_a_wrong_knob_is_named(knobs, error, message):
    with pytest.raises(error, match=message):
        FocalNetConfig(**knobs)


def test_a_missing_or_foreign_config_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no FocalNet config at .*config\.json"):
        FocalNetConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        FocalNetConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(ValueError, match="not the config of a FocalNet, but of 'swin'"):
        FocalNetConfig.from_pretrained(tmp_path)


def test_a_callable_activation_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="only named activations can be saved"):
        FocalNetConfig(hidden_act=torch.tanh).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
