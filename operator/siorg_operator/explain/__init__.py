"""``siorg-operator explain``: the decision that would be made now. Launches and writes nothing."""
