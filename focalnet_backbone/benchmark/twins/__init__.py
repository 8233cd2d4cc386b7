"""Backbones that FocalNet is compared with and that no host has, for configs that differ in the backbone alone."""
