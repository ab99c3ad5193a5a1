"""Surface defects on a production line: from rendered or real images to a verdict for each part."""
