// The triage of a frame in one pass. reference.py is the definition: integers alone, so equal bits.
//
// Rows of block means flow through a few rings of rows: means, means smoothed along the row, and
// those smoothed across rows; then the counts of each cell. The rings stay in the nearest cache; the
// frame is read once.
#include <stdint.h>
#include <string.h>

namespace triage {

constexpr int64_t kCell = 64, kBlocks = 32, kPad = 16, kReach = 2, kDirections = 4;
constexpr int64_t kStrip = 64;    // columns of cells; 4096 pixels
constexpr int64_t kAhead = 2;     // rows of blocks to fetch ahead
constexpr int64_t kEdge = kCell;  // bytes beside a row of a ring, on both sides
constexpr int64_t kMeanRows = kReach + 2, kSmoothRows = 2 * kReach + 1;  // all needed at once

// 32 blocks: one row of a cell. Vector types of the compiler serve every instruction set.
typedef uint8_t Bytes __attribute__((vector_size(32)));
typedef uint16_t Words __attribute__((vector_size(32)));
typedef uint64_t Sums __attribute__((vector_size(32)));
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
#if defined(__AVX2__)
  typedef char Chars __attribute__((vector_size(32)));
  return reinterpret_cast<Words>(
      __builtin_ia32_pmaddubsw256(reinterpret_cast<Chars>(value), Chars{} + 1));
#else
  const Words words = reinterpret_cast<Words>(value);
  return (words & 0xff) + (words >> 8);
#endif
}

// Sums of the absolute differences, in four parts.
inline Sums differences(Bytes a, Bytes b) {
#if defined(__AVX2__)
  typedef char Chars __attribute__((vector_size(32)));
  return reinterpret_cast<Sums>(
      __builtin_ia32_psadbw256(reinterpret_cast<Chars>(a), reinterpret_cast<Chars>(b)));
#else
  const Words two = pairs(above(a, b) | above(b, a));
  const Sums four = reinterpret_cast<Sums>(two);
  return (four & 0xffff) + ((four >> 16) & 0xffff) + ((four >> 32) & 0xffff) + (four >> 48);
#endif
}

inline Sums sums(Bytes value) { return differences(value, Bytes{}); }

inline int64_t total(Sums parts) {
  return static_cast<int64_t>(parts[0] + parts[1] + parts[2] + parts[3]);
}

// Into the second cache: the first one has too few misses in flight to keep up with the memory.
inline void fetch_ahead(const uint8_t* at) { __builtin_prefetch(at, 0, 2); }

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Means of 32 blocks from two rows of 64 pixels, times the gain: ((sum + 2) * gain) >> 16, at most
// 255; a gain of one leaves the mean, rounded.
inline Bytes mean_cell(const uint8_t* upper, const uint8_t* lower, uint16_t gain) {
  const Words left = pairs(load(upper)) + pairs(load(lower)) + 2;
  const Words right = pairs(load(upper + 32)) + pairs(load(lower + 32)) + 2;
  const Wide both = __builtin_shufflevector(left, right, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
                                            13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
                                            27, 28, 29, 30, 31);
  typedef uint32_t Doubles __attribute__((vector_size(128)));
  const Wide means = __builtin_convertvector(
      (__builtin_convertvector(both, Doubles) * static_cast<uint32_t>(gain)) >> 16, Wide);
  return __builtin_convertvector(__builtin_elementwise_min(means, Wide{} + 255), Bytes);
}

// A row of pixels' last cell, the edge repeated.
inline void tail(const uint8_t* row, int64_t width, int64_t from, uint8_t* out) {
  const int64_t count = width - from;
  memcpy(out, row + from, count);
  memset(out + count, row[width - 1], kCell - count);
}

struct Frame {
  const uint8_t* pixels;
  int64_t stride, height, width, rows, columns;  // the last two of cells
  uint16_t gain;
};

// Means of one row of blocks of the cells first to last, and of one more on both sides: at the
// frame's ends its edge repeated. Rows beyond the frame are its last.
inline void mean_row(const Frame& frame, int64_t first, int64_t last, int64_t y, uint8_t* out) {
  const uint8_t* upper = frame.pixels + least(2 * y, frame.height - 1) * frame.stride;
  const uint8_t* lower = frame.pixels + least(2 * y + 1, frame.height - 1) * frame.stride;
  const int64_t whole = frame.width / kCell;
  out -= first * kBlocks;
  const int64_t start = most(first - 1, 0), end = least(last + 1, frame.columns);
  const int64_t ahead = 2 * kAhead * frame.stride;
  for (int64_t c = start; c < least(end, whole); ++c) {
    fetch_ahead(upper + ahead + c * kCell);
    fetch_ahead(lower + ahead + c * kCell);
    store(out + c * kBlocks, mean_cell(upper + c * kCell, lower + c * kCell, frame.gain));
  }
  if (whole < end) {
    uint8_t one[kCell], other[kCell];
    tail(upper, frame.width, whole * kCell, one);
    tail(lower, frame.width, whole * kCell, other);
    store(out + whole * kBlocks, mean_cell(one, other, frame.gain));
  }
  const int64_t left = start * kBlocks, right = end * kBlocks;
  if (start == first) memset(out + left - kBlocks, out[left], kBlocks);
  if (end == last) memset(out + right, out[right - 1], kBlocks);
}

constexpr int64_t kRingRows = 2 * kMeanRows + kSmoothRows;
// No power of two: rows that lie so apart push each other out of the cache.
constexpr int64_t kRowBytes = kStrip * kBlocks + 3 * kEdge;

// Rings of rows, each with its edges.
struct Rings {
  uint8_t* memory;

  uint8_t* mean(int64_t y) const {
    return memory + ((y + kMeanRows) % kMeanRows) * kRowBytes + kEdge;
  }
  uint8_t* along(int64_t y) const { return mean(y) + kMeanRows * kRowBytes; }
  uint8_t* smooth(int64_t y) const {
    const int64_t row = 2 * kMeanRows + (y + kSmoothRows) % kSmoothRows;
    return memory + row * kRowBytes + kEdge;
  }
};

// What a cell has counted so far; bytes suffice for the 32 rows of blocks of a cell.
struct Counts {
  Bytes slight, peak, ridge, seen;
  Sums excess;  // modulo 2^64
};

inline Bytes smoothed(Bytes one, Bytes here, Bytes other) {
  return middle(middle(one, other), here);
}

// Smooth a row of means along itself, with a cell more on both sides. Its very ends read what
// `mean_row` never wrote; nothing reads them.
inline void along_row(const Rings& rings, int64_t y, int64_t columns) {
  const uint8_t* means = rings.mean(y);
  uint8_t* out = rings.along(y);
  for (int64_t x = -kBlocks; x < (columns + 1) * kBlocks; x += kBlocks) {
    store(out + x, smoothed(load(means + x - 1), load(means + x), load(means + x + 1)));
  }
}

// Smooth across rows; beyond the frame's last row of blocks, and before its first, it is repeated.
inline void smooth_row(const Rings& rings, int64_t y, int64_t bottom, int64_t columns) {
  const uint8_t* before = rings.along(most(least(y - 1, bottom), 0));
  const uint8_t* here = rings.along(most(least(y, bottom), 0));
  const uint8_t* after = rings.along(most(least(y + 1, bottom), 0));
  uint8_t* out = rings.smooth(y);
  for (int64_t x = -kBlocks; x < (columns + 1) * kBlocks; x += kBlocks) {
    store(out + x, smoothed(load(before + x), load(here + x), load(after + x)));
  }
}

// By how much a block stands out from both its sides.
inline Bytes stands_out(Bytes one, Bytes here, Bytes other) {
  return larger(above(here, larger(one, other)), above(smaller(one, other), here));
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

struct Levels {
  Bytes slight, strong;
  Bytes ridge[kDirections];
};

// Leaves the envelope of the last column's cell open where blocks reach beyond the frame; `phase` is
// the pixel at which its first block starts.
inline void open_beyond(const Frame& frame, int64_t phase, Bytes* low, Bytes* high) {
  const int64_t blocks = (frame.width - (frame.columns - 1) * kCell - phase) / 2;
  for (int64_t k = most(blocks, 0); k < kBlocks; ++k) {
    (*low)[k] = 0;
    (*high)[k] = 255;
  }
}

// By how much means leave the envelope.
inline Bytes leaving(Bytes mean, Bytes low, Bytes high) {
  return larger(above(mean, high), above(low, mean));
}

inline void count_row(const Frame& frame, const Rings& rings, const Envelope& envelope, int64_t y,
                      int64_t first, int64_t last, const int64_t* places, const Levels& levels,
                      Counts* counts) {
  const uint8_t* means = rings.mean(y);
  const uint8_t *up = rings.smooth(y - kReach), *here = rings.smooth(y),
                *down = rings.smooth(y + kReach);
  const int64_t down_envelope = (y % kBlocks) * envelope.stride;
  for (int64_t c = first; c < last; ++c) {
    const int64_t x = (c - first) * kBlocks;
    const int64_t at = places[c - first] + down_envelope;
    fetch_ahead(envelope.low + at + kAhead * envelope.stride);
    fetch_ahead(envelope.high + at + kAhead * envelope.stride);
    const Bytes mean = load(means + x);
    Bytes low = load(envelope.low + at), high = load(envelope.high + at);
    if (c + 1 == frame.columns) open_beyond(frame, 0, &low, &high);
    const Bytes seen = reinterpret_cast<Bytes>((low | ~high) != 0);
    const Bytes leaves = leaving(mean, low, high);
    Counts& cell = counts[c - first];
    cell.slight -= reinterpret_cast<Bytes>(leaves > levels.slight);
    cell.peak = larger(cell.peak, leaves);
    cell.seen -= seen;
    cell.excess += sums(mean & seen) - sums(middle(low, high) & seen);
    const auto at_side = [x](const uint8_t* row, int64_t by) { return load(row + x + by * kReach); };
    const Bytes centre = at_side(here, 0);
    const Bytes horizontal = stands_out(at_side(up, 0), centre, at_side(down, 0));
    const Bytes vertical = stands_out(at_side(here, -1), centre, at_side(here, 1));
    const Bytes falling = stands_out(at_side(up, 1), centre, at_side(down, -1));
    const Bytes rising = stands_out(at_side(up, -1), centre, at_side(down, 1));
    const Bytes stands = larger(
        larger(above(horizontal, levels.ridge[0]), above(vertical, levels.ridge[1])),
        larger(above(falling, levels.ridge[2]), above(rising, levels.ridge[3])));
    const Bytes even = (low & 1) - 1;
    cell.ridge += smaller(stands & seen & even, Bytes{} + 1);
  }
}

// Two rows of a cell's pixels and one more to the right; the edge repeated.
inline const uint8_t* with_next(const uint8_t* row, int64_t width, int64_t x, uint8_t* buffer) {
  if (x + kCell < width) return row + x;
  const int64_t count = width - x;
  memcpy(buffer, row + x, count);
  memset(buffer + count, row[width - 1], kCell + 1 - count);
  return buffer;
}

// Blocks of a cell that leave the envelope, wherever they start.
inline int64_t count_everywhere(const Frame& frame, const Envelope& envelope, int64_t r, int64_t c,
                                const int32_t* shift, Bytes levels) {
  uint8_t one[kCell + 1], other[kCell + 1];
  int64_t found = 0;
  for (int64_t py = 0; py < 2; ++py) {
    Bytes counts[2] = {Bytes{}, Bytes{}};
    const int64_t end = least((r + 1) * kBlocks, (frame.height - py) / 2);
    for (int64_t y = r * kBlocks; y < end; ++y) {
      const uint8_t* first = frame.pixels + (2 * y + py) * frame.stride;
      const uint8_t* second = first + frame.stride;
      const uint8_t* upper = with_next(first, frame.width, c * kCell, one);
      const uint8_t* lower = with_next(second, frame.width, c * kCell, other);
      for (int64_t px = 0; px < 2; ++px) {
        const int32_t moved[2] = {static_cast<int32_t>(shift[0] - py),
                                  static_cast<int32_t>(shift[1] - px)};
        const int64_t at = place(envelope, y, c, moved);
        Bytes low = load(envelope.low + at), high = load(envelope.high + at);
        if (c + 1 == frame.columns) open_beyond(frame, px, &low, &high);
        const Bytes leaves = leaving(mean_cell(upper + px, lower + px, frame.gain), low, high);
        counts[px] -= reinterpret_cast<Bytes>(leaves > levels);
      }
    }
    found += total(sums(counts[0])) + total(sums(counts[1]));
  }
  return found;
}

struct Output {
  uint16_t* outside;
  uint16_t* slight;
  uint8_t* peak;
  uint16_t* ridge;
  int32_t* excess;
  uint16_t* seen;
};

inline void write(const Counts& counts, int64_t cell, const Output& out) {
  out.slight[cell] = static_cast<uint16_t>(total(sums(counts.slight)));
  out.ridge[cell] = static_cast<uint16_t>(total(sums(counts.ridge)));
  out.seen[cell] = static_cast<uint16_t>(total(sums(counts.seen)));
  out.excess[cell] = static_cast<int32_t>(total(counts.excess));
  out.peak[cell] = __builtin_reduce_max(counts.peak);
}

inline void scan_strip(const Frame& frame, const Envelope& envelope, const Rings& rings,
                       int64_t first, int64_t last, const int32_t* shifts, const Levels& levels,
                       const Output& out) {
  const int64_t bottom = frame.rows * kBlocks - 1, columns = last - first;
  const auto take_row = [&](int64_t y) {
    if (y > bottom) return;
    mean_row(frame, first, last, y, rings.mean(y));
    along_row(rings, y, columns);
  };
  for (int64_t y = 0; y <= kReach; ++y) take_row(y);
  for (int64_t y = -kReach; y < kReach; ++y) smooth_row(rings, y, bottom, columns);
  Counts counts[kStrip];
  int64_t places[kStrip];  // of each cell's first row in the envelope
  for (int64_t r = 0; r < frame.rows; ++r) {
    memset(static_cast<void*>(counts), 0, sizeof counts);
    for (int64_t c = first; c < last; ++c) {
      const int32_t* shift = shifts + 2 * (r * frame.columns + c);
      places[c - first] = place(envelope, r * kBlocks, c, shift);
    }
    for (int64_t y = r * kBlocks; y < (r + 1) * kBlocks; ++y) {
      take_row(y + kReach + 1);
      smooth_row(rings, y + kReach, bottom, columns);
      // Blocks that are not wholly in the frame are not looked at.
      if (2 * y + 1 >= frame.height) break;
      count_row(frame, rings, envelope, y, first, last, places, levels, counts);
    }
    for (int64_t c = first; c < last; ++c) {
      const int64_t cell = r * frame.columns + c;
      write(counts[c - first], cell, out);
      out.outside[cell] = 0;
      if (out.slight[cell] > 0) {
        out.outside[cell] = static_cast<uint16_t>(
            count_everywhere(frame, envelope, r, c, shifts + 2 * cell, levels.strong));
      }
    }
  }
}

}  // namespace triage

// frame: (H, W) uint8; low, high: (4, 32 R + 32, 32 C + 32) uint8; shifts: (R, C, 2) int32;
// gain: see mean_cell; levels: slight and strong; contrasts: one for each direction; the outputs (R, C).
extern "C" void deepkits_triage_scan(const uint8_t* pixels, int64_t stride, int64_t height,
                                     int64_t width, const uint8_t* low, const uint8_t* high,
                                     const int32_t* shifts, int64_t gain,
                                     const uint8_t* levels,
                                     const uint8_t* contrasts, uint16_t* outside, uint16_t* slight,
                                     uint8_t* peak, uint16_t* ridge, int32_t* excess,
                                     uint16_t* seen) {
  using namespace triage;
  const int64_t rows = (height + kCell - 1) / kCell, columns = (width + kCell - 1) / kCell;
  const Frame frame = {pixels, stride, height, width, rows, columns,
                       static_cast<uint16_t>(gain)};
  const int64_t envelope_stride = columns * kBlocks + 2 * kPad;
  const Envelope envelope = {low, high, envelope_stride,
                             envelope_stride * (rows * kBlocks + 2 * kPad)};
  const Output out = {outside, slight, peak, ridge, excess, seen};
  Levels limits;
  limits.slight = splat(levels[0]);
  limits.strong = splat(levels[1]);
  for (int64_t d = 0; d < kDirections; ++d) limits.ridge[d] = splat(contrasts[d]);
  alignas(64) uint8_t memory[kRingRows * kRowBytes];
  // The outermost bytes of the means only reach what nothing reads; they need some value.
  memset(memory, 0, sizeof memory);
  for (int64_t first = 0; first < columns; first += kStrip) {
    scan_strip(frame, envelope, Rings{memory}, first, least(first + kStrip, columns), shifts,
               limits, out);
  }
}

namespace triage {

// The pixels and blocks of a patch that `match` needs next: they lie on as many pages as rows, which
// no processor foresees.
inline void fetch(const Frame& frame, const Envelope& planes, int64_t row, int64_t column,
                  const int32_t* base) {
  const int64_t y = kCell * row + base[0], x = kCell * column + base[1];
  if (y < 0 || x < 0 || y + kCell > frame.height || x + kCell > frame.width) return;
  for (int64_t k = 0; k < kCell; ++k) {
    fetch_ahead(frame.pixels + (y + k) * frame.stride + x);
    fetch_ahead(frame.pixels + (y + k) * frame.stride + x + kCell - 1);
  }
  const int32_t still[2] = {0, 0};
  const uint8_t* at = planes.low + place(planes, row * kBlocks, column, still);
  for (int64_t plane = 0; plane < 4; ++plane, at += planes.plane) {
    for (int64_t k = 0; k < kBlocks; ++k) fetch_ahead(at + k * planes.stride);
  }
}

}  // namespace triage

// patches, base: (P, 2) int32; found: (P, 2 radius + 1, 2 radius + 1) uint32; brightness:
// (P,) uint32.
extern "C" void deepkits_triage_match(const uint8_t* frame, int64_t stride, int64_t height,
                                      int64_t width, const uint8_t* reference, int64_t count,
                                      const int32_t* patches, const int32_t* base, int64_t radius,
                                      int64_t gain, uint32_t* found, uint32_t* brightness) {
  using namespace triage;
  const int64_t rows = (height + kCell - 1) / kCell, columns = (width + kCell - 1) / kCell;
  const int64_t reference_stride = columns * kBlocks + 2 * kPad;
  const int64_t plane = reference_stride * (rows * kBlocks + 2 * kPad);
  const Envelope planes = {reference, reference, reference_stride, plane};
  const Frame seen = {frame, stride, height, width, rows, columns, static_cast<uint16_t>(gain)};
  const int64_t size = 2 * radius + 1;
  uint8_t means[kBlocks * kBlocks];
  for (int64_t k = 0; k < count; ++k, found += size * size) {
    const int64_t row = patches[2 * k], column = patches[2 * k + 1];
    const int64_t y = kCell * row + base[2 * k], x = kCell * column + base[2 * k + 1];
    if (k + 1 < count) {
      fetch(seen, planes, patches[2 * k + 2], patches[2 * k + 3], base + 2 * k + 2);
    }
    if (y < 0 || x < 0 || y + kCell > height || x + kCell > width) {
      memset(found, 0, size * size * sizeof *found);
      brightness[k] = 0;
      continue;
    }
    Sums all = Sums{};
    for (int64_t r = 0; r < kBlocks; ++r) {
      const uint8_t* upper = frame + (y + 2 * r) * stride + x;
      const Bytes row_means = mean_cell(upper, upper + stride, seen.gain);
      store(means + r * kBlocks, row_means);
      all += sums(row_means);
    }
    brightness[k] = static_cast<uint32_t>(total(all));
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        const int32_t shift[2] = {static_cast<int32_t>(i - radius),
                                  static_cast<int32_t>(j - radius)};
        const uint8_t* at = planes.low + place(planes, row * kBlocks, column, shift);
        Sums parts = Sums{};
        for (int64_t r = 0; r < kBlocks; ++r) {
          parts += differences(load(means + r * kBlocks), load(at + r * reference_stride));
        }
        found[i * size + j] = static_cast<uint32_t>(total(parts));
      }
    }
  }
}
