"""Minimal loops on the same brokers: what the broker and its client cost without a framework.

Each stores the same bytes as kq does (about 300) and takes them in batches, as the fastest known loops do.
They keep none of the contract's promises: no fence, no retry, no result.
"""

from __future__ import annotations

import heapq
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import amqp
import redis

BODY = b"x" * 300
BATCH = 100


class Loop(ABC):
    """A queue by hand."""

    @abstractmethod
    def one(self) -> None:
        """Store one message and know that it is stored."""

    @abstractmethod
    def many(self, count: int) -> None:
        """Store count messages, in batches."""

    @abstractmethod
    def drain(self) -> int:
        """Take and end everything, in batches; returns how many there were."""


class MemoryLoop(Loop):
    def __init__(self) -> None:
        self._heap: list[tuple[int, int, bytes]] = []
        self._count = 0

    def one(self) -> None:
        self._count += 1
        heapq.heappush(self._heap, (-5, self._count, bytes(BODY)))

    def many(self, count: int) -> None:
        for _ in range(count):
            self.one()

    def drain(self) -> int:
        taken = 0
        while self._heap:
            heapq.heappop(self._heap)
            taken += 1
        return taken


class SQLiteLoop(Loop):
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE job (seq INTEGER PRIMARY KEY, held INTEGER DEFAULT 0, body BLOB)")
        self._db.execute("CREATE INDEX ready ON job (seq) WHERE held = 0")

    def one(self) -> None:
        self._db.execute("INSERT INTO job (body) VALUES (?)", (BODY,))

    def many(self, count: int) -> None:
        for _ in range(count // BATCH):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO job (body) VALUES (?)", [(BODY,)] * BATCH)
            self._db.execute("COMMIT")

    def drain(self) -> int:
        taken = 0
        done: list[tuple[int]] = []
        while True:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM job WHERE seq = ?", done)
            rows = self._db.execute(
                "UPDATE job SET held = 1 WHERE seq IN (SELECT seq FROM job WHERE held = 0 ORDER BY seq LIMIT ?) "
                "RETURNING seq, body",
                (BATCH,),
            ).fetchall()
            self._db.execute("COMMIT")
            if not rows and not done:
                return taken
            done = [(seq,) for seq, _ in rows]
            taken += len(rows)


class RedisLoop(Loop):
    TAKE = """
    local ids = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
    for _, id in ipairs(ids) do redis.call('SADD', KEYS[2], id) end
    if #ids == 0 then return {} end
    return {ids, redis.call('HMGET', KEYS[3], unpack(ids))}
    """

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(url)
        self._take: Any = self._redis.register_script(self.TAKE)
        self._count = 0

    def one(self) -> None:
        self._count += 1
        self._redis.pipeline(transaction=False).hset("hand:j", self._count, BODY).rpush("hand:r", self._count).execute()

    def many(self, count: int) -> None:
        for _ in range(count // BATCH):
            ids = range(self._count + 1, self._count + 1 + BATCH)
            self._count += BATCH
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset("hand:j", mapping=dict.fromkeys(ids, BODY)).rpush("hand:r", *ids).execute()

    def drain(self) -> int:
        taken = 0
        while reply := self._take(keys=["hand:r", "hand:h", "hand:j"], args=[BATCH]):
            ids = reply[0]
            self._redis.pipeline(transaction=False).srem("hand:h", *ids).hdel("hand:j", *ids).execute()
            taken += len(ids)
        return taken


class RabbitLoop(Loop):
    def __init__(self, url: str) -> None:
        host, port = url.rsplit("@", 1)[1].split("/")[0].split(":")
        self._connection: Any = amqp.Connection(f"{host}:{port}", confirm_publish=True)
        self._connection.connect()
        self._channel: Any = self._connection.channel()
        self._channel.queue_declare("hand", durable=True, auto_delete=False)
        self._message = amqp.Message(BODY, delivery_mode=2)

    def one(self) -> None:
        self._channel.basic_publish_confirm(self._message, routing_key="hand")

    def many(self, count: int) -> None:
        """Publishes of a batch are sent together, then their confirms are awaited."""
        channel: Any = self._connection.channel()
        channel.confirm_select()
        confirmed = 0

        def on_ack(tag: int, multiple: bool) -> None:
            nonlocal confirmed
            confirmed = max(confirmed, tag)

        channel.events["basic_ack"].add(on_ack)
        for number in range(1, count + 1):
            channel._basic_publish(self._message, routing_key="hand")
            while number % BATCH == 0 and confirmed < number:
                self._connection.drain_events(timeout=5)
        channel.close()

    def drain(self) -> int:
        taken = 0
        channel: Any = self._connection.channel()
        channel.basic_qos(0, BATCH, False)
        ready = channel.queue_declare("hand", passive=True).message_count

        def on_message(message: Any) -> None:
            nonlocal taken
            taken += 1
            if taken % (BATCH // 2) == 0 or taken == ready:
                channel.basic_ack(message.delivery_tag, multiple=True)

        channel.basic_consume("hand", callback=on_message)
        while taken < ready:
            self._connection.drain_events(timeout=5)
        channel.close()
        return taken
