// Memory of the fold: growable arrays, a hash table from keys to slots. C headers only.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace fold {

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
  const T& operator[](int64_t i) const { return data[i]; }
  int64_t bytes() const { return capacity * static_cast<int64_t>(sizeof(T)); }
  void release() { free(data); }
  // Starts loading an element that will be needed soon.
  void prefetch(int64_t i) const {
    if (i >= size) return;
    const char* from = reinterpret_cast<const char*>(data + i);
    for (size_t byte = 0; byte < sizeof(T); byte += 64) __builtin_prefetch(from + byte, 1);
    __builtin_prefetch(from + sizeof(T) - 1, 1);
  }
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

  // The slot of a key, a new one if the key is unseen; -1 when memory ran out.
  int64_t slot(uint64_t key) {
    if (size * 10 >= cells.size * 7 && !rehash()) return -1;
    Cell& cell = cell_of(key);
    if (!cell.slot_plus_one) cell = Cell{key, ++size};
    return cell.slot_plus_one - 1;
  }
  // The slot of a key, -1 if it is unseen.
  int64_t peek(uint64_t key) { return cells.size ? cell_of(key).slot_plus_one - 1 : -1; }
  void prefetch(uint64_t key) const {
    if (cells.size) cells.prefetch(static_cast<int64_t>(mix(key) & mask()));
  }

 private:
  uint64_t mask() const { return static_cast<uint64_t>(cells.size) - 1; }
  // Where the key is or belongs.
  Cell& cell_of(uint64_t key) {
    uint64_t at = mix(key) & mask();
    while (cells[static_cast<int64_t>(at)].slot_plus_one &&
           cells[static_cast<int64_t>(at)].key != key) {
      at = (at + 1) & mask();
    }
    return cells[static_cast<int64_t>(at)];
  }
  bool rehash() {
    Array<Cell> old = cells;
    Array<Cell> wider;
    if (!wider.grow(old.size ? old.size * 2 : 1024)) return false;
    cells = wider;
    for (int64_t i = 0; i < old.size; ++i) {
      if (old[i].slot_plus_one) cell_of(old[i].key) = old[i];
    }
    old.release();
    return true;
  }
};

}  // namespace fold
