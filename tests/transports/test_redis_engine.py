"""The Redis engine keeps every promise of the seam."""

from __future__ import annotations

from pathlib import Path

import pytest

from kq_transports.conformance.engine import EngineSuite
from kq_transports.engine import Engine, Options
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place


class TestRedisEngine(EngineSuite):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.place = Place.of(redis_url)

    def open(self, where: Path, options: Options) -> Engine:
        return RedisEngine(self.place, options)
