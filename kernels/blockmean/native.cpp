// Means of blocks of int16 voxels. reference.py is the definition: exact sums, one division.
#include <stdint.h>

namespace blockmean {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Adds a row into sums[W / c]; a block of c voxels each, the last of what is left.
template <int C>
inline void add_row(const int16_t* row, int64_t width, int64_t factor, int32_t* sums) {
  const int64_t step = C ? C : factor;
  const int64_t whole = width / step;
  for (int64_t x = 0; x < whole; ++x) {
    int32_t sum = 0;
    for (int64_t k = 0; k < step; ++k) sum += row[x * step + k];
    sums[x] += sum;
  }
  for (int64_t x = whole * step; x < width; ++x) sums[whole] += row[x];
}

using AddRow = void (*)(const int16_t*, int64_t, int64_t, int32_t*);

inline AddRow choose(int64_t factor) {
  switch (factor) {
    case 1: return add_row<1>;
    case 2: return add_row<2>;
    case 3: return add_row<3>;
    case 4: return add_row<4>;
    default: return add_row<0>;
  }
}

constexpr int64_t kColumns = 4096;  // of blocks summed at a time, on the stack

}  // namespace blockmean

// voxels: (D, H, W) int16, strides of the first two axes in bytes, the last in one piece; out:
// (ceil(D/a), ceil(H/b), ceil(W/c)) float32, of which the slices first to last are written.
extern "C" void deepkits_blockmean_run(const char* voxels, int64_t slice_stride, int64_t row_stride,
                                       int64_t depth, int64_t height, int64_t width, int64_t a,
                                       int64_t b, int64_t c, int64_t first, int64_t last,
                                       float* out) {
  using namespace blockmean;
  const AddRow add = choose(c);
  const int64_t rows = (height + b - 1) / b, columns = (width + c - 1) / c;
  int32_t sums[kColumns];
  for (int64_t z = first; z < last; ++z) {
    const int64_t z_end = least(z * a + a, depth);
    for (int64_t y = 0; y < rows; ++y) {
      const int64_t y_end = least(y * b + b, height);
      float* row = out + (z * rows + y) * columns;
      for (int64_t x = 0; x < columns; x += kColumns) {
        const int64_t count = least(kColumns, columns - x);
        const int64_t voxels_left = least(kColumns * c, width - x * c);
        for (int64_t k = 0; k < count; ++k) sums[k] = 0;
        for (int64_t zz = z * a; zz < z_end; ++zz) {
          for (int64_t yy = y * b; yy < y_end; ++yy) {
            const char* at = voxels + zz * slice_stride + yy * row_stride;
            add(reinterpret_cast<const int16_t*>(at) + x * c, voxels_left, c, sums);
          }
        }
        const int64_t block = (z_end - z * a) * (y_end - y * b);
        for (int64_t k = 0; k < count; ++k) {
          const int64_t held = block * least(c, width - (x + k) * c);
          row[x + k] = static_cast<float>(sums[k]) / static_cast<float>(held);
        }
      }
    }
  }
}
