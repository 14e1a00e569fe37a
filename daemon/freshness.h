/* How long events take from the producer's timestamp to a stage of their way: a histogram since the start,
 * and quantiles of the last minute. Times in ms. Thread: the loop's.
 */
#ifndef M2SED_FRESHNESS_H
#define M2SED_FRESHNESS_H

#include <stdint.h>

/* X(enum, name in the status) */
#define M2SED_STAGES(X)                                                                                      \
  X(CONSUMED, "consumed") /* taken from Kafka */                                                             \
  X(SEQUENCE, "sequence") /* in the user's sequence: acknowledged by Redis */                                \
  X(VECTOR, "vector")     /* the user's new vector: acknowledged by Redis */

enum m2sed_stage {
#define M2SED_STAGE_ENUM(stage, name) M2SED_STAGE_##stage,
  M2SED_STAGES(M2SED_STAGE_ENUM)
#undef M2SED_STAGE_ENUM
      M2SED_STAGE_COUNT
};
enum { M2SED_FRESHNESS_BOUNDS = 24, M2SED_FRESHNESS_SECONDS = 60 };

struct m2sed_freshness {                                          /* zero at first */
  uint64_t counts[M2SED_STAGE_COUNT][M2SED_FRESHNESS_BOUNDS + 1]; /* the last: above all bounds */
  double sum_ms[M2SED_STAGE_COUNT];
  uint32_t recent[M2SED_STAGE_COUNT][M2SED_FRESHNESS_SECONDS][M2SED_FRESHNESS_BOUNDS + 1];
  int64_t second; /* of the newest column */
};

extern const double m2sed_freshness_bounds_ms[M2SED_FRESHNESS_BOUNDS]; /* rising */
extern const char *const m2sed_stage_names[M2SED_STAGE_COUNT];

/* produced_ms < 0 (the record had no timestamp): not counted. A producer's clock ahead of ours counts as 0.
 */
void m2sed_freshness_add(struct m2sed_freshness *freshness, enum m2sed_stage stage, int64_t now_ms,
                         int64_t produced_ms);
/* q in 0..1 over the last minute, interpolated within its bucket; 0 if there was nothing. */
double m2sed_freshness_quantile(struct m2sed_freshness *freshness, enum m2sed_stage stage, int64_t now_ms,
                                double q);

#endif
