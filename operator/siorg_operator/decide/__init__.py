"""The decision: values in, values out. No input, no output, no clock."""
