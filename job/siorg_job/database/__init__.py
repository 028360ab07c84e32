"""What the job has with the database beside the queue: its thread, the request rate that all processes share, the switch."""
