"""One way of talking to a Redis: where it is, one socket with scripts, and errors that people understand.

redis-py opens the socket, knocks with the password and parses; its client, pool and retries are left
out: they cost more CPU per command than the command, and repeat what must not be repeated. Nothing
here knows about queues. Works without Kombu.
"""

from __future__ import annotations

from kq_transports.redislink.link import Link, Refused, Reply
from kq_transports.redislink.passenger import Passenger
from kq_transports.redislink.place import Place
from kq_transports.redislink.script import Script

__all__ = ["Link", "Passenger", "Place", "Refused", "Reply", "Script"]
