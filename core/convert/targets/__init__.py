"""One file for each conversion target; each holds its converter as CONVERTER."""
