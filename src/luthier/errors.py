"""Every exception that Luthier raises on purpose.

    LuthierError
    |-- InputError (ValueError)        a user's argument, file or data cannot be used        exit 2
    |   |-- SpecError                  a network description or a schedule contradicts itself
    |   |-- ShapeError                 two shapes, or a shape and a parameter, do not agree
    |   |-- GraphError                 a module or an ONNX file that cannot be read as a graph
    |   |-- UnitError                  a quantity without a known unit
    |   |-- DeviceError                a device file or profile that cannot be used
    |   |-- DataError                  images, labels or archives that cannot be read
    |   |-- UnsupportedError           an op that the engine has no code for
    |   |-- PlanError                  a compiled plan that is damaged, or for another CPU
    |   |-- PeerError                  a run time to compare with that is missing, or fails
    |   |-- WorkerError              a worker, or the cluster of them, that cannot be used or died
    |   `-- RunFolderError (OSError)   a run folder of another version, read-only, or on a full disk
    |-- BudgetError (ValueError)       no network fits the limits                             exit 3
    |-- MeasurementError (RuntimeError)  a loop that measures does something else: our fault   exit 1
    `-- ExportError (RuntimeError)     an exported file computes something else: our fault    exit 1

A message is one line: who, which argument or file, the limit, the value, the remedy.  The command line
prints it without a traceback; any other exception is our fault and exits with 1.
"""

from __future__ import annotations


class LuthierError(Exception):
    """Root of the tree; never raised itself."""

    exit_code = 1


class InputError(LuthierError, ValueError):
    """A user's argument, file or data cannot be used as it is."""

    exit_code = 2


class SpecError(InputError):
    """A network description or a schedule contradicts itself."""


class ShapeError(InputError):
    """Two shapes, or a shape and a parameter, do not agree."""


class GraphError(InputError):
    """A module or an ONNX file that is no graph: an op without meaning here, a broken file, an open axis."""


class UnitError(InputError):
    """A quantity has no known unit, or one of another dimension."""


class DeviceError(InputError):
    """A device, its file or its profile cannot be used, or no device has this name."""


class DataError(InputError):
    """Images, labels, archives or tables of measurements that cannot be read, or not learnt from."""


class UnsupportedError(InputError):
    """An op that the graph knows and the engine has no code for."""


class PlanError(InputError):
    """A file of a compiled plan that is damaged, of another version, or for another CPU."""


class PeerError(InputError):
    """A run time to compare with, or to fall back on, is not installed, or cannot run the network."""


class WorkerError(InputError):
    """A cluster that cannot be reached, or a worker that died again and again on the same task."""


class RunFolderError(InputError, OSError):
    """A run folder of another version, read-only, or on a full disk."""


class BudgetError(LuthierError, ValueError):
    """No network fits the limits.

    The message carries the nearest network that exists and the limit that would have to give.
    """

    exit_code = 3


class ExportError(LuthierError, RuntimeError):
    """An exported file does not compute what the trained network computes; it is not written."""


class MeasurementError(LuthierError, RuntimeError):
    """A loop that measures this machine does not do what it should; nothing is written."""
