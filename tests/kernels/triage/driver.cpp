// Runs the triage of a shared library on a frame from stdin and writes what it found to stdout, for
// processors that only an emulator has. The C ABI is that of kernels/triage/native.cpp.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

using Scan = void (*)(const uint8_t*, int64_t, int64_t, int64_t, const uint8_t*, const uint8_t*,
                      const int32_t*, int64_t, const uint8_t*, const uint8_t*, uint16_t*, uint16_t*,
                      uint8_t*, uint16_t*, int32_t*, uint16_t*);
using Match = void (*)(const uint8_t*, int64_t, int64_t, int64_t, const uint8_t*, int64_t,
                       const int32_t*, const int32_t*, int64_t, int64_t, uint32_t*, uint32_t*);

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
  const auto scan = reinterpret_cast<Scan>(dlsym(library, "deepkits_triage_scan"));
  const auto match = reinterpret_cast<Match>(dlsym(library, "deepkits_triage_match"));
  const int64_t* size = input<int64_t>(7);  // height, width, cells, bytes of planes, patches, radius, gain
  const int64_t height = size[0], width = size[1], cells = size[2], patches = size[4];
  const uint8_t* frame = input<uint8_t>(height * width);
  const uint8_t* low = input<uint8_t>(size[3]);
  const uint8_t* high = input<uint8_t>(size[3]);
  const int32_t* shifts = input<int32_t>(2 * cells);
  const uint8_t* levels = input<uint8_t>(2);
  const uint8_t* contrasts = input<uint8_t>(4);
  const int32_t* places = input<int32_t>(2 * patches);
  const int32_t* base = input<int32_t>(2 * patches);
  uint16_t* outside = room<uint16_t>(cells);
  uint16_t* slight = room<uint16_t>(cells);
  uint8_t* peak = room<uint8_t>(cells);
  uint16_t* ridge = room<uint16_t>(cells);
  int32_t* excess = room<int32_t>(cells);
  uint16_t* seen = room<uint16_t>(cells);
  const int64_t sums = patches * (2 * size[5] + 1) * (2 * size[5] + 1);
  uint32_t* found = room<uint32_t>(sums);
  uint32_t* brightness = room<uint32_t>(patches);
  scan(frame, width, height, width, low, high, shifts, size[6], levels, contrasts, outside, slight, peak,
       ridge, excess, seen);
  match(frame, width, height, width, low, patches, places, base, size[5], size[6], found, brightness);
  fwrite(outside, sizeof(uint16_t), cells, stdout);
  fwrite(slight, sizeof(uint16_t), cells, stdout);
  fwrite(peak, sizeof(uint8_t), cells, stdout);
  fwrite(ridge, sizeof(uint16_t), cells, stdout);
  fwrite(excess, sizeof(int32_t), cells, stdout);
  fwrite(seen, sizeof(uint16_t), cells, stdout);
  fwrite(found, sizeof(uint32_t), sums, stdout);
  fwrite(brightness, sizeof(uint32_t), patches, stdout);
  return 0;
}
