"""What goes wrong with embedded servers. Every message says what to do about it."""

from __future__ import annotations


class EmbeddedServerError(Exception):
    """An embedded server could not be had, started or reached.

    The message names the cause and the remedy, and carries the end of the server's log if it has
    one. It is meant to be shown to a person as it is.
    """


class PortTakenError(EmbeddedServerError):
    """The server's port was taken by another process between choosing it and binding it."""
