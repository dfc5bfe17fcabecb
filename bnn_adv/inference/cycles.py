"""Which transitions of a chain end a draw."""

from __future__ import annotations

from typing import Any, NamedTuple


class Cycle(NamedTuple):
    """Which transitions end a draw; cycles follow one another.

    exploration: Transitions of a cycle before those of its first draw.
    num_draws: Draws of a cycle.
    thinning: Transitions a draw.
    """

    exploration: int
    num_draws: int
    thinning: int

    @property
    def length(self) -> int:
        """Transitions of a cycle."""
        return self.exploration + self.num_draws * self.thinning

    def count_draws(self, done: Any) -> Any:
        """Return how many draws have ended after ``done`` transitions, an integer or an array."""
        sampling = done % self.length - self.exploration
        # max(sampling, 0), for numbers of the host and of the device.
        sampling = (sampling + abs(sampling)) // 2
        return done // self.length * self.num_draws + sampling // self.thinning

    def end(self, draw: int) -> int:
        """Return how many transitions it takes until draw number ``draw`` has ended."""
        cycle, own = divmod(draw, self.num_draws)
        return cycle * self.length + self.exploration + (own + 1) * self.thinning
