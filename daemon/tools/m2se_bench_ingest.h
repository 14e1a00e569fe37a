/* m2se_bench ingest: from encoded records to the trainer's ring, through a redis-server of its own. */
#ifndef M2SED_TOOLS_M2SE_BENCH_INGEST_H
#define M2SED_TOOLS_M2SE_BENCH_INGEST_H

#include <stdint.h>

#include "model/error.h"

struct m2se_bench_ingest_flags {
  uint32_t users, items, events, seed;
  uint32_t zipf_hundredths; /* a user of rank r has weight r^(-this / 100); 0: all alike */
  uint32_t event_ids;       /* 0: records carry none */
  uint32_t vector_dim;      /* of the vectors written afterwards, one a user */
  uint32_t float16;         /* their type; 0: float32 */
  uint32_t first_user;      /* number of the user of rank 0 */
  const char *redis;        /* URI of a server that is there, to which this is added; NULL: one of its own */
};

/* Prints one JSON line. Of model/error.h. */
int m2se_bench_ingest(const struct m2se_bench_ingest_flags *flags, struct m2se_error *error);

#endif
