// State of the fold: what is remembered per entity, per pair and per event.
#pragma once
#include "table.h"

namespace fold {

constexpr int kMaxRoles = 8;
constexpr int kHistory = 16;     // events of an account that the sequence model sees
constexpr int kNeighbours = 32;  // events around an account that the graph model sees
constexpr int kWindows = 3;
constexpr int kBuckets = 8;    // a window is rolled forward in eighths
constexpr int kHalfLives = 4;  // 1 hour, 1 day, 8 days, 32 days
constexpr int64_t kDay = 86400;
constexpr int64_t kWindowSeconds[kWindows] = {kDay, 7 * kDay, 30 * kDay};
constexpr int64_t kBurstGap = 14 * kDay;
constexpr int64_t kNever = INT64_MIN;
constexpr double kLoud = 2.5;  // an amount this many times the account's habit is loud

// Which of the last N events each column holds, newest at (count - 1) % N.
template <int N>
struct Ring {
  int32_t count;  // how many were ever pushed
  int32_t event[N];
  int8_t status[N];  // -1 not known, 0 known legitimate, 1 known fraud
  int32_t length() const { return count < N ? count : N; }
  int32_t newest(int32_t i) const { return (count - 1 - i) % N; }
  int32_t push(int32_t number) {
    const int32_t at = count++ % N;
    event[at] = number;
    status[at] = -1;
    return at;
  }
  // Notes the label of an event if it is still here.
  void mark(int32_t number, int8_t fraud) {
    const int32_t n = length();
    for (int32_t i = 0; i < n; ++i) status[i] = event[i] == number ? fraud : status[i];
  }
};

// The last events of one account.
struct History : Ring<kHistory> {
  int64_t time[kHistory];
  double ratio[kHistory];  // amount over the account's habit at that time; NaN without a habit
};

// The last events of anyone at one entity.
struct Around : Ring<kNeighbours> {
  int32_t account[kNeighbours];
  int8_t loud[kNeighbours];
  int64_t time[kHistory];  // of the newest kHistory, at count % kHistory
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
  int64_t seen;  // events
  int64_t first_time, last_time;
  double decayed_count[kHalfLives], decayed_amount[kHalfLives];
  Window window[kWindows];
  // Habit: amounts of all events but the known frauds, large ones cut at three times the mean.
  double habit_count, habit_sum, habit_square;
  double log_count, log_sum, log_square;
  double recent_amount[kHistory];
  uint8_t recent_order[kHistory];  // positions in recent_amount by rising amount
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

// What must be remembered of an event until its label arrives.
struct Event {
  int64_t time;
  int32_t account;
  int8_t loud;
};

struct Engine {
  int32_t num_roles;
  int32_t num_kinds;
  int32_t kind[kMaxRoles];
  int32_t shared[kMaxRoles];  // may this role's ring hold events of other accounts?
  SlotMap slots[kMaxRoles];   // by kind
  SlotMap pairs[kMaxRoles];   // account x role
  Array<Entity> entities[kMaxRoles];
  Array<History> history;         // by account
  Array<int32_t> account_frauds;  // by account: known frauds, apart for quick look-up
  Array<Around> around[kMaxRoles];  // by kind; none where the account alone uses the kind
  Array<Pair> pair_state[kMaxRoles];
  // Stand for a role that an event leaves empty (token 0); never changed.
  Entity no_entity;
  Around no_around;
  Pair no_pair;
  Array<Event> events;
  Array<int32_t> event_slot;  // (events, roles)
  Array<double> event_habit;  // (events, roles): what was added to each entity's habit

  const Entity& entity_of(int role, int32_t slot) const {
    return slot < 0 ? no_entity : entities[role][slot];
  }
  const Around& around_of(int role, int32_t slot) const {
    return slot < 0 ? no_around : around[kind[role]][slot];
  }
  const Pair& pair_of(int role, int64_t pair) const {
    return pair < 0 ? no_pair : pair_state[role][pair];
  }
};

}  // namespace fold
