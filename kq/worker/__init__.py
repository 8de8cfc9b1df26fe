"""Workers: programs that execute jobs. A supervisor with executors under it; see docs/architecture.md."""

from kq.worker.program import Processes, Worker

__all__ = ["Processes", "Worker"]
