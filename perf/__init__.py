"""The measurements behind docs/performance.md.

Timings are noisy and belong to one machine: compare rows of one run, never digits of two. Nothing here is a test;
the test suite only runs each measurement tiny (`--smoke`), so that none rots.
"""
