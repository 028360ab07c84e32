"""What both programs run on: environment, logs, redaction, backoff, version. Knows neither of them, nor the queue."""
