"""COCO's annotation files as people write them: what is in one, and what may be mended in it."""
