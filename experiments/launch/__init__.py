"""Flags, run directories, devices, progress and the frame of a study."""
