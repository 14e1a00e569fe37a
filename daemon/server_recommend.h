/* The best items for a user, out of the table of the current epoch. Part of the server; its thread only.
 *
 * DESIGN. Rankings wait in a short queue and one is worked on, a slice of the items at a time, so that
 * vectors of users, which come between, never wait for long. When the epoch changes half-way it begins anew:
 * an answer never mixes two. */
#ifndef M2SED_SERVER_RECOMMEND_H
#define M2SED_SERVER_RECOMMEND_H

#include "daemon/server_tables.h"

struct m2sed_recommender {
  struct m2sed_ranking *waiting[M2SED_RANKINGS_MAX]; /* a circle */
  uint32_t first, count;
  bool begun;         /* the first of them: the user's vector is there */
  uint64_t epoch;     /* of that vector */
  uint32_t next_slot; /* items before it were looked at */
  float *vector;      /* [dim] */
};

int m2sed_recommender_init(struct m2sed_recommender *recommender, uint32_t dim); /* 0, M2SE_ENOMEM */
void m2sed_recommender_deinit(struct m2sed_recommender *recommender);
/* At most M2SED_RANKINGS_MAX are under way at a time. */
void m2sed_recommender_add(struct m2sed_recommender *recommender, struct m2sed_ranking *ranking);
/* Works for a short time; the table keeps vectors. false: there was nothing to do. *done: a ranking that has
 * its answer now, or NULL. */
bool m2sed_recommender_work(struct m2sed_recommender *recommender, const struct m2sed_table *table,
                            const struct m2sed_catalogue_view *view, struct m2sed_ranking **done);

#endif
