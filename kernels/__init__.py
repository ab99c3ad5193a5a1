"""Native kernels: one folder per operation, C++ behind a C ABI beside its plain reference."""
