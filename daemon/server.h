/* The serving thread: vectors of users and items from the newest copy of the weights, and the prequential
 * evaluation.
 *
 * DESIGN. Two tables at most: the current epoch, whose item vectors the loop has written, and the next, whose
 * items are being encoded. Users always come first; items are encoded in blocks of at most 64 between them.
 * An epoch begins when the trainer hands over a copy of the weights and there is no next epoch yet; its
 * number is one above the last. Before the first M2SED_SERVE_EPOCH_DONE there is no current epoch: users are
 * answered with count 0.
 */
#ifndef M2SED_SERVER_H
#define M2SED_SERVER_H

#include "daemon/exchange.h"
#include "daemon/messages.h"
#include "daemon/ring.h"
#include "daemon/watchdog.h"
#include "model/m2se.h"

struct m2sed_serve_settings {
  double popularity_weight; /* serve.popularity_weight: beta, 0 = off */
  double popularity_prior;  /* serve.popularity_prior: kappa > 0 of beta log(kappa + n) */
  bool evaluate;            /* serve.evaluate: memory for the prequential evaluation */
  bool recommend;           /* M2SED_SERVE_RECOMMEND may come: memory for the items' vectors */
  uint32_t items_max;       /* model.items_max, as the trainer's */
  uint32_t ring_capacity;   /* requests that may wait */
  uint64_t
      first_epoch; /* number of the first epoch: above any that readers have seen (Redis keeps the last) */
};

struct m2sed_server;

/* Memory for everything, no thread yet. exchange stays the caller's and outlives the server. */
int m2sed_server_new(struct m2sed_server **server, const struct m2se_config *config,
                     const struct m2sed_serve_settings *settings, struct m2sed_exchange *exchange,
                     struct m2se_error *error);
/* The rings. Set the loop's callbacks (input: on_room, output: on_message) before start. A message of kind
 * M2SED_SERVE_ITEM hands over one reference of its record. */
struct m2sed_ring *m2sed_server_input(struct m2sed_server *server);
struct m2sed_ring *m2sed_server_output(struct m2sed_server *server);
/* Width of vectors: 2h, or 2h + 1 with item biases or a count term. */
uint32_t m2sed_server_dim(const struct m2sed_server *server);
void m2sed_server_set_first_epoch(struct m2sed_server *server, uint64_t epoch); /* before start */
int m2sed_server_start(struct m2sed_server *server, struct m2se_error *error);
/* Waits for the end of the thread: at once after M2SED_SERVED_STOPPED. Not started: returns. */
void m2sed_server_join(struct m2sed_server *server);
struct m2sed_pulse
m2sed_server_pulse(const struct m2sed_server *server); /* any thread; once it has started */
void m2sed_server_free(struct m2sed_server *server);   /* after join; NULL is allowed */
/* Evaluations left out because users kept waiting. Any thread. */
uint64_t m2sed_server_evaluations_skipped(const struct m2sed_server *server);

/* What the answers mean, beyond messages.h:
 * M2SED_SERVED_USER: one for each M2SED_SERVE_USER, in order. epoch and step are those of the vector.
 *   evaluate = true with context_count 0 only counts the target for the popularity baseline.
 * M2SED_SERVED_RECOMMEND: one for each M2SED_SERVE_RECOMMEND, in order, but for those under way at
 *   M2SED_SERVE_STOP. All of it is of one epoch.
 * M2SED_SERVED_ITEMS: at most 64 vectors, and at most M2SED_SERVED_BLOCK / dim. Blocks of the current epoch
 * (items that came or changed later) and of the next one interleave, and blocks of the next one may still
 * come after its M2SED_SERVED_EPOCH, for the same reason. M2SED_SERVED_EPOCH: comes once per epoch; answer
 * with M2SED_SERVE_EPOCH_DONE when its vectors are written. */

#endif
