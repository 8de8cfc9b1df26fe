"""The SQLite transport keeps every promise that travels through Kombu's API."""

from __future__ import annotations

from pathlib import Path

from kq_transports.conformance.kombu import KombuSuite


class TestSqliteTransport(KombuSuite):
    def url(self, where: Path) -> str:
        return f"kq-sqlite:///{where / 'jobs.db'}"
