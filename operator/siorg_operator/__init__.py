"""The operator: one ``SiorgSyncWorker`` says how a queue is to be drained; this scales run-to-exhaustion Jobs from its depth."""
