"""The line: from a frame to a verdict. No torch, no training code."""
