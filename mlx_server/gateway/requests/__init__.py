"""The life of a request in the gateway: admitted, queued, run, parked when the engine dies, finished."""
