"""What a person must hear of without looking: on the desktop, and at a webhook."""
