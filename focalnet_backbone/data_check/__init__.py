"""A user's dataset against the config, before training: every photo, label and annotation file.

`detectron2.check_job` and `openmmlab.check_config` ask each framework's own loader what it will see. What they find out
about a file is remembered as long as it stays the same, see `focalnet_backbone.system.facts`.
"""
