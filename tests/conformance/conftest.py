"""`make contract` makes a page of the docs of what these tests measured."""

from kq.conformance.contract.page import pytest_configure

__all__ = ["pytest_configure"]
