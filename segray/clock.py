"""The clock of this process."""

import time

#: The value of `time.monotonic` when segray was imported, which a job does first.
STARTED = time.monotonic()
