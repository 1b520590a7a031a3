"""The errors of ls3dw. Each says what, where, what was expected and what to do; the command line prints just that."""

from __future__ import annotations


class Ls3dwError(Exception):
    """Anything that a user can mend. Exit status 1, one line, no traceback."""


class PictureError(Ls3dwError, ValueError):
    """A picture that cannot be decoded whole; in a build it becomes a recorded drop."""


class SourceError(Ls3dwError, ValueError):
    """A source folder is missing, empty or laid out in another way."""


class ConfigurationError(Ls3dwError, ValueError):
    """Options that cannot be used, or differ from what an output folder was made with."""


class OptionError(ConfigurationError):
    """Options of a call or a command that cannot be used, or not together. Exit status 2."""


class ModelError(Ls3dwError, ValueError):
    """A weights file that is missing, of another kind or shape, or not as its checksum says."""


class DatasetError(Ls3dwError, ValueError):
    """A data set that is missing, unfinished, damaged, or in use by another build."""


class PredictionError(Ls3dwError, ValueError):
    """Landmarks of another method that cannot be read, or belong to other faces."""


class AuditError(Ls3dwError, ValueError):
    """Decisions on faces that cannot be read, are of another data set, or contradict each other."""


class DeviceError(Ls3dwError, RuntimeError):
    """A GPU that is not there or cannot hold even one face."""


class WorkerError(Ls3dwError, RuntimeError):
    """A process of a build that was killed, or failed with an error that cannot be passed on."""


class TrainingError(Ls3dwError, RuntimeError):
    """A training run that cannot go on."""


class T7Error(Ls3dwError, ValueError):
    """A Torch7 file that is damaged, of another kind, or holds what cannot be read or written."""
