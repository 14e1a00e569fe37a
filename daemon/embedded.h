/* --embedded: a Kafka and a Redis of our own, for trials. Kafka is librdkafka's mock cluster in this process:
 * what it holds ends with the process and is bounded. Redis is a child process with its data in the state
 * folder: sequences and vectors stay. Before the loop runs and after; main thread.
 */
#ifndef M2SED_EMBEDDED_H
#define M2SED_EMBEDDED_H

#include "daemon/config.h"

struct m2sed_embedded;

/* Starts both and turns kafka.brokers, redis.uri and checkpoint.init_if_empty in config to them; writes the
 * brokers' address to the file "brokers" in daemon.state_dir, which exists. Errors of the parts. */
int m2sed_embedded_start(struct m2sed_embedded **embedded, struct m2sed_config *config,
                         struct m2se_error *error);
/* Ends both, Redis after writing its data. NULL is allowed. */
int m2sed_embedded_stop(struct m2sed_embedded *embedded, struct m2se_error *error);

#endif
