"""`make contract` makes a page of the docs of these tests."""

from kq.conformance.contract.page import pytest_configure

__all__ = ["pytest_configure"]
