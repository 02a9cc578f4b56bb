"""The exceptions of headscope.

```text
HeadscopeError
├── ShapeError (ValueError)        sizes, dtypes or devices that do not fit together
├── MaskError (ValueError)         a mask or a bias that means nothing, or not for these sizes
├── BackendRefused (ValueError)    the path that was asked for cannot run this; lists every reason
├── LookError (ValueError)         a statistic asked of something that does not have it
├── NothingRecorded (RuntimeError) a recording block in which no attention was seen
├── OverBudget (MemoryError)       a recording that would need more memory than was allowed
├── RecordingError (ValueError)    a recording on disk that is damaged, altered, or not one
├── ModelError (ValueError)        a model that cannot be found, checked or loaded
├── TrainingError (RuntimeError)   a training run that cannot go on, or data it cannot use
├── UnsupportedVersion (RuntimeError)  the installed torch or transformers lacks or changed something that this needs
└── MissingExtra (ImportError)     an optional library that this needs is not installed
```

Messages say what was given, what was expected, and what to do.
"""

from headscope.characters import printable


class HeadscopeError(Exception):
    """The root of every exception that headscope raises on purpose.

    Its message may quote labels, names and paths: what could act on a terminal in them is written out.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ShapeError(HeadscopeError, ValueError):
    """Sizes, dtypes or devices that do not fit together."""


class MaskError(HeadscopeError, ValueError):
    """A mask or a bias that means nothing, or that was made for other sizes."""


class BackendRefused(HeadscopeError, ValueError):
    """The path that was asked for cannot run this request; the message lists every reason."""


class LookError(HeadscopeError, ValueError):
    """A statistic or a weight was asked of something that does not have it."""


class NothingRecorded(HeadscopeError, RuntimeError):
    """A recording block ended and no attention had been seen in it."""


class OverBudget(HeadscopeError, MemoryError):
    """A recording would need more memory than was allowed; it stops before it does."""


class RecordingError(HeadscopeError, ValueError):
    """A recording on disk that is damaged, altered, of a newer format, or not a recording."""


class ModelError(HeadscopeError, ValueError):
    """A model that cannot be found, checked or loaded."""


class TrainingError(HeadscopeError, RuntimeError):
    """A training run that cannot go on, or data it cannot use."""


class UnsupportedVersion(HeadscopeError, RuntimeError):
    """The installed torch or transformers lacks, or has changed, a private name that this needs."""


class MissingExtra(HeadscopeError, ImportError):
    """An optional library that this needs is not installed."""
