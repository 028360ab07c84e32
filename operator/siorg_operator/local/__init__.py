"""The same resource on this machine, with processes in place of Jobs."""
