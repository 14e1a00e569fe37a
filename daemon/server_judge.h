/* The prequential evaluation's part of the server; its thread only.
 *
 * DESIGN. An event is judged after its vector has gone out and when no user waits, a few at a time, so that
 * no vector waits for long. Until then it stands in a short queue; when that is full the oldest is left out:
 * it counts for popularity, in its turn, but is not ranked. Whoever changes the epoch judges all first: the
 * next weights may have learned what stands here. */
#ifndef M2SED_SERVER_JUDGE_H
#define M2SED_SERVER_JUDGE_H

#include "daemon/evaluate.h"
#include "daemon/server_tables.h"

struct m2sed_judge;

/* 0, M2SE_ENOMEM. */
int m2sed_judge_new(struct m2sed_judge **judge, const struct m2sed_catalogue_view *view,
                    struct m2se_error *error);
void m2sed_judge_free(struct m2sed_judge *judge); /* NULL is allowed */
/* message->evaluate. Returns whether an event that could have been judged was left out for it. */
bool m2sed_judge_add(struct m2sed_judge *judge, const struct m2sed_table *table,
                     const struct m2sed_catalogue_view *view, const struct m2sed_serve_message *message);
/* Judges the oldest few. False: there are none. */
bool m2sed_judge_work(struct m2sed_judge *judge, const struct m2sed_table *table,
                      const struct m2sed_catalogue_view *view);
const struct m2sed_prequential *m2sed_judge_sums(const struct m2sed_judge *judge);

#endif
