"""What the job has with the database beside the queue: its thread, the pace that all processes share, the switch."""
