"""What a Python that a test starts imports first: see offline_guard.py."""

import os

import offline_guard

if offline_guard.REPORT in os.environ:
  offline_guard.install()
