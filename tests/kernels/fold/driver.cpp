// Runs the fold of a shared library on events from stdin and writes its rows to stdout, for
// processors that only an emulator has. The C ABI is that of kernels/fold/native.cpp.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

using Create = void* (*)(int32_t, const int32_t*);
using Run = int64_t (*)(void*, int64_t, const int64_t*, const uint64_t*, const double*, int64_t,
                        const int64_t*, const int64_t*, const int8_t*, int64_t*, int64_t, float*,
                        int32_t*, int8_t*, int32_t*, int8_t*);

template <typename T>
T* input(int64_t count) {
  T* values = static_cast<T*>(malloc(count * sizeof(T) + 1));
  if (fread(values, sizeof(T), count, stdin) != static_cast<size_t>(count)) exit(3);
  return values;
}

template <typename T>
T* room(int64_t count) {
  return static_cast<T*>(malloc(count * sizeof(T) + 1));
}

int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  const auto create = reinterpret_cast<Create>(dlsym(library, "deepkits_fold_create"));
  const auto run = reinterpret_cast<Run>(dlsym(library, "deepkits_fold_run"));
  const int64_t* size = input<int64_t>(4);  // events, roles, labels, features
  const int64_t n = size[0], roles = size[1], labels = size[2], features = size[3];
  const int32_t* kinds = input<int32_t>(roles);
  const int64_t* time = input<int64_t>(n);
  const uint64_t* tokens = input<uint64_t>(n * roles);
  const double* amount = input<double>(n);
  const int64_t* label_event = input<int64_t>(labels);
  const int64_t* label_time = input<int64_t>(labels);
  const int8_t* label_value = input<int8_t>(labels);
  float* out_features = room<float>(n * features);
  int32_t* history = room<int32_t>(n * 16);
  int8_t* history_status = room<int8_t>(n * 16);
  int32_t* neighbours = room<int32_t>(n * 32);
  int8_t* neighbour_status = room<int8_t>(n * 32);
  int64_t used = 0;
  const int64_t done =
      run(create(static_cast<int32_t>(roles), kinds), n, time, tokens, amount, labels, label_event,
          label_time, label_value, &used, features, out_features, history, history_status,
          neighbours, neighbour_status);
  if (done != n) return 4;
  fwrite(out_features, sizeof(float), n * features, stdout);
  fwrite(history, sizeof(int32_t), n * 16, stdout);
  fwrite(history_status, sizeof(int8_t), n * 16, stdout);
  fwrite(neighbours, sizeof(int32_t), n * 32, stdout);
  fwrite(neighbour_status, sizeof(int8_t), n * 32, stdout);
  return 0;
}
