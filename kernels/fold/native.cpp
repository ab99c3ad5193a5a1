// The fold: state = fold(events, labels). Every event's feature row is written before the event
// changes the state; a label changes it when it becomes visible. reference.py is the definition.
#include "row.h"

namespace fold {

struct Output {
  float* features;
  int32_t* history;
  int8_t* history_status;
  int32_t* neighbours;
  int8_t* neighbour_status;
};

inline uint64_t pair_key(uint64_t account, uint64_t other) {
  return mix(account + 0x9e3779b97f4a7c15ull) ^ other;
}

// The slots of an event's entities, made when they are new; false when memory ran out.
inline bool find(Engine& engine, const uint64_t* tokens, int32_t* slot, int64_t* pair) {
  for (int r = 0; r < engine.num_roles; ++r) {
    const int kind = engine.kind[r];
    slot[r] = -1;
    pair[r] = -1;
    if (r > 0 && tokens[r] == 0) continue;
    const int64_t at = engine.slots[kind].slot(tokens[r]);
    if (at < 0 || at > INT32_MAX) return false;
    slot[r] = static_cast<int32_t>(at);
    if (!engine.entities[r].grow(at + 1)) return false;
    if (engine.shared[r] && !engine.around[kind].grow(at + 1)) return false;
    if (r == 0) {
      if (!engine.history.grow(at + 1) || !engine.account_frauds.grow(at + 1)) return false;
      continue;
    }
    pair[r] = engine.pairs[r].slot(pair_key(tokens[0], tokens[r]));
    if (pair[r] < 0 || !engine.pair_state[r].grow(pair[r] + 1)) return false;
  }
  return true;
}

inline void push(Engine& engine, const int32_t* slot, const int64_t* pair, int32_t number,
                 const Event& event, double ratio) {
  for (int r = 0; r < engine.num_roles; ++r) {
    if (slot[r] < 0) continue;
    bool again = false;  // two roles of one kind may name the same entity
    for (int q = 0; q < r; ++q) again |= engine.kind[q] == engine.kind[r] && slot[q] == slot[r];
    if (engine.shared[r] && !again) {
      Around& around = engine.around[engine.kind[r]][slot[r]];
      const int32_t at = around.push(number);
      around.account[at] = event.account;
      around.loud[at] = event.loud;
      around.time[at % kHistory] = event.time;
    }
    if (r == 0) continue;
    Pair& state = engine.pair_state[r][pair[r]];
    state.count += 1;
    state.last_time = event.time;
  }
  History& history = engine.history[event.account];
  const int32_t at = history.push(number);
  history.time[at] = event.time;
  history.ratio[at] = ratio;
}

bool step(Engine& engine, int64_t time, const uint64_t* tokens, double amount, const Output& out) {
  int32_t slot[kMaxRoles];
  int64_t pair[kMaxRoles];
  if (engine.events.size >= INT32_MAX || !find(engine, tokens, slot, pair)) return false;
  const int64_t number = engine.events.size;
  const int roles = engine.num_roles;
  if (!engine.events.grow(number + 1) || !engine.event_slot.grow((number + 1) * roles) ||
      !engine.event_habit.grow((number + 1) * roles)) {
    return false;
  }
  Entity* entity[kMaxRoles];
  Faded faded[kMaxRoles];
  for (int r = 0; r < roles; ++r) {
    entity[r] = slot[r] < 0 ? &engine.no_entity : &engine.entities[r][slot[r]];
  }
  advance(entity, roles, time, faded);
  const Query query{time, amount, log2_positive(1.0 + amount), slot, pair, faded};
  const History& history = engine.history[slot[0]];
  if (out.features) write_row(engine, history, query, out.features);
  write_history(history, static_cast<int32_t>(number), out.history, out.history_status);
  write_neighbours(engine, slot, out.neighbours, out.neighbour_status);

  const Entity& account = *entity[0];
  const double account_habit = ratio_of(account.habit_sum, account.habit_count);
  const double ratio = account.habit_count < 3.0 ? not_a_number() : ratio_of(amount, account_habit);
  for (int r = 0; r < roles; ++r) {
    engine.event_slot[number * roles + r] = slot[r];
    if (slot[r] < 0) continue;
    engine.event_habit[number * roles + r] =
        add_event(*entity[r], faded[r].event, time, amount, query.log_amount, ratio);
  }
  const Event event{time, slot[0], ratio > kLoud};
  engine.events[number] = event;
  push(engine, slot, pair, static_cast<int32_t>(number), event, ratio);
  return true;
}

void learn(Engine& engine, int64_t now, int64_t number, int8_t fraud) {
  const Event& event = engine.events[number];
  engine.account_frauds[event.account] += fraud;
  engine.history[event.account].mark(static_cast<int32_t>(number), fraud);
  for (int r = 0; r < engine.num_roles; ++r) {
    const int64_t at = number * engine.num_roles + r;
    const int32_t slot = engine.event_slot[at];
    if (slot < 0) continue;
    add_label(engine.entities[r][slot], now, event, engine.event_habit[at], fraud);
    if (!engine.shared[r]) continue;
    engine.around[engine.kind[r]][slot].mark(static_cast<int32_t>(number), fraud);
  }
}

// ---- what will be needed soon: most of an event's time would go into waiting for memory ----

constexpr int64_t kCellsAhead = 8;  // events; by then the cells are here, and tell which state
constexpr int64_t kStateAhead = 4;

inline void prefetch_cells(const Engine& engine, const uint64_t* tokens) {
  for (int r = 0; r < engine.num_roles; ++r) {
    if (r > 0 && tokens[r] == 0) continue;
    engine.slots[engine.kind[r]].prefetch(tokens[r]);
    if (r > 0) engine.pairs[r].prefetch(pair_key(tokens[0], tokens[r]));
  }
}

inline void prefetch_state(Engine& engine, const uint64_t* tokens) {
  for (int r = 0; r < engine.num_roles; ++r) {
    if (r > 0 && tokens[r] == 0) continue;
    const int64_t slot = engine.slots[engine.kind[r]].peek(tokens[r]);
    if (slot < 0) continue;
    engine.entities[r].prefetch(slot);
    if (engine.shared[r]) engine.around[engine.kind[r]].prefetch(slot);
    if (r == 0) {
      engine.history.prefetch(slot);
    } else {
      const int64_t pair = engine.pairs[r].peek(pair_key(tokens[0], tokens[r]));
      if (pair >= 0) engine.pair_state[r].prefetch(pair);
    }
  }
}

// Before event i of n.
inline void prefetch(Engine& engine, const uint64_t* tokens, int64_t i, int64_t n) {
  const int roles = engine.num_roles;
  if (i + kCellsAhead < n) prefetch_cells(engine, tokens + (i + kCellsAhead) * roles);
  if (i + kStateAhead < n) prefetch_state(engine, tokens + (i + kStateAhead) * roles);
}

// What the label of a past event will change.
inline void prefetch_labelled(const Engine& engine, int64_t number) {
  engine.history.prefetch(engine.events[number].account);
  for (int r = 0; r < engine.num_roles; ++r) {
    const int32_t slot = engine.event_slot[number * engine.num_roles + r];
    if (slot < 0) continue;
    engine.entities[r].prefetch(slot);
    if (engine.shared[r]) engine.around[engine.kind[r]].prefetch(slot);
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
  const fold::History history = {};
  const fold::Faded faded[fold::kMaxRoles] = {};
  int32_t slot[fold::kMaxRoles];
  int64_t pair[fold::kMaxRoles];
  for (int r = 0; r < fold::kMaxRoles; ++r) slot[r] = -1, pair[r] = -1;
  fold::Names names{out, 0, capacity};
  fold::put_row(names, *engine, history, fold::Query{0, 0.0, 0.0, slot, pair, faded});
}

// Folds n events in time order and the labels that become visible before each of them.
// tokens: (n, roles), 0 where a role other than the account is empty. Labels: one per event at
// most, sorted by (label_time, label_event), where label_time says when it becomes visible and
// label_event counts from the first event ever folded. Every output may be NULL. Returns how many
// events were folded (less than n when memory ran out); *labels_used says how many labels were.
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
    fold::prefetch(*engine, tokens, i, n);
    for (; label < num_labels && label_time[label] <= time[i] &&
           label_event[label] < engine->events.size;
         ++label) {
      const int64_t soon = label + fold::kStateAhead;
      if (soon < num_labels && label_event[soon] < engine->events.size) {
        fold::prefetch_labelled(*engine, label_event[soon]);
      }
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

// Entities seen in a role, or events for role -1.
int64_t deepkits_fold_count(void* handle, int32_t role) {
  const Engine* engine = static_cast<Engine*>(handle);
  if (role < 0) return engine->events.size;
  int64_t count = 0;  // roles of one kind share their slots, so some are another role's
  for (int64_t i = 0; i < engine->entities[role].size; ++i) {
    count += engine->entities[role][i].seen > 0;
  }
  return count;
}

// What the whole engine holds.
int64_t deepkits_fold_bytes(void* handle) {
  Engine* engine = static_cast<Engine*>(handle);
  int64_t bytes = static_cast<int64_t>(sizeof(Engine)) + engine->history.bytes() +
                  engine->account_frauds.bytes() + engine->events.bytes() +
                  engine->event_slot.bytes() + engine->event_habit.bytes();
  for (int r = 0; r < fold::kMaxRoles; ++r) {
    bytes += engine->slots[r].cells.bytes() + engine->pairs[r].cells.bytes() +
             engine->entities[r].bytes() + engine->around[r].bytes() +
             engine->pair_state[r].bytes();
  }
  return bytes;
}

// What one account adds: its counters, its last events, those around it where others may be there
// too, and its cell at a load of 0.7.
int64_t deepkits_fold_account_bytes(void* handle) {
  const Engine* engine = static_cast<Engine*>(handle);
  return static_cast<int64_t>(sizeof(fold::Entity) + sizeof(fold::History) + sizeof(int32_t) +
                              (engine->shared[0] ? sizeof(fold::Around) : 0) +
                              sizeof(fold::SlotMap::Cell) * 10 / 7);
}

}  // extern "C"
