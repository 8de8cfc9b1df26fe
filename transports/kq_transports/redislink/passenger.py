"""What rides on a publish in a Redis: a piece of Lua that is run in the same script."""

from __future__ import annotations

import msgspec


class Passenger(msgspec.Struct, frozen=True):
    """A rider of RedisEngine.publish().

    text: the body of a Lua function of one argument, `told`, that returns two functions: one says whether it agrees and
        changes nothing, the other is called if it does. argument: what it is told.
    """

    text: str
    argument: bytes
