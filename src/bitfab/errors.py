"""The one exception that means: the user's input or machine is at fault, not bitfab."""


class BitfabError(Exception):
    """A one-line message that names the thing, the reason and the remedy; the command line exits with code 2 on it."""
