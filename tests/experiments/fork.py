"""The files of a fork: one of everything that can be added from outside the tree."""

FILES = {
    "__init__.py": "",
    # Random-walk Metropolis would do; draws of the prior around one SGD solution are shorter.
    "my_sampler.py": '''
        """Gaussian noise around a network trained by SGD."""

        import dataclasses

        import jax

        from bnn_adv.compute.settings import Settings, setting
        from bnn_adv.inference import InferenceResult, RunOptions, sgd
        from bnn_adv.posteriors.posterior import Posterior


        @dataclasses.dataclass(frozen=True)
        class Config(Settings):
            """Settings of the noise.

            Args:
              num_samples: Draws.
              noise: Standard deviation of the noise.
            """

            num_samples: int = setting(4, least=1)
            noise: float = setting(0.01, above=0)


        def run(rng_key, network, data, config, options=RunOptions()):
            """Train one network, and add noise to it."""
            options = dataclasses.replace(options, checkpoints=None)
            trained = sgd.run(rng_key, network, data, sgd.Config(), options).posterior

            def noisy(leaf):
                shape = (config.num_samples, *leaf.shape[1:])
                return leaf + config.noise * jax.random.normal(rng_key, shape)

            samples = jax.tree.map(noisy, trained.samples)
            posterior = Posterior(trained.apply_fn, samples)
            return InferenceResult(posterior, {"noise": config.noise, "warnings": []}, None)
    ''',
    # A Markov kernel: the driver does the rest.
    "my_kernel.py": '''
        """The Metropolis-adjusted Langevin algorithm (Roberts, Tweedie 1996)."""

        import dataclasses
        from typing import Any, NamedTuple

        import jax

        from bnn_adv.compute.settings import setting
        from bnn_adv.inference import mcmc


        @dataclasses.dataclass(frozen=True)
        class Config(mcmc.Config):
            """Settings of MALA.

            Args:
              step_size: Step.
            """

            step_size: float = setting(1e-4, above=0)


        class Info(NamedTuple):
            """What is kept of a transition."""

            acceptance_rate: jax.Array
            logdensity: jax.Array


        def build(logdensity, config):
            """Return the kernel of a log density."""
            import blackjax

            def init(rng_key, position):
                return blackjax.mala.init(position, logdensity)

            def step(rng_key, state):
                transition = blackjax.mala.build_kernel()
                after, info = transition(rng_key, state, logdensity, config.step_size)
                return after, Info(info.acceptance_rate, after.logdensity)

            return mcmc.Kernel(init, step, None, lambda state: state.position)
    ''',
    # A kernel on minibatches: the base of its settings says which driver it has.
    "my_thermostat.py": '''
        """Stochastic-gradient Nose-Hoover thermostats (Ding et al. 2014)."""

        import dataclasses
        from typing import Any, NamedTuple

        import jax
        import jax.numpy as jnp

        from bnn_adv.compute.settings import setting
        from bnn_adv.inference import sgmcmc


        @dataclasses.dataclass(frozen=True)
        class Config(sgmcmc.Config):
            """Settings of the thermostat.

            Args:
              step_size: Step.
            """

            step_size: float = setting(1e-3, above=0)


        class State(NamedTuple):
            """Position, momentum, and friction."""

            position: Any
            momentum: Any
            friction: Any


        def build(gradient, config):
            """Return the kernel of an estimated gradient."""
            from blackjax.sgmcmc import diffusions

            integrate = diffusions.sgnht(alpha=1.0)

            def init(rng_key, position):
                return State(position, jax.tree.map(jnp.zeros_like, position), 1.0)

            def step(rng_key, state, minibatch, index):
                slope = gradient(state.position, minibatch)
                moved = integrate(
                    rng_key, *state, slope, config.step_size, config.temperature
                )
                return State(*moved)

            return sgmcmc.Kernel(init, step, lambda state: state.position)
    ''',
    "my_network.py": '''
        """One linear layer."""

        from flax import linen as nn


        class Linear(nn.Module):
            """A linear classifier.

            Args:
              scale: Factor of the logits.
            """

            num_classes: int
            scale: float = 1.0

            @nn.compact
            def __call__(self, x):
                x = x.reshape(x.shape[0], -1)
                return self.scale * nn.Dense(self.num_classes, name="logits")(x)
    ''',
    "my_data.py": '''
        """Two clouds of points."""

        import numpy as np

        from bnn_adv.data import Dataset


        def load(data_dir=None, *, seed=0):
            """Load 80 training and 20 test points."""
            rng = np.random.default_rng(seed)
            y = np.arange(100, dtype=np.int32) % 2
            x = np.clip(rng.normal(0.3 + 0.4 * y[:, None], 0.1, (100, 2)), 0, 1)
            x = x.astype(np.float32)
            return Dataset("my_data", x[:80], y[:80], x[80:], y[80:], num_classes=2)
    ''',
    "my_attack.py": '''
        """One step of the sign, as long as one likes."""

        import dataclasses
        from typing import Any, NamedTuple

        from bnn_adv.attacks import Attack
        from bnn_adv.attacks.threat import radius_of


        @dataclasses.dataclass(frozen=True)
        class Config:
            """How far it goes.

            Args:
              share: Step in units of the radius.
            """

            share: float = 1.0


        class State(NamedTuple):
            """Where it is."""

            x_adv: Any
            success: Any
            value: Any


        def init(rng_keys, loss_fn, x, threat, config):
            """Begin at the clean input."""
            loss = loss_fn(x)
            return State(x, loss.success, loss.value)


        def step(rng_keys, state, loss_fn, x, threat, config):
            """Take the step."""
            direction = threat.ascend(loss_fn(x).gradient, x)
            moved = threat.project(x + config.share * radius_of(threat, x) * direction, x)
            loss = loss_fn(moved)
            return State(moved, loss.success, loss.value)


        def build(*, share: float = 1.0):
            """Return the attack."""
            if not 0 < share <= 1:
                raise ValueError(f"share must lie in (0, 1], got {share}.")
            return Attack("my_attack", Config(share), init, step, num_steps=1)
    ''',
    "my_objective.py": '''
        """The margin of the logits, twice."""

        from bnn_adv.attacks.objectives import Objective, margin


        def head(logits, aim):
            """Return twice the margin."""
            return 2 * margin(logits, aim)


        TWICE = Objective("twice_the_margin", lambda logits, aim: logits, "mean", head)
    ''',
    "my_suite.py": '''
        """A suite of one attack on one objective."""

        from bnn_adv.evaluation import Entry, Suite
        from my_fork import my_attack, my_objective

        MINE = Suite(
            (Entry("half", my_attack.build(share=0.5), my_objective.TWICE),),
            "mine",
            "Half a step of the sign.",
            worst_case=True,
        )
    ''',
}
