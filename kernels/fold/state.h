// State of the fold: what is remembered per entity, per pair and per event. C headers only.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace fold {

constexpr int kMaxRoles = 8;
constexpr int kHistory = 16;     // events of an account that the sequence model sees
constexpr int kNeighbours = 32;  // events around an account that the graph model sees
constexpr int kWindows = 3;      // 1 day, 7 days, 30 days
constexpr int kBuckets = 8;      // a window is rolled forward in eighths
constexpr int kHalfLives = 4;    // 1 hour, 1 day, 8 days, 32 days
constexpr int64_t kDay = 86400;
constexpr int64_t kNever = INT64_MIN;

// A growable array of plain values, zeroed when it grows.
template <typename T>
struct Array {
  T* data = nullptr;
  int64_t size = 0;
  int64_t capacity = 0;

  // Returns false when memory ran out; the array is then unchanged.
  bool grow(int64_t wanted) {
    if (wanted <= size) return true;
    if (wanted > capacity) {
      int64_t next = capacity ? capacity : 1024;
      while (next < wanted) next += next / 2 + 1;
      T* moved = static_cast<T*>(realloc(data, static_cast<size_t>(next) * sizeof(T)));
      if (!moved) return false;
      data = moved;
      capacity = next;
    }
    memset(static_cast<void*>(data + size), 0, static_cast<size_t>(wanted - size) * sizeof(T));
    size = wanted;
    return true;
  }
  T& operator[](int64_t i) { return data[i]; }
  int64_t bytes() const { return capacity * static_cast<int64_t>(sizeof(T)); }
  void release() { free(data); }
};

inline uint64_t mix(uint64_t x) {  // splitmix64 finaliser
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Open addressing from a 64-bit key to a dense slot 0, 1, 2, ...
struct SlotMap {
  struct Cell {
    uint64_t key;
    int64_t slot_plus_one;
  };
  Array<Cell> cells;
  int64_t size = 0;

  bool rehash() {
    Array<Cell> old = cells;
    Array<Cell> wider;
    if (!wider.grow(old.size ? old.size * 2 : 1024)) return false;
    const uint64_t mask = static_cast<uint64_t>(wider.size) - 1;
    for (int64_t i = 0; i < old.size; ++i) {
      if (!old[i].slot_plus_one) continue;
      uint64_t at = mix(old[i].key) & mask;
      while (wider[static_cast<int64_t>(at)].slot_plus_one) at = (at + 1) & mask;
      wider[static_cast<int64_t>(at)] = old[i];
    }
    old.release();
    cells = wider;
    return true;
  }
  // The slot of a key, a new one if the key is unseen; -1 when memory ran out.
  int64_t slot(uint64_t key) {
    if (size * 10 >= cells.size * 7 && !rehash()) return -1;
    const uint64_t mask = static_cast<uint64_t>(cells.size) - 1;
    uint64_t at = mix(key) & mask;
    for (;; at = (at + 1) & mask) {
      Cell& cell = cells[static_cast<int64_t>(at)];
      if (!cell.slot_plus_one) {
        cell = Cell{key, ++size};
        return size - 1;
      }
      if (cell.key == key) return cell.slot_plus_one - 1;
    }
  }
};

// The last N event numbers, newest at `newest`.
template <int N>
struct Ring {
  int32_t event[N];
  int32_t count;  // how many were ever pushed
  void push(int32_t e) { event[count++ % N] = e; }
  int32_t length() const { return count < N ? count : N; }
  int32_t newest(int32_t i) const { return event[(count - 1 - i) % N]; }
};

// Events of a rolling window, counted in eighths of it.
struct Window {
  int64_t epoch;  // index of the newest bucket since 1970
  int32_t count[kBuckets];
  double amount[kBuckets];
};

// Known frauds of one sort (quiet or loud) at an entity.
struct FraudRun {
  double decayed;       // half-life 32 days
  int64_t decayed_at;   // when `decayed` was last brought up to date
  int64_t last_time;    // event time of the last one
  int64_t burst_start;  // event time of the first one without a gap of 14 days
};

// One entity in one role.
struct Entity {
  int64_t seen;  // 0 until the first event
  int64_t first_time, last_time;
  double decayed_count[kHalfLives], decayed_amount[kHalfLives];
  Window window[kWindows];
  // Habit: amounts of all events but the known frauds, large ones cut at three times the mean.
  double habit_count, habit_sum, habit_square;
  double log_count, log_sum, log_square;
  double recent_amount[kHistory];
  // Excess of amounts over the account's habit, seen at this entity, labelled or not.
  double excess_1d, excess_8d;
  int64_t loud_last_time, loud_burst_start;
  // Labels that have arrived.
  double known_count, known_fraud;
  double known_8d, fraud_8d, known_32d, fraud_32d;
  int64_t known_at;
  int64_t last_fraud_time, streak_start, last_legit_time;
  double streak, legit_since_fraud;
  FraudRun quiet, loud;
};

struct Pair {
  int64_t count, last_time;
};

// What must be remembered of an event until its label arrives, and while a ring points to it.
struct Event {
  int64_t time;
  double amount;
  double log_amount;
  double ratio;   // amount over the account's habit at that time; NaN while there is no habit
  int32_t account;
  int8_t status;  // -1 not known, 0 known legitimate, 1 known fraud
};

}  // namespace fold
