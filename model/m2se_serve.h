/* The serving path: item vectors from feature rows, user vectors from items' states, from an immutable copy
 * of the weights. No dropout, no mixup.
 *
 * DESIGN. An item's state is z^t, z^v (2h numbers, after the missing-modality rule and the residual): what a
 * sequence is made of. An item's vector is what is published: both halves at unit length, and one more
 * component (2 tau b) if item biases are on. The caller keeps the states of its catalogue in one table and
 * passes it when it asks for users. Thread: a server belongs to one thread; the weights may be read by
 * several.
 */
#ifndef M2SE_SERVE_H
#define M2SE_SERVE_H

#include "model/m2se.h"

struct m2se_server;

enum { M2SE_SERVER_ROWS_MAX = 65536 }; /* rows of one modality that an item may have */

/* Takes all its memory here, for mini-batches of bounded size. bias_component: published vectors have the
 * component behind (needed for item biases or a count term). M2SE_EINVAL, M2SE_ENOMEM. */
int m2se_server_new(struct m2se_server **server, const struct m2se_config *config, bool bias_component,
                    struct m2se_error *error);
void m2se_server_free(struct m2se_server *server);
/* Width of published vectors: 2h, or 2h + 1. */
uint32_t m2se_server_dim(const struct m2se_server *server);

/* states [n, 2h] and vectors [n, dim], row i for items[i]; an item with no rows in either modality gets zeros
 * and is not to be published. count_term [n] or NULL: beta log(kappa + n_i), added to the last component. A
 * slot beyond those that the weights were copied with has residual and bias 0. Any n; weights of the server's
 * shape. */
void m2se_server_items(struct m2se_server *server, const struct m2se_weights *weights,
                       const struct m2se_item_input *items, size_t n, const float *count_term, float *states,
                       float *vectors);

/* vectors [n, dim] of n users. Sequence j: positions seq_ptr[j]..seq_ptr[j+1]-1 (1..L of them, the newest L
 * if there are more), each an index into states [., 2h]. Any n. The last component, if there is one, is 1. */
void m2se_server_users(struct m2se_server *server, const struct m2se_weights *weights, const float *states,
                       const uint32_t *seq_ptr, const uint32_t *seq_items, size_t n, float *vectors);

#endif
