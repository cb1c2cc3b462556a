"""The command `vestal logs`: the logs of all services, merged by time, in sentences or as JSON."""
