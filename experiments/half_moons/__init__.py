"""Half moons: a grid of HMC networks, their expected gradients and their true robustness."""
