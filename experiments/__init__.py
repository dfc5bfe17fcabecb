"""Thin entry points: flags, a frozen config, a library call, a run directory."""
