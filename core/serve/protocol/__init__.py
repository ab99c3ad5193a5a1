"""Open Inference Protocol v2 over gRPC: its messages, and tensors in them."""
