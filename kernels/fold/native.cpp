// The fold: state = fold(events, labels). Every event's feature row is written before the event
// changes the state; a label changes it when it becomes visible. reference.py is the definition.
#include "number.h"
#include "state.h"

namespace fold {

constexpr double kLoud = 2.5;  // an amount this many times the account's habit is loud
constexpr int64_t kWindowSeconds[kWindows] = {kDay, 7 * kDay, 30 * kDay};
constexpr int64_t kBurstGap = 14 * kDay;

struct Engine {
  int32_t num_roles;
  int32_t num_kinds;
  int32_t kind[kMaxRoles];
  int32_t shared[kMaxRoles];  // may this role's ring hold events of other accounts?
  SlotMap slots[kMaxRoles];   // by kind
  SlotMap pairs[kMaxRoles];   // account x role
  Array<Entity> entities[kMaxRoles];
  Array<Ring<kHistory>> history;               // by account
  Array<int32_t> account_frauds;               // by account: known frauds, apart for quick look-up
  Array<Ring<kNeighbours>> around[kMaxRoles];  // by kind
  Array<Pair> pair_state[kMaxRoles];
  Entity no_entity;  // stands for a role that an event leaves empty (token 0); never changed
  Ring<kNeighbours> no_ring;
  Pair no_pair;
  Array<Event> events;
  Array<int32_t> event_slot;    // (events, roles)
  Array<double> event_habit;    // (events, roles): what was added to each entity's habit
};

inline Entity& entity_of(Engine& engine, int role, int32_t slot) {
  return slot < 0 ? engine.no_entity : engine.entities[role][slot];
}

inline Ring<kNeighbours>& ring_of(Engine& engine, int role, int32_t slot) {
  return slot < 0 ? engine.no_ring : engine.around[engine.kind[role]][slot];
}

// ---- reading and updating one entity ----

struct Decay {
  double d32, d8, d1, h1;
};

// Decay over `elapsed_s` seconds at half-lives of 32 days, 8 days, 1 day and 1 hour.
inline Decay decay(int64_t elapsed_s) {
  const double x = exp2_negative(static_cast<double>(elapsed_s) / static_cast<double>(32 * kDay));
  const double x2 = x * x, d8 = x2 * x2;
  const double d4 = d8 * d8, d2 = d4 * d4, d1 = d2 * d2;
  const double p2 = d1 * d1, p4 = p2 * p2, p8 = p4 * p4, p16 = p8 * p8;
  return Decay{x, d8, d1, p16 * p8};
}

inline void roll(Window& window, int64_t time, int64_t seconds) {
  const int64_t width = seconds / kBuckets;
  const int64_t epoch = time / width;
  int64_t stale = epoch - window.epoch;
  if (stale <= 0) return;
  if (stale > kBuckets) stale = kBuckets;
  for (int64_t i = 0; i < stale; ++i) {
    const int64_t at = (epoch - i) % kBuckets;
    window.count[at] = 0;
    window.amount[at] = 0.0;
  }
  window.epoch = epoch;
}

inline double ratio_of(double part, double whole) {
  return whole > 0.0 ? part / whole : not_a_number();
}

inline double deviation(double count, double sum, double square) {
  if (count < 2.0) return not_a_number();
  const double mean = sum / count;
  const double variance = square / count - mean * mean;
  return variance > 0.0 ? square_root(variance) : 0.0;
}

inline double age(int64_t now, int64_t then) {
  return then == kNever ? not_a_number() : static_cast<double>(now - then);
}

inline void open(Entity& entity, int64_t time) {
  entity.seen = 1;
  entity.first_time = time;
  entity.last_time = time;
  entity.known_at = time;
  entity.loud_last_time = entity.loud_burst_start = kNever;
  entity.last_fraud_time = entity.streak_start = entity.last_legit_time = kNever;
  entity.quiet.decayed_at = entity.loud.decayed_at = time;
  entity.quiet.last_time = entity.quiet.burst_start = kNever;
  entity.loud.last_time = entity.loud.burst_start = kNever;
}

inline void update_entity(Entity& entity, int64_t time, double amount, double log_amount,
                          double ratio, double habit) {
  if (!entity.seen) open(entity, time);
  const Decay d = decay(time - entity.last_time);
  const double by[kHalfLives] = {d.h1, d.d1, d.d8, d.d32};
  for (int h = 0; h < kHalfLives; ++h) {
    entity.decayed_count[h] = entity.decayed_count[h] * by[h] + 1.0;
    entity.decayed_amount[h] = entity.decayed_amount[h] * by[h] + amount;
  }
  for (int w = 0; w < kWindows; ++w) {
    roll(entity.window[w], time, kWindowSeconds[w]);
    const int64_t at = entity.window[w].epoch % kBuckets;
    entity.window[w].count[at] += 1;
    entity.window[w].amount[at] += amount;
  }
  entity.recent_amount[(entity.seen++ - 1) % kHistory] = amount;
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
}

inline void add_fraud(FraudRun& run, int64_t now, int64_t time) {
  run.decayed = run.decayed * decay(now - run.decayed_at).d32 + 1.0;
  run.decayed_at = now;
  if (run.last_time == kNever || time - run.last_time > kBurstGap) run.burst_start = time;
  if (run.last_time == kNever || time > run.last_time) run.last_time = time;
}

inline void learn_label(Entity& entity, int64_t now, const Event& event, double habit, int fraud) {
  const Decay d = decay(now - entity.known_at);
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
  add_fraud(event.ratio > kLoud ? entity.loud : entity.quiet, now, event.time);
}

// ---- one feature row ----

struct Values {
  float* out;
  // One NaN for all: processors differ in the sign of the NaN that inf - inf gives.
  void put(const char*, double value) {
    *out++ = static_cast<float>(value == value ? value : not_a_number());
  }
  void role(int) {}
};

struct Names {
  char* out;
  char prefix;
  int64_t left;
  void role(int r) { prefix = static_cast<char>('0' + r); }
  void text(const char* c) {
    for (; *c && left > 1; ++c, --left) *out++ = *c;
  }
  void put(const char* name, double) {
    const char head[3] = {prefix, '.', 0};
    if (prefix) text(head);
    text(name);
    text("\n");
    *out = 0;
  }
};

// Median of the last kHistory amounts and the median distance to it.
inline void robust(const Entity& entity, double* median, double* spread) {
  const int64_t seen = entity.seen ? entity.seen - 1 : 0;
  const int n = static_cast<int>(seen < kHistory ? seen : kHistory);
  *median = *spread = not_a_number();
  if (!n) return;
  double sorted[kHistory];
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < n; ++i) {
      const double raw = entity.recent_amount[i];
      double value = raw;
      if (pass) value = raw > *median ? raw - *median : *median - raw;
      int at = i;
      for (; at > 0 && sorted[at - 1] > value; --at) sorted[at] = sorted[at - 1];
      sorted[at] = value;
    }
    const double middle = (sorted[(n - 1) / 2] + sorted[n / 2]) * 0.5;
    if (pass) *spread = middle; else *median = middle;
  }
}

template <typename Sink>
void put_run(Sink& sink, const char* const names[3], const FraudRun& run, int64_t time) {
  const double faded = run.decayed == 0.0 ? 0.0 : run.decayed * decay(time - run.decayed_at).d32;
  sink.put(names[0], faded);
  sink.put(names[1], age(time, run.last_time));
  sink.put(names[2], age(time, run.burst_start));
}

template <typename Sink>
void put_entity(Sink& sink, Entity& entity, int64_t time, double amount, double log_amount) {
  const bool seen = entity.seen > 0;
  const Decay d = decay(seen ? time - entity.last_time : 0);
  const double* count = entity.decayed_count;
  const double* total = entity.decayed_amount;
  sink.put("age_s", seen ? static_cast<double>(time - entity.first_time) : not_a_number());
  sink.put("gap_s", seen ? static_cast<double>(time - entity.last_time) : not_a_number());
  sink.put("count", seen ? static_cast<double>(entity.seen - 1) : 0.0);
  sink.put("count_1h", count[0] * d.h1);
  sink.put("count_1d", count[1] * d.d1);
  sink.put("count_8d", count[2] * d.d8);
  sink.put("count_32d", count[3] * d.d32);
  sink.put("mean_amount_1d", ratio_of(total[1], count[1]));
  sink.put("mean_amount_8d", ratio_of(total[2], count[2]));
  sink.put("mean_amount_32d", ratio_of(total[3], count[3]));
  static const char* const window_count[] = {"window_count_1d", "window_count_7d",
                                             "window_count_30d"};
  static const char* const window_mean[] = {"window_mean_1d", "window_mean_7d", "window_mean_30d"};
  for (int w = 0; w < kWindows; ++w) {
    if (seen) roll(entity.window[w], time, kWindowSeconds[w]);
    double n = 0.0, sum = 0.0;
    for (int b = 0; b < kBuckets; ++b) {
      n += static_cast<double>(entity.window[w].count[b]);
      sum += entity.window[w].amount[b];
    }
    sink.put(window_count[w], n);
    sink.put(window_mean[w], ratio_of(sum, n));
  }
  const double habit_mean = ratio_of(entity.habit_sum, entity.habit_count);
  const double habit_deviation =
      deviation(entity.habit_count, entity.habit_sum, entity.habit_square);
  const double log_deviation = deviation(entity.log_count, entity.log_sum, entity.log_square);
  const double log_mean = ratio_of(entity.log_sum, entity.log_count);
  double median, spread;
  robust(entity, &median, &spread);
  sink.put("habit_mean", habit_mean);
  sink.put("amount_to_habit", ratio_of(amount, habit_mean));
  sink.put("amount_habit_z", ratio_of(amount - habit_mean, habit_deviation));
  sink.put("amount_log_z", ratio_of(log_amount - log_mean, log_deviation));
  sink.put("amount_to_median", ratio_of(amount, median));
  sink.put("amount_median_z", ratio_of(amount - median, spread));
  sink.put("excess_1d", entity.excess_1d * d.d1);
  sink.put("excess_8d", entity.excess_8d * d.d8);
  sink.put("loud_last_age_s", seen ? age(time, entity.loud_last_time) : not_a_number());
  sink.put("loud_burst_age_s", seen ? age(time, entity.loud_burst_start) : not_a_number());
  const Decay k = decay(seen ? time - entity.known_at : 0);
  sink.put("known_count", entity.known_count);
  sink.put("known_fraud", entity.known_fraud);
  sink.put("known_8d", entity.known_8d * k.d8);
  sink.put("risk", ratio_of(entity.known_fraud, entity.known_count));
  sink.put("risk_8d", ratio_of(entity.fraud_8d, entity.known_8d));
  sink.put("risk_32d", ratio_of(entity.fraud_32d, entity.known_32d));
  sink.put("fraud_8d", entity.fraud_8d * k.d8);
  sink.put("fraud_32d", entity.fraud_32d * k.d32);
  sink.put("last_fraud_age_s", seen ? age(time, entity.last_fraud_time) : not_a_number());
  sink.put("last_legit_age_s", seen ? age(time, entity.last_legit_time) : not_a_number());
  sink.put("streak", entity.streak);
  sink.put("streak_age_s", seen ? age(time, entity.streak_start) : not_a_number());
  sink.put("legit_since_fraud", entity.legit_since_fraud);
  static const char* const quiet[] = {"quiet_fraud_32d", "quiet_fraud_age_s",
                                      "quiet_burst_age_s"};
  static const char* const loud[] = {"loud_fraud_32d", "loud_fraud_age_s", "loud_burst_fraud_age_s"};
  FraudRun none = {};
  none.last_time = none.burst_start = kNever;
  put_run(sink, quiet, seen ? entity.quiet : none, time);
  put_run(sink, loud, seen ? entity.loud : none, time);
}

// What the account's last events say that have no label yet.
template <typename Sink>
void put_history(Sink& sink, Engine& engine, const Ring<kHistory>& ring, int64_t time) {
  double first = 0.0, second = 0.0, count = 0.0, loud = 0.0, frauds = 0.0;
  int64_t first_time = kNever;
  double lag_ratio[3] = {not_a_number(), not_a_number(), not_a_number()};
  double lag_gap = not_a_number();
  const int n = ring.length();
  for (int i = 0; i < n; ++i) {
    const Event& event = engine.events[ring.newest(i)];
    if (i < 3) lag_ratio[i] = event.ratio;
    if (i == 1) lag_gap = static_cast<double>(time - event.time);
    if (event.status == 1) frauds += 1.0;
    if (event.status >= 0) continue;
    count += 1.0;
    if (event.ratio > kLoud) loud += 1.0;
    if (event.ratio > first) {
      second = first;
      first = event.ratio;
      first_time = event.time;
    } else if (event.ratio > second) {
      second = event.ratio;
    }
  }
  sink.put("open_count", count);
  sink.put("open_loud", loud);
  sink.put("open_max_ratio", first);
  sink.put("open_second_ratio", second);
  sink.put("open_max_age_s", age(time, first_time));
  sink.put("recent_fraud", frauds);
  sink.put("ratio_1", lag_ratio[0]);
  sink.put("ratio_2", lag_ratio[1]);
  sink.put("ratio_3", lag_ratio[2]);
  sink.put("gap_2_s", lag_gap);
}

// Who else was at this entity: the last kHistory events of its ring.
template <typename Sink>
void put_around(Sink& sink, Engine& engine, const Ring<kNeighbours>& ring, int32_t account,
                int64_t time) {
  int32_t accounts[kHistory];
  double distinct = 0.0, others = 0.0, frauds = 0.0, open_events = 0.0, tainted = 0.0, loud = 0.0;
  const int n = ring.length() < kHistory ? ring.length() : kHistory;
  for (int i = 0; i < n; ++i) {
    const Event& event = engine.events[ring.newest(i)];
    accounts[i] = event.account;
    int seen_before = 0;
    for (int j = 0; j < i; ++j) seen_before |= accounts[j] == accounts[i];
    if (event.status == 1) frauds += 1.0;
    if (event.status < 0) open_events += 1.0;
    if (event.ratio > kLoud) loud += 1.0;
    if (accounts[i] != account) others += 1.0;
    if (seen_before) continue;
    distinct += 1.0;
    if (accounts[i] != account && engine.account_frauds[accounts[i]] > 0) tainted += 1.0;
  }
  sink.put("around_count", n);
  sink.put("around_accounts", distinct);
  sink.put("around_others", others);
  sink.put("around_tainted", tainted);
  sink.put("around_fraud", frauds);
  sink.put("around_open", open_events);
  sink.put("around_loud", loud);
  sink.put("around_span_s",
           n ? static_cast<double>(time - engine.events[ring.newest(n - 1)].time) : not_a_number());
}

template <typename Sink>
void put_row(Sink& sink, Engine& engine, const int32_t* slot, const int64_t* pair,
             const Ring<kHistory>& history, int64_t time, double amount, double log_amount) {
  sink.put("amount", amount);
  sink.put("second_of_day", static_cast<double>(time % kDay));
  sink.put("day_of_week", static_cast<double>((time / kDay + 4) % 7));
  for (int r = 0; r < engine.num_roles; ++r) {
    sink.role(r);
    put_entity(sink, entity_of(engine, r, slot[r]), time, amount, log_amount);
    const Ring<kNeighbours>& ring = ring_of(engine, r, slot[r]);
    if (r == 0) {
      put_history(sink, engine, history, time);
    } else {
      const Pair& state = pair[r] < 0 ? engine.no_pair : engine.pair_state[r][pair[r]];
      sink.put("pair_count", static_cast<double>(state.count));
      sink.put("pair_gap_s", state.count ? static_cast<double>(time - state.last_time)
                                         : not_a_number());
    }
    if (engine.shared[r]) put_around(sink, engine, ring, slot[0], time);
  }
}

// ---- one event ----

struct Output {
  float* features;
  int32_t* history;
  int8_t* history_status;
  int32_t* neighbours;
  int8_t* neighbour_status;
};

inline void write_history(Engine& engine, const Ring<kHistory>& ring, int32_t event, int32_t* out,
                          int8_t* status) {
  for (int i = 0; i < kHistory; ++i) {
    const int back = kHistory - 2 - i;  // the newest past event goes to column kHistory - 2
    int32_t at = -1;
    if (back < 0) at = event;
    else if (back < ring.length()) at = ring.newest(back);
    if (out) out[i] = at;
    if (status) status[i] = at < 0 || at == event ? -1 : engine.events[at].status;
  }
}

inline void write_neighbours(Engine& engine, const int32_t* slot, int32_t* out, int8_t* status) {
  int roles = 0;
  for (int r = 0; r < engine.num_roles; ++r) roles += engine.shared[r];
  const int share = roles ? kNeighbours / roles : 0;
  int column = 0;
  for (int r = 0; r < engine.num_roles; ++r) {
    if (!engine.shared[r]) continue;
    const Ring<kNeighbours>& ring = ring_of(engine, r, slot[r]);
    const int end = column + share;
    for (int i = 0; i < ring.length() && column < end; ++i) {
      const int32_t at = ring.newest(i);
      if (engine.events[at].account == slot[0]) continue;
      if (out) out[column] = at;
      if (status) status[column] = engine.events[at].status;
      ++column;
    }
    for (; column < end; ++column) {
      if (out) out[column] = -1;
      if (status) status[column] = -1;
    }
  }
  for (; column < kNeighbours; ++column) {
    if (out) out[column] = -1;
    if (status) status[column] = -1;
  }
}

inline bool find(Engine& engine, const uint64_t* tokens, int32_t* slot, int64_t* pair) {
  for (int r = 0; r < engine.num_roles; ++r) {
    const int kind = engine.kind[r];
    slot[r] = -1;
    pair[r] = -1;
    if (r > 0 && tokens[r] == 0) continue;
    const int64_t at = engine.slots[kind].slot(tokens[r]);
    if (at < 0 || at > INT32_MAX) return false;
    slot[r] = static_cast<int32_t>(at);
    if (!engine.entities[r].grow(at + 1) || !engine.around[kind].grow(at + 1)) return false;
    if (r == 0) {
      if (!engine.history.grow(at + 1) || !engine.account_frauds.grow(at + 1)) return false;
      continue;
    }
    pair[r] = engine.pairs[r].slot(mix(tokens[0] + 0x9e3779b97f4a7c15ull) ^ tokens[r]);
    if (pair[r] < 0 || !engine.pair_state[r].grow(pair[r] + 1)) return false;
  }
  return true;
}

bool step(Engine& engine, int64_t time, const uint64_t* tokens, double amount, const Output& out) {
  int32_t slot[kMaxRoles];
  int64_t pair[kMaxRoles];
  if (engine.events.size >= INT32_MAX || !find(engine, tokens, slot, pair)) return false;
  const int64_t number = engine.events.size;
  const int32_t event = static_cast<int32_t>(number);
  const int roles = engine.num_roles;
  if (!engine.events.grow(number + 1) || !engine.event_slot.grow((number + 1) * roles) ||
      !engine.event_habit.grow((number + 1) * roles)) {
    return false;
  }
  const double log_amount = log2_positive(1.0 + amount);
  Ring<kHistory>& history = engine.history[slot[0]];
  if (out.features) {
    Values values{out.features};
    put_row(values, engine, slot, pair, history, time, amount, log_amount);
  }
  write_history(engine, history, event, out.history, out.history_status);
  write_neighbours(engine, slot, out.neighbours, out.neighbour_status);

  const Entity& account = engine.entities[0][slot[0]];
  const double account_habit = ratio_of(account.habit_sum, account.habit_count);
  const double ratio = account.habit_count < 3.0 ? not_a_number() : ratio_of(amount, account_habit);
  engine.events[number] = Event{time, amount, log_amount, ratio, slot[0], -1};
  for (int r = 0; r < roles; ++r) {
    engine.event_slot[number * roles + r] = slot[r];
    if (slot[r] < 0) continue;
    Entity& entity = engine.entities[r][slot[r]];
    const double mean = ratio_of(entity.habit_sum, entity.habit_count);
    double habit = amount;
    if (entity.habit_count >= 3.0 && amount > 3.0 * mean) habit = 3.0 * mean;
    engine.event_habit[number * roles + r] = habit;
    update_entity(entity, time, amount, log_amount, ratio, habit);
  }
  for (int r = 0; r < roles; ++r) {
    if (slot[r] < 0) continue;
    bool again = false;  // two roles of one kind may name the same entity
    for (int q = 0; q < r; ++q) again |= engine.kind[q] == engine.kind[r] && slot[q] == slot[r];
    if (!again) engine.around[engine.kind[r]][slot[r]].push(event);
    if (r == 0) continue;
    Pair& state = engine.pair_state[r][pair[r]];
    state.count += 1;
    state.last_time = time;
  }
  history.push(event);
  return true;
}

void learn(Engine& engine, int64_t now, int64_t event, int fraud) {
  Event& record = engine.events[event];
  record.status = static_cast<int8_t>(fraud);
  engine.account_frauds[record.account] += fraud;
  for (int r = 0; r < engine.num_roles; ++r) {
    const int64_t at = event * engine.num_roles + r;
    const int32_t slot = engine.event_slot[at];
    if (slot < 0) continue;
    learn_label(engine.entities[r][slot], now, record, engine.event_habit[at], fraud);
  }
}

}  // namespace fold

using fold::Engine;

extern "C" {

// kinds: (num_roles,) in 0..num_roles-1, role 0 is the account. NULL when memory ran out.
void* deepkits_fold_create(int32_t num_roles, const int32_t* kinds) {
  Engine* engine = static_cast<Engine*>(calloc(1, sizeof(Engine)));
  if (!engine) return nullptr;
  engine->num_roles = num_roles;
  for (int r = 0; r < num_roles; ++r) {
    engine->kind[r] = kinds[r];
    if (kinds[r] + 1 > engine->num_kinds) engine->num_kinds = kinds[r] + 1;
  }
  for (int r = 0; r < num_roles; ++r) {
    engine->shared[r] = r > 0;
    for (int q = 1; q < num_roles; ++q) engine->shared[r] |= kinds[q] == kinds[r];
  }
  return engine;
}

void deepkits_fold_destroy(void* handle) {
  Engine* engine = static_cast<Engine*>(handle);
  if (!engine) return;
  for (int r = 0; r < fold::kMaxRoles; ++r) {
    engine->slots[r].cells.release();
    engine->pairs[r].cells.release();
    engine->entities[r].release();
    engine->around[r].release();
    engine->pair_state[r].release();
  }
  engine->history.release();
  engine->account_frauds.release();
  engine->events.release();
  engine->event_slot.release();
  engine->event_habit.release();
  free(engine);
}

// Writes the names of the feature columns, one a line, role columns as "<role>.<name>".
void deepkits_fold_names(void* handle, char* out, int64_t capacity) {
  Engine* engine = static_cast<Engine*>(handle);
  fold::Ring<fold::kHistory> history = {};
  int32_t slot[fold::kMaxRoles];
  int64_t pair[fold::kMaxRoles];
  for (int r = 0; r < fold::kMaxRoles; ++r) slot[r] = -1, pair[r] = -1;
  fold::Names names{out, 0, capacity};
  fold::put_row(names, *engine, slot, pair, history, 0, 0.0, 0.0);
}

// Folds n events in time order and the labels that become visible before each of them.
// tokens: (n, roles), 0 where a role other than the account is empty. labels: sorted by (visible_time, event); label_event counts from the first
// event ever folded. Every output may be NULL. Returns how many events were folded (less than n
// when memory ran out); *labels_used says how many labels were consumed.
int64_t deepkits_fold_run(void* handle, int64_t n, const int64_t* time, const uint64_t* tokens,
                          const double* amount, int64_t num_labels, const int64_t* label_event,
                          const int64_t* label_time, const int8_t* label_value,
                          int64_t* labels_used, int64_t num_features, float* features,
                          int32_t* history, int8_t* history_status, int32_t* neighbours,
                          int8_t* neighbour_status) {
  Engine* engine = static_cast<Engine*>(handle);
  int64_t label = 0;
  int64_t i = 0;
  for (; i < n; ++i) {
    for (; label < num_labels && label_time[label] <= time[i] &&
           label_event[label] < engine->events.size;
         ++label) {
      fold::learn(*engine, label_time[label], label_event[label], label_value[label]);
    }
    const fold::Output out{features ? features + i * num_features : nullptr,
                           history ? history + i * fold::kHistory : nullptr,
                           history_status ? history_status + i * fold::kHistory : nullptr,
                           neighbours ? neighbours + i * fold::kNeighbours : nullptr,
                           neighbour_status ? neighbour_status + i * fold::kNeighbours : nullptr};
    if (!fold::step(*engine, time[i], tokens + i * engine->num_roles, amount[i], out)) break;
  }
  *labels_used = label;
  return i;
}

// Entities of a role, or events for role -1; bytes: what the whole engine holds.
int64_t deepkits_fold_count(void* handle, int32_t role) {
  Engine* engine = static_cast<Engine*>(handle);
  return role < 0 ? engine->events.size : engine->entities[role].size;
}

int64_t deepkits_fold_bytes(void* handle) {
  Engine* engine = static_cast<Engine*>(handle);
  int64_t bytes = static_cast<int64_t>(sizeof(Engine)) + engine->history.bytes() +
                  engine->account_frauds.bytes() +
                  engine->events.bytes() + engine->event_slot.bytes() +
                  engine->event_habit.bytes();
  for (int r = 0; r < fold::kMaxRoles; ++r) {
    bytes += engine->slots[r].cells.bytes() + engine->pairs[r].cells.bytes() +
             engine->entities[r].bytes() + engine->around[r].bytes() +
             engine->pair_state[r].bytes();
  }
  return bytes;
}

// What one account adds: its counters, its two rings and its cell at a load of 0.7.
int64_t deepkits_fold_account_bytes() {
  return static_cast<int64_t>(sizeof(fold::Entity) + sizeof(fold::Ring<fold::kHistory>) +
                              sizeof(fold::Ring<fold::kNeighbours>) + sizeof(int32_t) +
                              sizeof(fold::SlotMap::Cell) * 10 / 7);
}

}  // extern "C"
