"""What executors run: functions of Arrow batches, which know no engine."""
