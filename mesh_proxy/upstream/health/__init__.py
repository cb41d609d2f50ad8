"""Active health checking: asking endpoints regularly whether they are well, and telling all workers what came of it.

`checker.py` asks, in one worker; `follower.py` is what the others have; `board.py` is the shared memory between them.
"""
