"""Cases of ``experiments.benchmark``, one a file: ``NAME`` and ``run(size, say) -> rows``."""
