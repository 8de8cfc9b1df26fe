"""The page that a run of the contract writes."""

from __future__ import annotations

import pytest

from kq.conformance.contract.page import sentence


@pytest.mark.parametrize("group", ["", "@mortal RabbitMQ"])
def test_a_test_is_a_sentence_in_which_ever_group_it_ran(group: str) -> None:
    assert sentence(f"tests/test_contract.py::TestContract::test_no_job_is_lost{group}") == "no job is lost"
    assert sentence(f"tests/test_contract.py::TestContract::test_no_job_is_lost[a-b]{group}") == "no job is lost (a-b)"
