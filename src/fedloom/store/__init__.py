"""What survives a crash: the journal of a run, its states, the folder it lives in."""
