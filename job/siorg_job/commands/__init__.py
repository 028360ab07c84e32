"""One file a command of ``siorg-job``: each has ``add_to(subparsers)`` and the function that does the work."""
