"""Kombu transports that keep AMQP's whole promise: leases, redelivery, priorities, delays, transactions.

Importing this package lets Kombu, and Celery, know the schemes below, beside its own:

    import kombu, kq_transports
    connection = kombu.Connection("kq-sqlite:////var/lib/shop/jobs.db")

A driver is imported when its scheme is first used.
"""

from __future__ import annotations

from collections.abc import Mapping

from kombu.transport import TRANSPORT_ALIASES

SCHEMES = {
    "kq-memory": "kq_transports.memory:Transport",
    "kq-sqlite": "kq_transports.sqlite:Transport",
    "kq-redis": "kq_transports.redis:Transport",
    "kq-rediss": "kq_transports.redis:SSLTransport",
    "kq-amqp": "kq_transports.amqp:Transport",
    "kq-amqps": "kq_transports.amqp:SSLTransport",
}


def register(schemes: Mapping[str, str] = SCHEMES) -> None:
    """Let Kombu know schemes: ours, which is done on import, or those of another package. May be repeated."""
    TRANSPORT_ALIASES.update(schemes)


register()
