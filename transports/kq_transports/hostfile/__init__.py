"""An SQLite file that many processes of one host share, opened, locked, timed and signalled with care.

Used by the SQLite transport and by the SQLite state store. Knows nothing of messages.

database.py opens the file and gives transactions their turn; lock.py is the queue for them; reader.py only reads;
log.py is SQLite's log, on the disk and in use; spare.py brings it back when somebody took it, which folder.py sees;
clock.py tells time that no correction of the wall clock moves; bell.py wakes sleeping processes;
trouble.py says in a sentence what went wrong.
"""

from __future__ import annotations

from kq_transports.hostfile.bell import Bell
from kq_transports.hostfile.clock import HostClock
from kq_transports.hostfile.database import Database, Removed
from kq_transports.hostfile.reader import Reader
from kq_transports.hostfile.schema import Row, Schema

__all__ = ["Bell", "Database", "HostClock", "Reader", "Removed", "Row", "Schema"]
