"""The one exception that means: what the user gave is wrong."""


class InputError(Exception):
    """Bad input or configuration.

    The message is one line: it names the file, column or key, the value received and what is allowed.
    The command line prints it and exits with code 2.
    """
