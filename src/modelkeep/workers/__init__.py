"""The main functions of the processes: supervisor, gateway, replica, recorder."""

from __future__ import annotations

import os

# A process is locked in while it has one thread, and NumPy's library would start its own when it is
# imported. These processes start with an empty environment, so it is said here, before anything.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
