"""`python -m tflite_export.cli`: the same as the command `tflite-export`."""

import sys

from tflite_export.cli import main

sys.exit(main())
