"""`make contract` and `make faults` make pages of the docs of what these tests measured."""

from __future__ import annotations

import pytest

from kq.conformance.contract import faults, page


def pytest_configure(config: pytest.Config) -> None:
    page.pytest_configure(config)
    faults.pytest_configure(config)
