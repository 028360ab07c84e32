"""A SIORG to develop and test against: answers as the open API does, from captured or generated structures.

Nothing here is used in production, and the job does not import it. Start it with ``siorg-simulator`` or
``python -m siorg_simulator``; ``--help`` says everything it can be told.
"""
