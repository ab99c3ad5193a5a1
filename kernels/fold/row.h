// One feature row. The order of the `put` calls is the order of the columns; what each feature
// means stands in features.py.
#pragma once
#include "entity.h"

namespace fold {

// Two sinks for the same calls: the values of a row, or the names of its columns.
struct Values {
  float* out;
  void put(const char*, double value) { *out++ = static_cast<float>(value); }
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

// The event whose row it is.
struct Query {
  int64_t time;
  double amount, log_amount;
  const int32_t* slot;  // by role, -1 where it is empty
  const int64_t* pair;
  const Faded* faded;  // by role
};

inline double age(int64_t now, int64_t then) {
  return then == kNever ? not_a_number() : static_cast<double>(now - then);
}

template <typename Sink>
void put_activity(Sink& sink, const Entity& entity, const Decay& d, int64_t time) {
  const bool seen = entity.seen > 0;
  const double* count = entity.decayed_count;
  const double* total = entity.decayed_amount;
  sink.put("age_s", seen ? age(time, entity.first_time) : not_a_number());
  sink.put("gap_s", seen ? age(time, entity.last_time) : not_a_number());
  sink.put("count", static_cast<double>(entity.seen));
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
    int64_t n = 0;
    double sum = 0.0;
    for (int b = 0; b < kBuckets; ++b) n += entity.window[w].count[b];
    for (int b = 0; b < kBuckets; ++b) sum += entity.window[w].amount[b];
    sink.put(window_count[w], static_cast<double>(n));
    sink.put(window_mean[w], ratio_of(sum, static_cast<double>(n)));
  }
}

template <typename Sink>
void put_amount(Sink& sink, const Entity& entity, const Decay& d, const Query& query) {
  const bool seen = entity.seen > 0;
  const double habit_mean = ratio_of(entity.habit_sum, entity.habit_count);
  const double habit_deviation =
      deviation(entity.habit_count, entity.habit_sum, entity.habit_square);
  const double log_mean = ratio_of(entity.log_sum, entity.log_count);
  const double log_deviation = deviation(entity.log_count, entity.log_sum, entity.log_square);
  double median, spread;
  robust(entity, &median, &spread);
  sink.put("habit_mean", habit_mean);
  sink.put("amount_to_habit", ratio_of(query.amount, habit_mean));
  sink.put("amount_habit_z", ratio_of(query.amount - habit_mean, habit_deviation));
  sink.put("amount_log_z", ratio_of(query.log_amount - log_mean, log_deviation));
  sink.put("amount_to_median", ratio_of(query.amount, median));
  sink.put("amount_median_z", ratio_of(query.amount - median, spread));
  sink.put("excess_1d", entity.excess_1d * d.d1);
  sink.put("excess_8d", entity.excess_8d * d.d8);
  sink.put("loud_last_age_s", seen ? age(query.time, entity.loud_last_time) : not_a_number());
  sink.put("loud_burst_age_s", seen ? age(query.time, entity.loud_burst_start) : not_a_number());
}

template <typename Sink>
void put_labels(Sink& sink, const Entity& entity, const Faded& faded, int64_t time) {
  const bool seen = entity.seen > 0;
  sink.put("known_count", entity.known_count);
  sink.put("known_fraud", entity.known_fraud);
  sink.put("known_8d", entity.known_8d * faded.label.d8);
  sink.put("risk", ratio_of(entity.known_fraud, entity.known_count));
  sink.put("risk_8d", ratio_of(entity.fraud_8d, entity.known_8d));
  sink.put("risk_32d", ratio_of(entity.fraud_32d, entity.known_32d));
  sink.put("fraud_8d", entity.fraud_8d * faded.label.d8);
  sink.put("fraud_32d", entity.fraud_32d * faded.label.d32);
  sink.put("last_fraud_age_s", seen ? age(time, entity.last_fraud_time) : not_a_number());
  sink.put("last_legit_age_s", seen ? age(time, entity.last_legit_time) : not_a_number());
  sink.put("streak", entity.streak);
  sink.put("streak_age_s", seen ? age(time, entity.streak_start) : not_a_number());
  sink.put("legit_since_fraud", entity.legit_since_fraud);
  const FraudRun &quiet = entity.quiet, &loud = entity.loud;
  sink.put("quiet_fraud_32d", quiet.decayed * faded.quiet);
  sink.put("quiet_fraud_age_s", seen ? age(time, quiet.last_time) : not_a_number());
  sink.put("quiet_burst_age_s", seen ? age(time, quiet.burst_start) : not_a_number());
  sink.put("loud_fraud_32d", loud.decayed * faded.loud);
  sink.put("loud_fraud_age_s", seen ? age(time, loud.last_time) : not_a_number());
  sink.put("loud_burst_fraud_age_s", seen ? age(time, loud.burst_start) : not_a_number());
}

// What the account's last events say that have no label yet.
template <typename Sink>
void put_history(Sink& sink, const History& history, int64_t time) {
  double first = 0.0, second = 0.0, count = 0.0, loud = 0.0, frauds = 0.0;
  int64_t first_time = kNever;
  const int n = history.length();
  for (int i = 0; i < n; ++i) {
    const int32_t at = history.newest(i);
    const double ratio = history.ratio[at];
    if (history.status[at] == 1) frauds += 1.0;
    if (history.status[at] >= 0) continue;
    count += 1.0;
    if (ratio > kLoud) loud += 1.0;
    if (ratio > first) {
      second = first;
      first = ratio;
      first_time = history.time[at];
    } else if (ratio > second) {
      second = ratio;
    }
  }
  sink.put("open_count", count);
  sink.put("open_loud", loud);
  sink.put("open_max_ratio", first);
  sink.put("open_second_ratio", second);
  sink.put("open_max_age_s", age(time, first_time));
  sink.put("recent_fraud", frauds);
  sink.put("ratio_1", n > 0 ? history.ratio[history.newest(0)] : not_a_number());
  sink.put("ratio_2", n > 1 ? history.ratio[history.newest(1)] : not_a_number());
  sink.put("ratio_3", n > 2 ? history.ratio[history.newest(2)] : not_a_number());
  sink.put("gap_2_s", n > 1 ? age(time, history.time[history.newest(1)]) : not_a_number());
}

// Who else was at this entity: the last kHistory events of its ring.
template <typename Sink>
void put_around(Sink& sink, const Engine& engine, const Around& around, int32_t account,
                int64_t time) {
  // Loops of one fixed length become vectors; rows from n on hold no event.
  int32_t accounts[kHistory];
  int32_t others = 0, frauds = 0, open_events = 0, loud = 0, distinct = 0, tainted = 0;
  const int n = around.length() < kHistory ? around.length() : kHistory;
  for (int i = 0; i < kHistory; ++i) {
    const int32_t at = i < n ? around.newest(i) : 0;
    accounts[i] = i < n ? around.account[at] : -1;
    frauds += i < n && around.status[at] == 1;
    open_events += i < n && around.status[at] < 0;
    loud += i < n && around.loud[at];
    others += i < n && accounts[i] != account;
  }
  for (int i = 0; i < n; ++i) {
    int32_t seen_before = 0;
    for (int j = 0; j < kHistory; ++j) seen_before |= j < i && accounts[j] == accounts[i];
    if (seen_before) continue;
    distinct += 1;
    if (accounts[i] != account && engine.account_frauds[accounts[i]] > 0) tainted += 1;
  }
  sink.put("around_count", n);
  sink.put("around_accounts", distinct);
  sink.put("around_others", others);
  sink.put("around_tainted", tainted);
  sink.put("around_fraud", frauds);
  sink.put("around_open", open_events);
  sink.put("around_loud", loud);
  sink.put("around_span_s",
           n ? age(time, around.time[(around.count - n) % kHistory]) : not_a_number());
}

template <typename Sink>
void put_row(Sink& sink, const Engine& engine, const History& history, const Query& query) {
  const int64_t time = query.time;
  sink.put("amount", query.amount);
  sink.put("second_of_day", static_cast<double>(time % kDay));
  sink.put("day_of_week", static_cast<double>((time / kDay + 4) % 7));
  for (int r = 0; r < engine.num_roles; ++r) {
    const Entity& entity = engine.entity_of(r, query.slot[r]);
    sink.role(r);
    put_activity(sink, entity, query.faded[r].event, time);
    put_amount(sink, entity, query.faded[r].event, query);
    put_labels(sink, entity, query.faded[r], time);
    if (r == 0) {
      put_history(sink, history, time);
    } else {
      const Pair& pair = engine.pair_of(r, query.pair[r]);
      sink.put("pair_count", static_cast<double>(pair.count));
      sink.put("pair_gap_s", pair.count ? age(time, pair.last_time) : not_a_number());
    }
    if (engine.shared[r]) {
      put_around(sink, engine, engine.around_of(r, query.slot[r]), query.slot[0], time);
    }
  }
}

inline void write_row(const Engine& engine, const History& history, const Query& query,
                      float* out) {
  Values values{out};
  put_row(values, engine, history, query);
  // One NaN for all: processors differ in the sign of the NaN that inf - inf gives.
  const float nan = static_cast<float>(not_a_number());
  for (float* value = out; value != values.out; ++value) *value = *value == *value ? *value : nan;
}

// ---- the events around it ----

// `event`: the number that the new event will have.
inline void write_history(const History& history, int32_t event, int32_t* out, int8_t* status) {
  const int n = history.length();
  for (int i = 0; i < kHistory; ++i) {
    const int back = kHistory - 2 - i;  // the newest past event goes to column kHistory - 2
    const int32_t at = back >= 0 && back < n ? history.newest(back) : -1;
    const int32_t past = at < 0 ? -1 : history.event[at];
    if (out) out[i] = back < 0 ? event : past;
    if (status) status[i] = at < 0 ? static_cast<int8_t>(-1) : history.status[at];
  }
}

inline void write_neighbours(const Engine& engine, const int32_t* slot, int32_t* out,
                             int8_t* status) {
  if (out) memset(out, -1, kNeighbours * sizeof *out);
  if (status) memset(status, -1, kNeighbours * sizeof *status);
  int roles = 0;
  for (int r = 0; r < engine.num_roles; ++r) roles += engine.shared[r];
  const int share = roles ? kNeighbours / roles : 0;
  int start = 0;
  for (int r = 0; r < engine.num_roles; ++r) {
    if (!engine.shared[r]) continue;
    const Around& around = engine.around_of(r, slot[r]);
    int column = start;
    start += share;
    for (int i = 0; i < around.length() && column < start; ++i) {
      const int32_t at = around.newest(i);
      if (around.account[at] == slot[0]) continue;
      if (out) out[column] = around.event[at];
      if (status) status[column] = around.status[at];
      ++column;
    }
  }
}

}  // namespace fold
