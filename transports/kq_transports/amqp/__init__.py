"""Kombu transport for RabbitMQ (3.13 and newer): kq-amqp and kq-amqps.

The broker keeps AMQP's promise itself, so there is no Engine here; what is added to Kombu's own transport and its
driver py-amqp is on the client's side:

* every publish is confirmed, matched by number, within a deadline, and one for a queue that does not exist is an error
  (outlet.py, wire.py, line.py);
* a channel that the broker closed is never opened again under its number, so no late ack meets another's delivery; what
  may be refused is asked on channels of its own (question.py, topology.py);
* heartbeats are a lease (line.py); deliveries are handed over by drain_events() and nowhere else (connection.py);
* delays (delay.py), and looking at, counting, removing and listing what AMQP has no verbs for (management.py,
  registry.py, presence.py).
"""

from kq_transports.amqp.transport import SSLTransport, Transport

__all__ = ["SSLTransport", "Transport"]
