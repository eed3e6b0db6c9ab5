"""How large tests are: STREAMWORKER_SOAK multiplies what a run of all tests can afford."""

import os

SOAK = int(os.environ.get("STREAMWORKER_SOAK", "1"))
