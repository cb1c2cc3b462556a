"""Apply the journal's events to the incidents: one method for each event, with the event's name."""
