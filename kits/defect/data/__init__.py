"""Images with boxes of defects: rendered, a user's own, or published."""
