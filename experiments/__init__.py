"""Thin entry points: flags become a frozen config, the library is called, a run directory filled."""
