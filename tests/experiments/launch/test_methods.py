"""Rows with networks of their own, as runs record them and as others open them."""

from bnn_adv.compute import files
from experiments.launch.attack_config import make_target
from experiments.launch.compare_config import make_comparison


def test_a_row_with_a_network_of_its_own_is_recorded_apart(tmp_path):
    values = {
        "methods": ("deterministic", "hmc"),
        "network": "mlp",
        "mlp.hidden": 9,
        "hmc.network": "mlp",
        "hmc.mlp.hidden": 5,
    }
    known = make_comparison(values).to_json()
    assert (known["mlp.hidden"], known["hmc.mlp.hidden"], known["hmc.network"]) == (9, 5, "mlp")
    # What opens the run finds each row's own.
    (tmp_path / "posterior").mkdir()
    files.write_json(tmp_path / "config.json", known)
    for model, hidden in (("deterministic", 9), ("hmc", 5)):
        files.write_json(tmp_path / "posterior" / f"{model}.json", {})
        target = make_target({"posterior": str(tmp_path), "model": model})
        assert target.network.hidden == hidden
