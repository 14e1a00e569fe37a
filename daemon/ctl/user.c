#include "daemon/ctl/user.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "ingest/validate.h"

int m2sed_user_check(const char *user) {
  struct m2se_refusal refusal;
  return m2se_validate_id(user, strlen(user), "USER", &refusal) ? m2sed_ctl_fail(EX_USAGE, "%s", refusal.text)
                                                                : 0;
}

static void on_sequence(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_user_sequence *user = context;
  if (status) {
    m2se_error_set(&user->error, status, "Redis: %s", error ? error : "the connection was closed");
    return;
  }
  const char *bytes = m2se_redis_reply_bytes(reply, &user->blob_size);
  user->blob = malloc(user->blob_size + 1);
  if (user->blob)
    memcpy(user->blob, bytes, user->blob_size);
  else
    m2se_error_set(&user->error, M2SE_ENOMEM, "a sequence");
}

int m2sed_user_sequence_read(struct m2sed_user_sequence *user, struct m2sed_ask *ask,
                             const struct m2sed_config *config, const char *id) {
  struct m2se_key key;
  user->blob = NULL;
  user->error = (struct m2se_error){0};
  m2se_key_build(&key, config->redis_prefix, M2SE_KEY_SEQUENCE, id, strlen(id));
  const struct m2se_redis_argument get[] = {m2sed_ask_word("GET"), m2sed_ask_key(&key)};
  if (m2sed_ask_send(ask, get, 2, on_sequence, user, &user->error) || m2sed_ask_wait(ask, &user->error) ||
      user->error.code)
    return user->error.code;
  int code = m2se_sequence_parse(&user->sequence, user->blob, user->blob_size, &user->error);
  return code ? m2se_error_prefix(&user->error, code, "%s", key.bytes) : 0;
}

void m2sed_user_sequence_free(struct m2sed_user_sequence *user) {
  free(user->blob);
  user->blob = NULL;
}
