"""What each event of the journal says: one method for each, named like the event."""
