"""Where frames come from: each source gives the next one when a trigger asks for it."""
