// Arithmetic that gives the same bits on every machine: no libm, no contraction (-ffp-contract=off).
#pragma once
#include <stdint.h>
#include <string.h>

namespace fold {

inline double from_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint64_t to_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

constexpr uint64_t kInfinityBits = 0x7ff0000000000000ull;

inline double not_a_number() { return from_bits(0x7ff8000000000000ull); }

// (-ln 2)^k / k!: the Taylor series of 2^-f, below 1e-16 relative for f in [0, 1).
constexpr double kExp2[] = {
    1.0,
    -0.6931471805599453,
    0.2402265069591007,
    -0.05550410866482158,
    0.009618129107628477,
    -0.0013333558146428441,
    0.00015403530393381606,
    -1.5252733804059837e-05,
    1.3215486790144305e-06,
    -1.0178086009239696e-07,
    7.0549116208011225e-09,
    -4.4455382718708110e-10,
    2.5678435993488196e-11,
    -1.3691488853904124e-12,
};

// 2^-x for x >= 0; 1 below, 0 from x = 1000 on. No branch: a loop of them becomes vectors.
inline double exp2_negative(double x) {
  const bool small = x < 1000.0;
  const double y = small && x > 0.0 ? x : 0.0;
  const int32_t whole = static_cast<int32_t>(y);
  const double f = y - static_cast<double>(whole);
  double sum = kExp2[13];
  for (int k = 12; k >= 0; --k) sum = sum * f + kExp2[k];
  const double value = sum * from_bits(static_cast<uint64_t>(1023 - whole) << 52);
  return small ? value : 0.0;
}

// log2(x) for finite x >= 1: exponent + atanh series of the mantissa in [sqrt(1/2), sqrt(2)).
inline double log2_positive(double x) {
  const uint64_t bits = to_bits(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = from_bits((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) {
    m = m * 0.5;
    exponent += 1;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double sum = 1.0 / 21.0;
  for (int k = 19; k >= 1; k -= 2) sum = sum * z + 1.0 / static_cast<double>(k);
  return static_cast<double>(exponent) + 2.885390081777927 * (s * sum);
}

// The IEEE square root is exact everywhere.
inline double square_root(double x) { return __builtin_sqrt(x); }

}  // namespace fold
