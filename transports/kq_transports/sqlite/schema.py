"""The tables.

A message is a row of kq_message that nobody changes, and exactly one row of kq_ready, kq_delayed or kq_held:
its state. So a body is written once and read once, and what waits costs nothing to what moves.

rank: 9 - priority, so that the order of the key is the order of delivery.
due: when it becomes, or became, ready. seq: order of submission, within a rank. ticket: names one delivery, never given
twice.
until is a reading of the clock that stops while the machine sleeps, due of the one that goes on (hostfile.clock).
The numbers of a queue's messages in each state are kept in its row, and change in the same transaction.
"""

from __future__ import annotations

from kq_transports.hostfile import Schema

_TABLES = """
CREATE TABLE IF NOT EXISTS kq_lease (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, until REAL);
CREATE TABLE IF NOT EXISTS kq_queue (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, arguments TEXT,
    owner INTEGER, single INTEGER, seat INTEGER, length INTEGER, expires REAL, used REAL,
    ready INTEGER DEFAULT 0, delayed INTEGER DEFAULT 0, held INTEGER DEFAULT 0);
CREATE INDEX IF NOT EXISTS kq_queue_expires ON kq_queue (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS kq_dropped (queue INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS kq_exchange (name TEXT PRIMARY KEY, kind TEXT);
CREATE TABLE IF NOT EXISTS kq_binding (
    exchange TEXT, queue TEXT, key TEXT, PRIMARY KEY (exchange, queue, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kq_message (
    seq INTEGER PRIMARY KEY, queue INTEGER, id TEXT, rank INTEGER, due REAL, body BLOB, UNIQUE (queue, id));
CREATE TABLE IF NOT EXISTS kq_ready (
    queue INTEGER, rank INTEGER, seq INTEGER, count INTEGER, PRIMARY KEY (queue, rank, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kq_delayed (
    queue INTEGER, due REAL, seq INTEGER, rank INTEGER, PRIMARY KEY (queue, due, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kq_held (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER, lease INTEGER, queue INTEGER, rank INTEGER, count INTEGER);
CREATE TABLE IF NOT EXISTS kq_waiter (
    queue INTEGER, bell TEXT, lease INTEGER, since REAL, PRIMARY KEY (queue, bell)) WITHOUT ROWID
"""

SCHEMA = Schema("queues", 1, _TABLES)
