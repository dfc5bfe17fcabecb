"""How much of everything a benchmark computes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class PeersSize:
    """What public attack tools and this library's suites attack.

    Args:
      units: Units of the fully connected network.
      draws: Draws of its posterior.
      images: Test images of digits.
      epochs: Passes over the training images.
      epsilon: Radius of the l_inf ball, in units of inputs in [0, 1].
      steps: Steps of the tools' PGD, one run each.
      suites: Suites that the tools' times are divided by.
    """

    units: int = 512
    draws: int = 50
    images: int = 128
    epochs: int = 5
    epsilon: float = 0.1
    steps: tuple[int, ...] = (40, 100)
    suites: tuple[str, ...] = ("fast", "strong")


@dataclasses.dataclass(frozen=True)
class Size:
    """Fix the shapes of every case.

    Args:
      has_targets: Whether the project promises anything at this size.
      matrix: Rows of the square matrices whose product is the ceiling, on a CPU.
      accelerator_matrix: The same on an accelerator, which smaller ones do not fill.
      budget: Seconds of repeats of one measurement; a long one is repeated once.
      channels: Channels of the ConvNet's second convolution.
      units: Units of the fully connected network.
      images: Images of an input gradient.
      conv_draws: Draws of the ConvNet.
      mlp_draws: Draws of the fully connected network.
      sweep_draws: Numbers of draws of the sweep.
      sweep_images: Numbers of images of the sweep.
      fixed_images: Images while draws are swept.
      fixed_draws: Draws while images are swept.
      attack_images: Images attacked at once.
      attack_draws: Draws of the attacked networks.
      suite: Suite that is timed.
      suite_images: Images that the suite attacks.
      hmc_images: Training images of HMC.
      hmc_units: Units of HMC's network.
      leapfrog_steps: Leapfrog steps of one HMC transition.
      epochs: Epochs of SGD and SVI; the first one compiles and is not timed.
      epoch_batches: Minibatches of 128 images an epoch.
      memory_draws: Numbers of draws at which memory is compared.
      starting_suites: Suites of which a fresh process makes its first evaluation.
      device_counts: Numbers of devices.
      peer_images: Images on which the peer is compared.
      peer_draws: Draws on which the peer is compared.
      peer_attack_images: Images that the peer attacks.
      peers: What the public attack tools are compared on.
    """

    has_targets: bool
    matrix: int
    accelerator_matrix: int
    budget: float
    channels: int
    units: int
    images: int
    conv_draws: int
    mlp_draws: int
    sweep_draws: tuple[int, ...]
    sweep_images: tuple[int, ...]
    fixed_images: int
    fixed_draws: int
    attack_images: int
    attack_draws: int
    suite: str
    suite_images: int
    hmc_images: int
    hmc_units: int
    leapfrog_steps: int
    epochs: int
    epoch_batches: int
    memory_draws: tuple[int, ...]
    starting_suites: tuple[str, ...]
    device_counts: tuple[int, ...]
    peer_images: int
    peer_draws: int
    peer_attack_images: int
    peers: PeersSize


_DEFAULT = Size(
    has_targets=True,
    matrix=2048,
    accelerator_matrix=8192,
    budget=1.0,
    channels=512,
    units=1024,
    images=100,
    conv_draws=100,
    mlp_draws=500,
    sweep_draws=(5, 10, 20, 40),
    sweep_images=(64, 128, 256, 512),
    fixed_images=32,
    fixed_draws=4,
    attack_images=128,
    attack_draws=10,
    suite="strong",
    suite_images=16,
    hmc_images=60_000,
    hmc_units=1024,
    leapfrog_steps=4,
    epochs=3,
    epoch_batches=4,
    memory_draws=(10, 100, 500),
    starting_suites=("fast", "strong"),
    device_counts=(1, 2, 4, 8),
    peer_images=64,
    peer_draws=10,
    peer_attack_images=4,
    peers=PeersSize(),
)

SIZES = {
    "tiny": Size(
        has_targets=False,
        matrix=128,
        accelerator_matrix=128,
        budget=0.01,
        channels=4,
        units=16,
        images=4,
        conv_draws=2,
        mlp_draws=4,
        sweep_draws=(2, 4),
        sweep_images=(2, 4),
        fixed_images=4,
        fixed_draws=2,
        attack_images=4,
        attack_draws=2,
        suite="corrected",
        suite_images=2,
        hmc_images=64,
        hmc_units=8,
        leapfrog_steps=2,
        epochs=2,
        epoch_batches=1,
        memory_draws=(2, 4),
        starting_suites=("fast",),
        device_counts=(1, 2),
        peer_images=2,
        peer_draws=2,
        peer_attack_images=2,
        peers=PeersSize(8, 3, images=4, epochs=1, steps=(2,), suites=("fast",)),
    ),
    "default": _DEFAULT,
    "full": dataclasses.replace(
        _DEFAULT,
        matrix=4096,
        budget=10.0,
        sweep_draws=(10, 20, 50, 100, 200, 500),
        sweep_images=(32, 64, 128, 256, 512, 1024),
        suite_images=128,
        leapfrog_steps=10,
        epochs=6,
        epoch_batches=20,
        peer_images=100,
        peer_draws=50,
        peer_attack_images=64,
    ),
}
