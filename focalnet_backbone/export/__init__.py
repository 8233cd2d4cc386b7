"""Whole models as files that run without this package: ONNX, pt2, AOTInductor, TorchScript, each checked."""
