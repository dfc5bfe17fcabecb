"""Streaming over draws, devices, checkpoints and files: what every other package runs on."""
