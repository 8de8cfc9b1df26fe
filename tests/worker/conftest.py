"""`make faults` makes a page of the docs of what these tests measured, too."""

from kq.conformance.contract.faults import pytest_configure

__all__ = ["pytest_configure"]
