"""The network of the paper: configuration, operator, blocks, backbone."""
