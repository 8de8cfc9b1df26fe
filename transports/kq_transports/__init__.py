"""Kombu transports that keep AMQP's whole promise: leases, redelivery, priorities, delays, transactions.

Importing this package lets Kombu, and Celery, know the schemes below, beside its own:

    import kombu, kq_transports
    connection = kombu.Connection("kq-sqlite:////var/lib/shop/jobs.db")

A driver is imported when its scheme is first used.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

SCHEMES = {
    "kq-memory": "kq_transports.memory:Transport",
    "kq-sqlite": "kq_transports.sqlite:Transport",
    "kq-redis": "kq_transports.redis:Transport",
    "kq-rediss": "kq_transports.redis:SSLTransport",
    "kq-amqp": "kq_transports.amqp:Transport",
    "kq-amqps": "kq_transports.amqp:SSLTransport",
}


def register() -> None:
    """Let Kombu know the schemes; done on import. May be repeated."""
    TRANSPORT_ALIASES.update(SCHEMES)


register()
