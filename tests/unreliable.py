"""Checkpoints of a process that dies: what tests of resumption interrupt by."""

from bnn_adv.compute.checkpoint import Checkpoints


class Unplugged(Exception):
    """Stands for a process that is gone: nothing is saved on the way out."""


class Unreliable(Checkpoints):
    """Checkpoints of a process that dies after some ticks."""

    def __init__(self, folder, *, ticks, **options):
        super().__init__(folder, every_seconds=None, log=lambda message: None, **options)
        self.left = ticks

    def tick(self, step, tree, meta=None):
        super().tick(step, tree, meta)
        self.left -= 1
        if not self.left:
            raise Unplugged
