"""A static check of .tflite files against the documented operator list of the Edge TPU.

`operators.py` is the list, `limits.py` its limits, `check.py` goes through a file.
"""

from tflite_export.edgetpu.check import check_edgetpu
from tflite_export.edgetpu.check import OperatorReport
from tflite_export.edgetpu.check import Report

__all__ = ('OperatorReport', 'Report', 'check_edgetpu')
