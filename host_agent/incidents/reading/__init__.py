"""Apply the journal's events to the incidents. Each event has a method with the event's name."""
