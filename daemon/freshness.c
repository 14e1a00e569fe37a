#include "daemon/freshness.h"

#include <string.h>

const double m2sed_freshness_bounds_ms[M2SED_FRESHNESS_BOUNDS] = {
    1,   2,   3,   5,   7,   10,   15,   20,   30,    50,    70,    100,
    150, 200, 300, 500, 700, 1000, 2000, 5000, 10000, 30000, 60000, 300000};

const char *const m2sed_stage_names[M2SED_STAGE_COUNT] = {
#define M2SED_STAGE_NAME(stage, name) [M2SED_STAGE_##stage] = (name),
    M2SED_STAGES(M2SED_STAGE_NAME)
#undef M2SED_STAGE_NAME
};

/* Empties the columns of the seconds that have passed without anything. */
static void move_to(struct m2sed_freshness *freshness, int64_t second) {
  int64_t steps = second - freshness->second;
  if (steps <= 0)
    return; /* a clock set back: go on in the newest column */
  if (steps > M2SED_FRESHNESS_SECONDS)
    steps = M2SED_FRESHNESS_SECONDS;
  for (int64_t i = 0; i < steps; i++)
    for (int stage = 0; stage < M2SED_STAGE_COUNT; stage++)
      memset(freshness->recent[stage][(second - i) % M2SED_FRESHNESS_SECONDS], 0,
             sizeof freshness->recent[0][0]);
  freshness->second = second;
}

void m2sed_freshness_add(struct m2sed_freshness *freshness, enum m2sed_stage stage, int64_t now_ms,
                         int64_t produced_ms) {
  if (produced_ms < 0)
    return;
  move_to(freshness, now_ms / 1000);
  double ms = now_ms > produced_ms ? (double)(now_ms - produced_ms) : 0;
  uint32_t bucket = 0;
  while (bucket < M2SED_FRESHNESS_BOUNDS && ms > m2sed_freshness_bounds_ms[bucket])
    bucket++;
  freshness->counts[stage][bucket]++;
  freshness->sum_ms[stage] += ms;
  freshness->recent[stage][freshness->second % M2SED_FRESHNESS_SECONDS][bucket]++;
}

double m2sed_freshness_quantile(struct m2sed_freshness *freshness, enum m2sed_stage stage, int64_t now_ms,
                                double q) {
  move_to(freshness, now_ms / 1000);
  uint64_t counts[M2SED_FRESHNESS_BOUNDS + 1] = {0}, total = 0;
  for (int second = 0; second < M2SED_FRESHNESS_SECONDS; second++)
    for (int bucket = 0; bucket <= M2SED_FRESHNESS_BOUNDS; bucket++) {
      counts[bucket] += freshness->recent[stage][second][bucket];
      total += freshness->recent[stage][second][bucket];
    }
  double rank = q * (double)total, below = 0;
  for (int bucket = 0; bucket < M2SED_FRESHNESS_BOUNDS; bucket++) {
    if (counts[bucket] && below + (double)counts[bucket] >= rank) {
      double low = bucket ? m2sed_freshness_bounds_ms[bucket - 1] : 0,
             high = m2sed_freshness_bounds_ms[bucket];
      return low + (high - low) * (rank - below) / (double)counts[bucket];
    }
    below += (double)counts[bucket];
  }
  return total ? m2sed_freshness_bounds_ms[M2SED_FRESHNESS_BOUNDS - 1] : 0;
}
