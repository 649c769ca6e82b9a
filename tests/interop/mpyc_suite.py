"""Runs MPyC's own tests, in the folder of its one argument, with the adapter in its runtime."""

from __future__ import annotations

import sys
import unittest

from mpyc.runtime import Runtime

if __name__ == "__main__":
    assert Runtime.start.__module__ == "partywire.workers.adapters.mpyc"
    suite = unittest.defaultTestLoader.discover(sys.argv[1])
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    print(f"ran {result.testsRun} of {sys.modules['mpyc'].__file__}")
    sys.exit(not result.wasSuccessful())
