"""Tables, plots and a page of finished runs.

`load` (runs.py) reads the result.json files that runs leave behind, `summarize` (series.py) turns runs into one
`Series` per codec, table.py makes a table of them, whose columns are the files in columns/, plots.py the plots, and
`write` (page.py) a folder with plots and a self-contained HTML page. Works without TensorFlow; matplotlib and Jinja2
are imported when a plot or the page is made.

What is measured and how it is put together:

* accuracy of a run: the mean of its last three evaluations on the test set (of all, where there are fewer). Single
  evaluations jump by a point from round to round;
* accuracy of a codec: mean and sample standard deviation over its seeds;
* difference to float32: seeds are paired, as the same seed gives every codec the same clients, data and initial model.
  Mean and standard error of the differences. Standard deviations between seeds say little about this;
* bytes: lengths of what was sent, over all clients and rounds; MB is 10^6 bytes. What TFF's own aggregators send cannot
  be measured: the size of what their encoder returns stands in for it, and is marked as an estimate.
"""

from tff_compress.simulation.report.page import write
from tff_compress.simulation.report.runs import load
from tff_compress.simulation.report.runs import ReportError
from tff_compress.simulation.report.runs import Run
from tff_compress.simulation.report.series import Series
from tff_compress.simulation.report.series import summarize

__all__ = ['ReportError', 'Run', 'Series', 'load', 'summarize', 'write']
