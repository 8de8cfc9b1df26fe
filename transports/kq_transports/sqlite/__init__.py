"""Kombu on an SQLite file: durable, without a server, for the processes of one host."""

from __future__ import annotations

from kq_transports.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]
