"""`partywire perf`: what PartyWire costs and carries, beside what a user would pick instead.

Read workloads.py and contender.py first: what is played, and what somebody has to offer to play it. Then
party_process.py and party_set.py (who plays), run.py (one visit), measure.py (everybody in turns), command.py (what a
person types). README.md explains the fields of a JSON line.

Timings are noisy and belong to one machine: compare rows of one run, never digits of two. Nothing here is a test;
the test suite only runs each measurement tiny (`--smoke`), so that none rots.
"""
