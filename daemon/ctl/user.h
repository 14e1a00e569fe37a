/* A user as Redis has it: the sequence. */
#ifndef M2SED_CTL_USER_H
#define M2SED_CTL_USER_H

#include "daemon/ctl/ask.h"
#include "ingest/sequence.h"

/* An id of the command line. 0, or an exit status and said why. */
int m2sed_user_check(const char *user);

struct m2sed_user_sequence { /* must outlive the connection: an answer may come until it is closed */
  char *blob;                /* what `sequence` points into */
  size_t blob_size;
  struct m2se_error error;
  struct m2se_sequence sequence;
};
/* One without a key is empty. M2SE_EIO, M2SE_EFORMAT (damaged), M2SE_ENOMEM: user->error says more. Freed
 * with m2sed_user_sequence_free, after an error too. */
int m2sed_user_sequence_read(struct m2sed_user_sequence *user, struct m2sed_ask *ask,
                             const struct m2sed_config *config, const char *id);
void m2sed_user_sequence_free(struct m2sed_user_sequence *user);

#endif
