"""Turn a row of the table into a trained posterior."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import files, parallel
from bnn_adv.compute.disk import DiskDraws, store_in
from bnn_adv.data import Dataset
from bnn_adv.inference import METHODS, hmc, sgd, svi
from bnn_adv.inference.base import keep_on_device
from bnn_adv.inference.densities import Data, Prior
from bnn_adv.networks import build_network, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, load_posterior, save_posterior, shard_posterior
from experiments.launch import stages
from experiments.launch.compare_config import MODELS, EvaluateConfig, decision_rule
from experiments.launch.progress import progress
from experiments.launch.run_directory import RunDirectory

_HELD_OUT = 200
"""Test points on which chains are diagnosed."""


class Trained(NamedTuple):
    """Hold a trained model.

    posterior: Draws that the attacker knows.
    fresh: Other draws of the same posterior, or None where none can be drawn.
    diagnostics: The method's record, with the seconds that training took.
    """

    posterior: Posterior
    fresh: Posterior | None
    diagnostics: dict[str, Any]


def model_key(config: EvaluateConfig, model: str, purpose: int) -> jax.Array:
    """Return a model's key: 0 trains, 1 attacks, 2 draws the fresh samples."""
    key = jax.random.fold_in(jax.random.key(config.seed), MODELS.index(model))
    return jax.random.fold_in(key, purpose)


def build_model(config: EvaluateConfig, model: str, num_classes: int) -> nn.Module:
    """Return the network of a row."""
    is_hmc = model == "hmc"
    return build_network(
        (is_hmc and config.hmc_architecture) or config.architecture,
        hidden=(is_hmc and config.hmc_hidden) or config.hidden,
        num_classes=num_classes,
        activation=(is_hmc and config.hmc_activation) or config.activation,
        convolution=config.convolution,  # type: ignore[arg-type]
    )


def check_networks(config: EvaluateConfig, dataset: Dataset) -> None:
    """Raise unless every row's network takes the data set's inputs.

    Raises:
      ValueError: The message names the architecture and the inputs' shape.
    """
    shape = dataset.x_train.shape[1:]
    for model in config.models:
        network = build_model(config, model, dataset.num_classes)
        try:
            jax.eval_shape(functools.partial(_outputs, network, shape), jax.random.key(0))
        # What a network raises of inputs that it cannot take is up to it.
        except Exception as error:
            own = (model == "hmc" and config.hmc_architecture) or config.architecture
            raise ValueError(
                f"--architecture={own} does not take the inputs of {config.dataset}, of shape "
                f"{list(shape)} ({type(error).__name__}: {error}). Fully connected networks take "
                "any: --architecture=fc."
            ) from error


def _outputs(network: nn.Module, shape: tuple[int, ...], rng_key: jax.Array) -> jax.Array:
    params = init_params(rng_key, network, shape)
    return get_apply_fn(network)(params, jnp.zeros((1, *shape)))


def method_config(config: EvaluateConfig, model: str) -> tuple[str, Any]:
    """Return the name of a row's inference method and its settings."""
    prior = Prior(config.prior_scale, config.prior_kind)  # type: ignore[arg-type]
    if model in ("deterministic", "ensemble"):
        return "sgd", sgd.Config(
            num_members=config.ensemble_size if model == "ensemble" else 1,
            num_epochs=config.sgd_epochs,
            learning_rate=config.sgd_learning_rate,
            minibatch_size=config.sgd_minibatch_size,
            member_chunk=config.member_chunk or None,
        )
    if model == "vi":
        auto = "published" if config.published_vi else "corrected"
        start = auto if config.vi_init == "auto" else config.vi_init
        weight = auto if config.vi_kl_weight == "auto" else config.vi_kl_weight
        return "svi", svi.Config(
            num_samples=config.vi_num_samples,
            num_epochs=config.vi_epochs,
            learning_rate=config.vi_learning_rate,
            minibatch_size=config.vi_minibatch_size,
            guide=config.vi_guide,  # type: ignore[arg-type]
            rank=config.vi_rank,
            kl_weight=weight,  # type: ignore[arg-type]
            init="published" if start == "published" else "network",
            prior=prior,
            temperature=config.temperature,
        )
    return "hmc", hmc.Config(
        algorithm=config.hmc_algorithm,  # type: ignore[arg-type]
        num_samples=config.hmc_num_samples,
        num_warmup=config.hmc_num_warmup,
        thinning=config.hmc_thinning,
        num_chains=config.hmc_num_chains,
        step_size=config.hmc_step_size,
        num_integration_steps=config.hmc_num_integration_steps,
        adapt=config.hmc_adapt,  # type: ignore[arg-type]
        init=config.hmc_init,  # type: ignore[arg-type]
        prior=prior,
        temperature=config.temperature,
        precision=config.precision,
    )


def train_or_load(
    config: EvaluateConfig, model: str, dataset: Dataset, run: RunDirectory, mesh: Mesh | None
) -> Trained:
    """Train a row's model, or read it back where an earlier start of the run has trained it."""
    network = build_model(config, model, dataset.num_classes)
    record = f"posterior/{model}.json"
    if not parallel.agree((run.path / record).exists()):
        _train(config, model, network, dataset, run, record, mesh)
    expected = jax.eval_shape(
        lambda: init_params(jax.random.key(0), network, dataset.x_train.shape[1:])
    )
    apply_fn = get_apply_fn(network)
    options: dict[str, Any] = {
        "precision": config.precision,
        "decision_rule": decision_rule(config, model),
    }

    def load(name: str) -> Posterior | None:
        path = run.path / "posterior" / name
        if path.is_dir():
            return Posterior(apply_fn, DiskDraws(path, expected), **options)
        if not path.with_suffix(".npz").exists():
            return None
        posterior = load_posterior(path.with_suffix(".npz"), apply_fn, expected)
        return dataclasses.replace(posterior, **options)

    posterior, fresh = load(model), load(f"{model}_fresh")
    if posterior is None:
        raise FileNotFoundError(
            f"{run.path / 'posterior'} holds the record of {model} and not its draws: delete "
            f"{record} there to train it again."
        )
    loaded = {model: posterior} if fresh is None else {model: posterior, f"{model}_fresh": fresh}
    diagnostics = stages.break_seal(run, record, files.read_json(run.path / record), loaded)
    on_mesh = None if fresh is None else _place(fresh, mesh)
    return Trained(_place(posterior, mesh), on_mesh, diagnostics)


def _place(posterior: Posterior, mesh: Mesh | None) -> Posterior:
    """Split the draws over the mesh where they can be; one network is not."""
    if isinstance(posterior.samples, DiskDraws):
        return posterior
    if parallel.shards(mesh, posterior.num_samples, "draws") > 1:
        return shard_posterior(posterior, mesh)
    return dataclasses.replace(posterior, samples=parallel.replicate(posterior.samples, mesh))


def _train(
    config: EvaluateConfig,
    model: str,
    network: nn.Module,
    dataset: Dataset,
    run: RunDirectory,
    record: str,
    mesh: Mesh | None,
) -> None:
    method, settings = method_config(config, model)
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    held_out = Data(
        jnp.asarray(dataset.x_test[:_HELD_OUT]), jnp.asarray(dataset.y_test[:_HELD_OUT])
    )
    started, folder = time.monotonic(), run.path / "posterior"
    checkpoints = run.checkpoints(f"{model}-training", config.checkpoint_every)
    with progress(
        f"{model}: training", "transitions" if model == "hmc" else "minibatches"
    ) as report:

        def log(done: int, total: int, numbers: dict[str, float]) -> None:
            run.log(model=model, stage="training", done=done, total=total, **numbers)
            report(done, total, numbers)

        result = METHODS[method].run(
            model_key(config, model, 0),
            network,
            data,
            settings,
            held_out=held_out,
            progress=log,
            checkpoints=checkpoints,
            mesh=mesh,
            store=store_in(folder / model) if config.draws_on_disk else keep_on_device,
        )
    trained = {model: result.posterior}
    if result.sample is not None and config.fresh:
        fresh = result.sample(model_key(config, model, 2), result.posterior.num_samples)
        _save(run, f"{model}_fresh", fresh, on_disk=config.draws_on_disk)
        trained[f"{model}_fresh"] = fresh
    if not config.draws_on_disk:
        _save(run, model, result.posterior, on_disk=False)
    seconds = time.monotonic() - started if checkpoints is None else checkpoints.seconds
    numbers = {
        **result.diagnostics,
        "decision_rule": decision_rule(config, model),
        "training_seconds": round(seconds, 1),
        **stages.seal(run, trained),
    }
    # Written last: its presence says that the model is complete.
    run.write(files.write_json, record, numbers)
    if checkpoints is not None:
        checkpoints.remove()


def _save(run: RunDirectory, name: str, posterior: Posterior, *, on_disk: bool) -> None:
    if on_disk:
        store_in(run.path / "posterior" / name)(posterior.samples)
    else:
        run.write(save_posterior, f"posterior/{name}.npz", posterior)
