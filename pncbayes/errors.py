"""Errors that a user can act on.

Each names the thing, the value, what is allowed and what to do.
"""

__all__ = ["DiagnosticError", "ModelFileError", "PhotonFileError", "PncbayesWarning"]


class PhotonFileError(ValueError):
    """A photon or trace file cannot be read, or does not hold what it claims."""


class ModelFileError(ValueError):
    """A model file is wrong: the message names the key, the value and what is allowed."""


class DiagnosticError(ValueError):
    """A fit did not pass its own diagnostics, and the caller asked for strictness."""


class PncbayesWarning(UserWarning):
    """Something about the data or the fit that a reader of the result has to know."""
