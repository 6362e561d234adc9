"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in what the user gave.

    The message is one sentence that names the offending value and the remedy. The command line
    prints it and exits with code 2; no traceback is shown.
    """
