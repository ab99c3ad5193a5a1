// CRC-32C of rows of bytes, on the way of a copy where there is one.
#include <stdint.h>
#include <string.h>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#endif

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;

struct Tables {
    uint32_t of[8][256];
    constexpr Tables() : of{} {
        for (uint32_t n = 0; n < 256; ++n) {
            uint32_t crc = n;
            for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
            of[0][n] = crc;
        }
        for (uint32_t n = 0; n < 256; ++n)
            for (int at = 1; at < 8; ++at)
                of[at][n] = of[at - 1][n] >> 8 ^ of[0][of[at - 1][n] & 0xFF];
    }
};

constexpr Tables kTables;

inline uint32_t byte_step(uint32_t crc, uint8_t byte) {
    return crc >> 8 ^ kTables.of[0][(crc ^ byte) & 0xFF];
}

inline uint64_t load(const uint8_t* from) {
    uint64_t word;
    memcpy(&word, from, 8);
    return word;
}

#if defined(__SSE4_2__)

// What a checksum becomes when kBlock bytes of zero follow: four look-ups, one for each byte of it.
constexpr int64_t kBlock = 512;

struct Shift {
    uint32_t of[4][256];
    constexpr Shift() : of{} {
        // Of each bit alone; the map is linear.
        uint32_t bits[32] = {};
        for (int bit = 0; bit < 32; ++bit) {
            uint32_t crc = 1u << bit;
            for (int64_t at = 0; at < kBlock; ++at) crc = crc >> 8 ^ kTables.of[0][crc & 0xFF];
            bits[bit] = crc;
        }
        for (int part = 0; part < 4; ++part)
            for (uint32_t n = 0; n < 256; ++n)
                for (int bit = 0; bit < 8; ++bit)
                    if (n >> bit & 1) of[part][n] ^= bits[8 * part + bit];
    }
    uint32_t operator()(uint32_t crc) const {
        return of[0][crc & 0xFF] ^ of[1][crc >> 8 & 0xFF] ^ of[2][crc >> 16 & 0xFF] ^
               of[3][crc >> 24];
    }
};

constexpr Shift kShift;

// The instruction takes three cycles, and one can start in each: three blocks side by side.
template <bool kCopies>
uint32_t run(uint32_t crc, const uint8_t* from, uint8_t* to, int64_t size) {
    while (size >= 3 * kBlock) {
        uint64_t first = crc, second = 0, third = 0;
        for (int64_t at = 0; at < kBlock; at += 8) {
            const uint64_t a = load(from + at);
            const uint64_t b = load(from + kBlock + at);
            const uint64_t c = load(from + 2 * kBlock + at);
            first = _mm_crc32_u64(first, a);
            second = _mm_crc32_u64(second, b);
            third = _mm_crc32_u64(third, c);
            if (kCopies) {
                memcpy(to + at, &a, 8);
                memcpy(to + kBlock + at, &b, 8);
                memcpy(to + 2 * kBlock + at, &c, 8);
            }
        }
        crc = kShift(kShift(uint32_t(first)) ^ uint32_t(second)) ^ uint32_t(third);
        from += 3 * kBlock;
        if (kCopies) to += 3 * kBlock;
        size -= 3 * kBlock;
    }
    if (kCopies) memcpy(to, from, size_t(size));
    uint64_t wide = crc;
    for (; size >= 8; size -= 8, from += 8) wide = _mm_crc32_u64(wide, load(from));
    crc = uint32_t(wide);
    for (; size > 0; --size, ++from) crc = byte_step(crc, *from);
    return crc;
}

#else

template <bool kCopies>
uint32_t run(uint32_t crc, const uint8_t* from, uint8_t* to, int64_t size) {
    if (kCopies) memcpy(to, from, size_t(size));
    for (; size >= 8; size -= 8, from += 8) {
        const uint64_t word = load(from) ^ crc;
        crc = 0;
        for (int at = 0; at < 8; ++at) crc ^= kTables.of[7 - at][word >> (8 * at) & 0xFF];
    }
    for (; size > 0; --size, ++from) crc = byte_step(crc, *from);
    return crc;
}

#endif

}  // namespace

// Checksum of `rows` rows of `row_bytes`, `stride` bytes apart, after bytes with the checksum
// `start`; `to` gets them without gaps unless it is null.
extern "C" uint32_t deepkits_crc32c_run(const uint8_t* from, int64_t stride, int64_t rows,
                                        int64_t row_bytes, uint32_t start, uint8_t* to) {
    uint32_t crc = ~start;
    for (int64_t row = 0; row < rows; ++row, from += stride) {
        if (to) {
            crc = run<true>(crc, from, to, row_bytes);
            to += row_bytes;
        } else {
            crc = run<false>(crc, from, nullptr, row_bytes);
        }
    }
    return ~crc;
}
