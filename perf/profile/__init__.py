"""Where the time of a message goes, hop by hop: `python -m partywire.perf.profile`.

walk.py lets messages pass all hops in one process, wakeups.py measures what waking the next process costs, running.py
counts what real parties do; balance.py puts the three side by side and names what they leave unexplained.
"""
