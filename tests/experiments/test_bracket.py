"""``experiments.bracket``: what ships is attacked, and stands beside what is proved of it."""

import pytest

import bnn_adv
from bnn_adv.compute.settings import SettingError
from experiments import bracket


@pytest.mark.slow
@pytest.mark.parametrize("name", bnn_adv.zoo.names())
def test_every_entry_is_attacked_and_its_certificate_holds(name, capsys):
    found = bracket.print_bracket(bracket.Config(entry=name))
    said = capsys.readouterr().out
    assert said.startswith(f"{name}, a posterior of the bnn_adv zoo")
    assert str(found) in said
    assert "<= true <= attacked" in said
    entry = bnn_adv.zoo.load(name, verify=False)
    assert f"{len(entry.y)} test inputs that ship with it" in said


def test_an_entry_that_does_not_ship_is_refused_by_name():
    with pytest.raises(SettingError, match=r"entry.*digits_ensemble"):
        bracket.Config(entry="mnist_of_nobody")
