"""This library's suites beside PyTorch AutoAttack, on the very same draws."""
