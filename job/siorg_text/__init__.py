"""What job and operator write alike: the form of a log line, and where secrets stand in a text. Pure, and quick to import."""
