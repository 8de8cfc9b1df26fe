"""One way of talking to a Redis: where it is, one socket with scripts, and errors that people understand.

redis-py opens the socket and knocks with the password, hiredis parses; redis-py's client, pool and retries are left
out: they cost more CPU per command than the command, and repeat what must not be repeated. Nothing
here knows about queues. Works without Kombu.

Each module asks redis itself for what it has, before any of its modules: they import each other, so two threads that
began with two of them at a time would each wait for the other's.
"""

from __future__ import annotations

from kq_transports.redislink.link import Link, Refused
from kq_transports.redislink.passenger import Passenger
from kq_transports.redislink.place import Place
from kq_transports.redislink.script import Script
from kq_transports.redislink.wire import Reply

__all__ = ["Link", "Passenger", "Place", "Refused", "Reply", "Script"]
