"""What a run needs, looked at and tried: one module a kind of check, ``checks`` lists them.

A check is a function of the open connection and the settings that gives findings. One that fails itself is a finding, too,
and keeps no other from looking.
"""
