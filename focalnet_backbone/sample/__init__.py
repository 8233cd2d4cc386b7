"""A small dataset, drawn on photographs."""
