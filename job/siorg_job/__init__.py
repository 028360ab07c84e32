"""The drain job: brings the local structure in line with SIORG from the queue, and exits."""
