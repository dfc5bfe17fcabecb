"""Robustness against accuracy of a cloud of HMC, SGD and VI networks."""
