"""What makes two findings the same one."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.fingerprint import Fingerprint, fingerprint, layer_forms
from nndiag.records import Evidence, Finding, Run, Series, Severity

SPIKE = Finding("loss-spike", Severity.WARNING, 0.9, "rose", 419, 441, series="train_ce")
SAME = {
    "other steps": SPIKE.with_(step_start=12, step_end=None),
    "other numbers": SPIKE.with_(message="fell", evidence=(Evidence("peak", 7.0),)),
    "another severity": SPIKE.with_(severity=Severity.CRITICAL, confidence=0.1),
}
OTHER = {
    "another name": SPIKE.with_(name="loss-plateau"),
    "another series": SPIKE.with_(series="aux"),
    "another owner": SPIKE.with_(owner="D"),
    "a layer": SPIKE.with_(layers=("net.1",)),
}


@pytest.mark.parametrize("finding", SAME.values(), ids=SAME)
def test_a_finding_stays_itself_with(finding: Finding) -> None:
    assert fingerprint(finding) == fingerprint(SPIKE)
    assert fingerprint(finding).digest == fingerprint(SPIKE).digest


@pytest.mark.parametrize("finding", OTHER.values(), ids=OTHER)
def test_a_finding_is_another_with(finding: Finding) -> None:
    assert fingerprint(finding) != fingerprint(SPIKE)
    assert fingerprint(finding).digest != fingerprint(SPIKE).digest


def test_layers_that_differ_in_their_number_are_one_place() -> None:
    assert layer_forms(["h.3.mlp", "h.11.mlp", "head"]) == ("h.*.mlp", "head")


def test_a_series_goes_by_our_name_for_it() -> None:
    loss = Series("loss", np.arange(3), np.ones(3), name="train_ce")
    other = Series("other", np.arange(3), np.ones(3), name="aux")
    run = Run("log.csv", "csv", (loss, other))

    assert fingerprint(SPIKE, run).series == "loss"
    assert fingerprint(SPIKE.with_(series="aux"), run).series == "aux"
    assert fingerprint(SPIKE, run).text == "loss-spike loss"


def test_parts_do_not_run_into_each_other() -> None:
    one, other = Fingerprint("a", "b", "c"), Fingerprint("a", "b c", "")

    assert one.text == other.text and one.digest != other.digest
