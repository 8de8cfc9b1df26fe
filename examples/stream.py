"""A job that says its words one by one, to a reader who comes late, goes away, and comes back.

    python examples/stream.py
    KQ_URL=redis://localhost:6379/0 python examples/stream.py

It is the way of a language model's answer to the browser of whoever asked. `kq jobs stream ID -f` reads it too.
"""

from __future__ import annotations

import asyncio
import time

import kq

app = kq.App("stream", queue="stream")
ANSWER = ["Jobs", "may", "say", "things", "while", "they", "run:", "who", "comes", "late", "has", "missed", "nothing."]


@app.job
def answer(question: str) -> int:
    """Emit the answer, a word at a time."""
    job = kq.current_job()
    for word in ANSWER:
        if job is not None:
            job.emit(word)
        time.sleep(0.05)
    return len(ANSWER)


async def main() -> None:
    with kq.Worker(app):
        handle = await answer.submit_async("What is a stream?")
        await asyncio.sleep(0.3)  # late
        seen = 0
        async with handle.stream(timeout=30) as stream:
            async for chunk in stream:
                print(chunk.value)
                seen = chunk.offset + 1
                if seen == 3:
                    break  # the browser is gone
        async with handle.stream(seen, timeout=30) as stream:
            print(" ".join([chunk.value async for chunk in stream]))
        print(await handle, "words")


if __name__ == "__main__":
    asyncio.run(main())
    app.close()

# prints: Jobs
# prints: may
# prints: say
# prints: things while they run: who comes late has missed nothing.
# prints: 13 words
