// Reading and updating one entity.
#pragma once
#include "number.h"
#include "state.h"

namespace fold {

inline double ratio_of(double part, double whole) {
  return whole > 0.0 ? part / whole : not_a_number();
}

inline double deviation(double count, double sum, double square) {
  if (count < 2.0) return not_a_number();
  const double mean = sum / count;
  const double variance = square / count - mean * mean;
  return variance > 0.0 ? square_root(variance) : 0.0;
}

// ---- time ----

// What is left of a decayed sum at half-lives of 32 days, 8 days, 1 day and 1 hour.
struct Decay {
  double d32, d8, d1, h1;
};

// In half-lives of 32 days.
inline double half_lives(int64_t elapsed_s) {
  return static_cast<double>(elapsed_s) / static_cast<double>(32 * kDay);
}

inline Decay decay(double d32) {
  const double d16 = d32 * d32, d8 = d16 * d16;
  const double d4 = d8 * d8, d2 = d4 * d4, d1 = d2 * d2;
  const double p2 = d1 * d1, p4 = p2 * p2, p8 = p4 * p4, p16 = p8 * p8;
  return Decay{d32, d8, d1, p16 * p8};
}

inline int64_t bucket(int64_t time, int window) {
  return time / (kWindowSeconds[window] / kBuckets);
}

inline void roll(Window& window, int64_t epoch) {
  int64_t stale = epoch - window.epoch;
  if (stale > kBuckets) stale = kBuckets;
  for (int64_t i = 0; i < stale; ++i) {
    const int64_t at = (epoch - i) % kBuckets;
    window.count[at] = 0;
    window.amount[at] = 0.0;
  }
  window.epoch = epoch;
}

// How much an entity's decayed sums have faded.
struct Faded {
  Decay event, label;  // since its last event, since its last label
  double quiet, loud;  // since its last known quiet and loud fraud
};

// Brings the windows of the entities up to `time`; says how much their decayed sums have faded.
inline void advance(Entity* const* entity, int n, int64_t time, Faded* faded) {
  double x[kMaxRoles][4], left[kMaxRoles][4];
  for (int r = 0; r < n; ++r) {
    Entity& e = *entity[r];
    const bool seen = e.seen > 0;
    x[r][0] = seen ? half_lives(time - e.last_time) : 0.0;
    x[r][1] = seen ? half_lives(time - e.known_at) : 0.0;
    x[r][2] = seen ? half_lives(time - e.quiet.decayed_at) : 0.0;
    x[r][3] = seen ? half_lives(time - e.loud.decayed_at) : 0.0;
    if (!seen) continue;
    for (int w = 0; w < kWindows; ++w) roll(e.window[w], bucket(time, w));
  }
  for (int i = 0; i < 4 * n; ++i) left[0][i] = exp2_negative(x[0][i]);
  for (int r = 0; r < n; ++r) {
    faded[r] = Faded{decay(left[r][0]), decay(left[r][1]), left[r][2], left[r][3]};
  }
}

// ---- amounts ----

// Median of the last kHistory amounts and the median distance to it.
inline void robust(const Entity& entity, double* median, double* spread) {
  const int n = static_cast<int>(entity.seen < kHistory ? entity.seen : kHistory);
  *median = *spread = not_a_number();
  if (!n) return;
  double sorted[kHistory];
  for (int i = 0; i < kHistory; ++i) sorted[i] = entity.recent_amount[entity.recent_order[i]];
  const double middle = (sorted[(n - 1) / 2] + sorted[n / 2]) * 0.5;
  // The k + 1 amounts nearest to the median lie side by side: the k-th distance is the smallest
  // reach of k + 1 neighbours.
  double reach[2] = {from_bits(kInfinityBits), from_bits(kInfinityBits)};
  for (int half = 0; half < 2; ++half) {
    const int k = half ? n / 2 : (n - 1) / 2;
    for (int i = 0; i + k < n; ++i) {
      const double below = middle - sorted[i], above = sorted[i + k] - middle;
      const double wider = below > above ? below : above;
      reach[half] = wider < reach[half] ? wider : reach[half];
    }
  }
  *median = middle;
  *spread = (reach[0] + reach[1]) * 0.5;
}

inline void remember_amount(Entity& entity, double amount) {
  const int at = static_cast<int>(entity.seen % kHistory);
  const int n = static_cast<int>(entity.seen < kHistory ? entity.seen : kHistory);
  uint8_t order[kHistory + 1];
  int kept = 0, smaller = 0;
  for (int i = 0; i < n; ++i) {
    const uint8_t position = entity.recent_order[i];
    order[kept] = position;
    kept += position != at;
    smaller += position != at && entity.recent_amount[position] <= amount;
  }
  entity.recent_amount[at] = amount;
  for (int i = 0; i < smaller; ++i) entity.recent_order[i] = order[i];
  entity.recent_order[smaller] = static_cast<uint8_t>(at);
  for (int i = smaller; i < kept; ++i) entity.recent_order[i + 1] = order[i];
}

// ---- events ----

inline void open(Entity& entity, int64_t time) {
  entity.first_time = time;
  entity.known_at = time;
  entity.loud_last_time = entity.loud_burst_start = kNever;
  entity.last_fraud_time = entity.streak_start = entity.last_legit_time = kNever;
  entity.quiet.decayed_at = entity.loud.decayed_at = time;
  entity.quiet.last_time = entity.quiet.burst_start = kNever;
  entity.loud.last_time = entity.loud.burst_start = kNever;
  for (int w = 0; w < kWindows; ++w) entity.window[w].epoch = bucket(time, w);
}

// The entity has been advanced to `time`; d: since its last event. ratio: of the amount to the
// account's habit. Returns what was added to this entity's own habit.
inline double add_event(Entity& entity, const Decay& d, int64_t time, double amount,
                        double log_amount, double ratio) {
  const double mean = ratio_of(entity.habit_sum, entity.habit_count);
  const bool cut = entity.habit_count >= 3.0 && amount > 3.0 * mean;
  const double habit = cut ? 3.0 * mean : amount;
  if (!entity.seen) open(entity, time);
  const double by[kHalfLives] = {d.h1, d.d1, d.d8, d.d32};
  for (int h = 0; h < kHalfLives; ++h) {
    entity.decayed_count[h] = entity.decayed_count[h] * by[h] + 1.0;
    entity.decayed_amount[h] = entity.decayed_amount[h] * by[h] + amount;
  }
  for (int w = 0; w < kWindows; ++w) {
    const int64_t at = entity.window[w].epoch % kBuckets;
    entity.window[w].count[at] += 1;
    entity.window[w].amount[at] += amount;
  }
  remember_amount(entity, amount);
  entity.habit_count += 1.0;
  entity.habit_sum += habit;
  entity.habit_square += habit * habit;
  entity.log_count += 1.0;
  entity.log_sum += log_amount;
  entity.log_square += log_amount * log_amount;
  const double excess = ratio > 2.0 ? ratio - 2.0 : 0.0;
  entity.excess_1d = entity.excess_1d * d.d1 + excess;
  entity.excess_8d = entity.excess_8d * d.d8 + excess;
  if (ratio > kLoud) {
    if (entity.loud_last_time == kNever || time - entity.loud_last_time > kBurstGap) {
      entity.loud_burst_start = time;
    }
    entity.loud_last_time = time;
  }
  entity.last_time = time;
  entity.seen += 1;
  return habit;
}

// ---- labels ----

inline void add_fraud(FraudRun& run, int64_t now, int64_t time) {
  run.decayed = run.decayed * exp2_negative(half_lives(now - run.decayed_at)) + 1.0;
  run.decayed_at = now;
  if (run.last_time == kNever || time - run.last_time > kBurstGap) run.burst_start = time;
  if (run.last_time == kNever || time > run.last_time) run.last_time = time;
}

inline void add_label(Entity& entity, int64_t now, const Event& event, double habit, int fraud) {
  const Decay d = decay(exp2_negative(half_lives(now - entity.known_at)));
  entity.known_8d = entity.known_8d * d.d8 + 1.0;
  entity.known_32d = entity.known_32d * d.d32 + 1.0;
  entity.fraud_8d = entity.fraud_8d * d.d8 + fraud;
  entity.fraud_32d = entity.fraud_32d * d.d32 + fraud;
  entity.known_at = now;
  entity.known_count += 1.0;
  if (!fraud) {
    entity.last_legit_time = event.time;
    entity.streak = 0.0;
    entity.streak_start = kNever;
    entity.legit_since_fraud += 1.0;
    return;
  }
  entity.known_fraud += 1.0;
  entity.last_fraud_time = event.time;
  if (entity.streak == 0.0) entity.streak_start = event.time;
  entity.streak += 1.0;
  entity.legit_since_fraud = 0.0;
  entity.habit_count -= 1.0;
  entity.habit_sum -= habit;
  entity.habit_square -= habit * habit;
  add_fraud(event.loud ? entity.loud : entity.quiet, now, event.time);
}

}  // namespace fold
