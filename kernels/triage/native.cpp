// The triage of a frame in one pass. reference.py is the definition: integers alone, so equal bits.
//
// Rows of block means flow through a few rings of rows that stay in the nearest caches: means,
// then the smoothed lines of four directions, then the counts of each cell. The frame is read once.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace triage {

constexpr int64_t kCell = 64, kBlocks = 32, kPad = 16, kReach = 2, kDirections = 4;
constexpr int64_t kEdge = 64;                           // bytes beside a row of a ring, both sides
constexpr int64_t kMeanRows = 4, kLineRows = 2 * kReach + 1;  // of a ring, all needed at once

// 32 blocks: one row of a cell. Vector types of the compiler serve every instruction set.
typedef uint8_t Bytes __attribute__((vector_size(32)));
typedef uint16_t Words __attribute__((vector_size(32)));
typedef uint16_t Wide __attribute__((vector_size(64)));

inline Bytes load(const uint8_t* at) {
  Bytes value;
  memcpy(&value, at, sizeof value);
  return value;
}

inline void store(uint8_t* at, Bytes value) { memcpy(at, &value, sizeof value); }

inline Bytes splat(int64_t value) { return Bytes{} + static_cast<uint8_t>(value); }

inline Bytes larger(Bytes a, Bytes b) { return __builtin_elementwise_max(a, b); }
inline Bytes smaller(Bytes a, Bytes b) { return __builtin_elementwise_min(a, b); }
inline Bytes above(Bytes a, Bytes b) { return __builtin_elementwise_sub_sat(a, b); }

// (a + b + 1) / 2, which every instruction set has.
inline Bytes middle(Bytes a, Bytes b) {
  const Wide sum = __builtin_convertvector(a, Wide) + __builtin_convertvector(b, Wide) + 1;
  return __builtin_convertvector(sum >> 1, Bytes);
}

// Sums of neighbouring bytes.
inline Words pairs(Bytes value) {
  Words words;
  memcpy(&words, &value, sizeof words);
  return (words & 0xff) + (words >> 8);
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Means of 32 blocks from two rows of 64 pixels.
inline void mean_cell(const uint8_t* upper, const uint8_t* lower, uint8_t* out) {
  Wide a, b;
  memcpy(&a, upper, sizeof a);
  memcpy(&b, lower, sizeof b);
  const Wide sum = (a & 0xff) + (a >> 8) + (b & 0xff) + (b >> 8) + 2;
  store(out, __builtin_convertvector(sum >> 2, Bytes));
}

// A row of pixels' last cell, the edge repeated.
inline void tail(const uint8_t* row, int64_t width, int64_t from, uint8_t* out) {
  const int64_t count = width - from;
  memcpy(out, row + from, count);
  memset(out + count, row[width - 1], kCell - count);
}

// Means of one row of blocks, with the edge repeated on both sides; rows beyond the frame are its
// last.
inline void mean_row(const uint8_t* frame, int64_t stride, int64_t height, int64_t width,
                     int64_t columns, int64_t y, uint8_t* out) {
  const uint8_t* upper = frame + least(2 * y, height - 1) * stride;
  const uint8_t* lower = frame + least(2 * y + 1, height - 1) * stride;
  const int64_t whole = width / kCell;
  for (int64_t c = 0; c < whole; ++c) {
    mean_cell(upper + c * kCell, lower + c * kCell, out + c * kBlocks);
  }
  if (whole < columns) {
    uint8_t first[kCell], second[kCell];
    tail(upper, width, whole * kCell, first);
    tail(lower, width, whole * kCell, second);
    mean_cell(first, second, out + whole * kBlocks);
  }
  memset(out - kEdge, out[0], kEdge);
  memset(out + columns * kBlocks, out[columns * kBlocks - 1], kEdge);
}

// Rings of rows, each with its edges.
struct Rings {
  uint8_t* memory;
  int64_t stride;

  uint8_t* mean(int64_t y) const {
    return memory + ((y + kMeanRows) % kMeanRows) * stride + kEdge;
  }
  uint8_t* line(int64_t direction, int64_t y) const {
    const int64_t row = (y + 2 * kLineRows) % kLineRows;
    return memory + (kMeanRows + direction * kLineRows + row) * stride + kEdge;
  }
};

// What a cell has counted so far; bytes suffice for the 32 rows of blocks of a cell.
struct Counts {
  Bytes outside, peak, seen;
  Bytes ridge[kDirections];
  Words excess;  // modulo 2^16; it stays within a signed word
};

inline Bytes smooth(Bytes one, Bytes here, Bytes other) {
  return middle(middle(one, other), here);
}

// The lines of one row. The side blocks of a ridge reach two beyond the row, so they start before.
inline void line_rows(const Rings& rings, int64_t y, int64_t top, int64_t bottom,
                      int64_t columns) {
  const uint8_t* before = rings.mean(most(least(y - 1, bottom), top));
  const uint8_t* here = rings.mean(most(least(y, bottom), top));
  const uint8_t* after = rings.mean(most(least(y + 1, bottom), top));
  uint8_t* out[kDirections];
  for (int64_t d = 0; d < kDirections; ++d) out[d] = rings.line(d, y);
  const int64_t start = -kBlocks, end = (columns + 1) * kBlocks;
  for (int64_t x = start; x < end; x += kBlocks) {
    const Bytes centre = load(here + x);
    store(out[0] + x, smooth(load(here + x - 1), centre, load(here + x + 1)));
    store(out[1] + x, smooth(load(before + x), centre, load(after + x)));
    store(out[2] + x, smooth(load(before + x - 1), centre, load(after + x + 1)));
    store(out[3] + x, smooth(load(before + x + 1), centre, load(after + x - 1)));
  }
}

// By how much a block stands out from both its sides.
inline Bytes stands_out(const uint8_t* one, const uint8_t* here, const uint8_t* other) {
  const Bytes a = load(one), b = load(here), c = load(other);
  return larger(above(b, larger(a, c)), above(smaller(a, c), b));
}

struct Envelope {
  const uint8_t* low;
  const uint8_t* high;
  int64_t stride, plane;
};

// Where the envelope of row y, cell column c lies for a shift.
inline int64_t place(const Envelope& envelope, int64_t y, int64_t c, const int32_t* shift) {
  const int64_t py = 2 * y - shift[0], px = kCell * c - shift[1];
  const int64_t parity = 2 * (py & 1) + (px & 1);
  return parity * envelope.plane + ((py >> 1) + kPad) * envelope.stride + (px >> 1) + kPad;
}

inline void count_row(const Rings& rings, const Envelope& envelope, int64_t y, int64_t columns,
                      const int32_t* shifts, int64_t levels, int64_t contrast, Counts* counts) {
  const uint8_t* means = rings.mean(y);
  const uint8_t* here[kDirections];
  for (int64_t d = 0; d < kDirections; ++d) here[d] = rings.line(d, y);
  const uint8_t *above_horizontal = rings.line(0, y - kReach),
                *below_horizontal = rings.line(0, y + kReach);
  const uint8_t *above_falling = rings.line(2, y - kReach), *below_falling = rings.line(2, y + kReach);
  const uint8_t *above_rising = rings.line(3, y - kReach), *below_rising = rings.line(3, y + kReach);
  const Bytes limit = splat(levels), height = splat(contrast);
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t x = c * kBlocks;
    const int64_t at = place(envelope, y, c, shifts + 2 * c);
    const Bytes mean = load(means + x);
    const Bytes low = load(envelope.low + at), high = load(envelope.high + at);
    const Bytes seen = reinterpret_cast<Bytes>((low | ~high) != 0);
    const Bytes leaves = larger(above(mean, high), above(low, mean));
    Counts& cell = counts[c];
    cell.outside -= reinterpret_cast<Bytes>(leaves > limit);
    cell.peak = larger(cell.peak, leaves);
    cell.seen -= seen;
    cell.excess += pairs(mean & seen) - pairs(middle(low, high) & seen);
    const Bytes out[kDirections] = {
        stands_out(above_horizontal + x, here[0] + x, below_horizontal + x),
        stands_out(here[1] + x - kReach, here[1] + x, here[1] + x + kReach),
        stands_out(above_falling + x + kReach, here[2] + x, below_falling + x - kReach),
        stands_out(above_rising + x - kReach, here[3] + x, below_rising + x + kReach),
    };
    for (int64_t d = 0; d < kDirections; ++d) {
      cell.ridge[d] -= reinterpret_cast<Bytes>(out[d] > height) & seen;
    }
  }
}

inline int64_t sum(Bytes value) {
  int64_t total = 0;
  for (int64_t k = 0; k < 32; ++k) total += value[k];
  return total;
}

struct Output {
  uint16_t* outside;
  uint8_t* peak;
  uint16_t* ridge;
  int32_t* excess;
  uint16_t* seen;
};

inline void write(const Counts& counts, int64_t cell, const Output& out) {
  out.outside[cell] = static_cast<uint16_t>(sum(counts.outside));
  out.seen[cell] = static_cast<uint16_t>(sum(counts.seen));
  for (int64_t d = 0; d < kDirections; ++d) {
    out.ridge[cell * kDirections + d] = static_cast<uint16_t>(sum(counts.ridge[d]));
  }
  uint8_t peak = 0;
  for (int64_t k = 0; k < 32; ++k) peak = counts.peak[k] > peak ? counts.peak[k] : peak;
  out.peak[cell] = peak;
  int32_t excess = 0;
  for (int64_t k = 0; k < 16; ++k) excess += static_cast<int16_t>(counts.excess[k]);
  out.excess[cell] = excess;
}

}  // namespace triage

// frame: (H, W) uint8; low, high: (4, 32 R + 32, 32 C + 32) uint8; shifts: (R, C, 2) int32; the
// outputs (R, C), ridge (R, C, 4). Returns 0 if there is no memory for the rings.
extern "C" int32_t deepkits_triage_scan(const uint8_t* frame, int64_t stride, int64_t height,
                                        int64_t width, const uint8_t* low, const uint8_t* high,
                                        const int32_t* shifts, int64_t levels, int64_t contrast,
                                        uint16_t* outside, uint8_t* peak, uint16_t* ridge,
                                        int32_t* excess, uint16_t* seen) {
  using namespace triage;
  const int64_t rows = (height + kCell - 1) / kCell, columns = (width + kCell - 1) / kCell;
  const int64_t bottom = rows * kBlocks - 1;
  const int64_t ring_rows = kMeanRows + kDirections * kLineRows;
  const int64_t row_bytes = columns * kBlocks + 2 * kEdge;
  const int64_t counts_bytes = columns * static_cast<int64_t>(sizeof(Counts));
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, counts_bytes + ring_rows * row_bytes) != 0) return 0;
  Counts* counts = static_cast<Counts*>(memory);
  const Rings rings = {static_cast<uint8_t*>(memory) + counts_bytes, row_bytes};
  const int64_t envelope_stride = columns * kBlocks + 2 * kPad;
  const Envelope envelope = {low, high, envelope_stride,
                             envelope_stride * (rows * kBlocks + 2 * kPad)};
  const Output out = {outside, peak, ridge, excess, seen};

  for (int64_t y = 0; y < kReach; ++y) {
    mean_row(frame, stride, height, width, columns, y, rings.mean(y));
  }
  for (int64_t y = -kReach; y < kReach; ++y) {
    if (y + 1 >= kReach) mean_row(frame, stride, height, width, columns, y + 1, rings.mean(y + 1));
    line_rows(rings, y, 0, bottom, columns);
  }
  for (int64_t r = 0; r < rows; ++r) {
    memset(static_cast<void*>(counts), 0, counts_bytes);
    for (int64_t k = 0; k < kBlocks; ++k) {
      const int64_t y = r * kBlocks + k, next = y + kReach + 1;
      if (next <= bottom) {
        mean_row(frame, stride, height, width, columns, next, rings.mean(next));
      }
      line_rows(rings, y + kReach, 0, bottom, columns);
      count_row(rings, envelope, y, columns, shifts + 2 * r * columns, levels, contrast, counts);
    }
    for (int64_t c = 0; c < columns; ++c) write(counts[c], r * columns + c, out);
  }
  free(memory);
  return 1;
}

// patches, base: (P, 2) int32; found: (P, 2 radius + 1, 2 radius + 1) uint32.
extern "C" void deepkits_triage_match(const uint8_t* frame, int64_t stride, int64_t height,
                                      int64_t width, const uint8_t* reference, int64_t count,
                                      const int32_t* patches, const int32_t* base, int64_t radius,
                                      uint32_t* found) {
  using namespace triage;
  const int64_t rows = (height + kCell - 1) / kCell, columns = (width + kCell - 1) / kCell;
  const int64_t reference_stride = columns * kBlocks + 2 * kPad;
  const int64_t plane = reference_stride * (rows * kBlocks + 2 * kPad);
  const Envelope planes = {reference, reference, reference_stride, plane};
  const int64_t size = 2 * radius + 1;
  uint8_t means[kBlocks * kBlocks];
  for (int64_t k = 0; k < count; ++k, found += size * size) {
    const int64_t row = patches[2 * k], column = patches[2 * k + 1];
    const int64_t y = kCell * row + base[2 * k], x = kCell * column + base[2 * k + 1];
    if (y < 0 || x < 0 || y + kCell > height || x + kCell > width) {
      memset(found, 0, size * size * sizeof *found);
      continue;
    }
    for (int64_t r = 0; r < kBlocks; ++r) {
      const uint8_t* upper = frame + (y + 2 * r) * stride + x;
      mean_cell(upper, upper + stride, means + r * kBlocks);
    }
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        const int32_t shift[2] = {static_cast<int32_t>(i - radius),
                                  static_cast<int32_t>(j - radius)};
        const uint8_t* at = planes.low + place(planes, row * kBlocks, column, shift);
        uint32_t total = 0;
        for (int64_t r = 0; r < kBlocks; ++r) {
          for (int64_t c = 0; c < kBlocks; ++c) {
            const int32_t difference = means[r * kBlocks + c] - at[r * reference_stride + c];
            total += static_cast<uint32_t>(difference < 0 ? -difference : difference);
          }
        }
        found[i * size + j] = total;
      }
    }
  }
}
