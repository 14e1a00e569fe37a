/* m2se_bench embed, embed-image: how fast texts and pictures become vectors. */
#ifndef M2SED_TOOLS_M2SE_BENCH_EMBED_H
#define M2SED_TOOLS_M2SE_BENCH_EMBED_H

#include <stdint.h>

#include "model/error.h"
#include "model/m2se.h"

struct m2se_bench_embed_flags {
  const char *model;           /* a Hugging Face folder */
  uint32_t tokens, tokens_min; /* of a text: lengths are spread evenly from tokens_min (0: all alike) */
  uint32_t batch;              /* texts or pictures a call */
  uint32_t rows;               /* ids computed at a time; 0: all of a call; not of pictures */
  uint32_t steps;              /* calls that are timed, each on every thread */
  uint32_t seed, threads;
};

/* Each prints one JSON line. Of model/error.h. */
int m2se_bench_embed(const struct m2se_bench_embed_flags *flags, const struct m2se_workers *workers,
                     struct m2se_error *error);
int m2se_bench_embed_image(const struct m2se_bench_embed_flags *flags, const struct m2se_workers *workers,
                           struct m2se_error *error);

#endif
