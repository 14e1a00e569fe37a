/* m2sectl audit: does what Redis holds of users fit together? The daemon may go on meanwhile: what is
 * compared was written in an order that shows the older part first. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ask.h"
#include "daemon/ctl/ctl.h"
#include "ingest/sequence.h"
#include "ingest/vector.h"
#include "model/files/json.h"

enum { PAGE_MAX = 16384, PROBLEMS_TOLD = 20 };

/* X(name, is it wrong, what it is) */
#define COUNTS(X)                                                                                            \
  X(sequences, false, "sequences")                                                                           \
  X(entries, false, "events in them")                                                                        \
  X(sequences_without_vector, false, "sequences without a vector: no item of them has features yet")         \
  X(vectors, false, "vectors of users")                                                                      \
  X(vectors_behind, false, "of these older than the two newest epochs: they are made again in turn")         \
  X(sequences_damaged, true, "sequences that cannot be read")                                                \
  X(vectors_without_sequence, true, "vectors without a sequence")                                            \
  X(vectors_damaged, true, "vectors of another width, with values that are not finite, or without an epoch") \
  X(epochs_ahead, true, "epochs that the model has not reached")                                             \
  X(keys_foreign, true, "keys with a name or type that the daemon does not write")

struct audit { /* must outlive the connection */
  const struct m2sed_ctl *ctl;
  struct m2sed_ask *ask;
  struct m2se_error error; /* of a callback */
  struct audit_counts {
#define FIELD(name, wrong, text) uint64_t name;
    COUNTS(FIELD)
#undef FIELD
  } counts;
  uint64_t problems;
  uint64_t sample; /* keys of each kind */

  bool model;
  uint64_t epoch, dim;
  uint64_t epoch_max; /* of a user's vector */
  char epoch_max_key[M2SE_KEY_BYTES_MAX + 1];

  char cursor[24];
  struct audit_key {
    struct audit *audit;
    struct m2se_key key;
    char id[M2SE_ID_BYTES_MAX + 1];
    uint32_t id_size;
    bool there; /* the first answer of two: it is still there */
  } * page;     /* [PAGE_MAX], keys of one answer of SCAN */
  uint32_t page_count;
  struct m2se_sequence sequence;
};

static void tell(struct audit *audit, uint64_t *counter, const char *key, const char *what) {
  ++*counter;
  if (++audit->problems > PROBLEMS_TOLD)
    return;
  struct m2sed_text text = {0};
  m2sed_text_add_foreign(&text, key, strlen(key));
  if (!text.failed)
    m2sed_ctl_fail(0, "%s: %s", text.data ? text.data : "", what);
  m2sed_text_free(&text);
  if (audit->problems == PROBLEMS_TOLD)
    m2sed_ctl_fail(0, "whatever else is wrong is only counted");
}

/* True: there is a reply to look at. A key of another type is a problem of its own. */
static bool answered(struct audit *audit, const char *key, int status, const char *error) {
  if (status == M2SE_EFORMAT && key)
    tell(audit, &audit->counts.keys_foreign, key, error);
  else if (status)
    m2se_error_set(&audit->error, status, "Redis: %s", error ? error : "the connection was closed");
  return !status;
}

static bool read_number(const struct m2se_redis_reply *reply, size_t index, uint64_t *number) {
  size_t size;
  const char *text = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, index), &size);
  errno = 0;
  *number = strtoull(text, NULL, 10);
  return size && !text[strspn(text, "0123456789")] && !errno;
}

/* ---- the model ---- */

static void on_model(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct audit *audit = context;
  if (answered(audit, NULL, status, error))
    audit->model = read_number(reply, 0, &audit->epoch) && read_number(reply, 1, &audit->dim);
}

static int read_model(struct audit *audit) {
  struct m2se_key key;
  m2se_key_build(&key, audit->ctl->config.redis_prefix, M2SE_KEY_MODEL, NULL, 0);
  const struct m2se_redis_argument get[] = {m2sed_ask_word("HMGET"), m2sed_ask_key(&key),
                                            m2sed_ask_word("epoch"), m2sed_ask_word("dim")};
  if (!m2sed_ask_send(audit->ask, get, 4, on_model, audit, &audit->error))
    m2sed_ask_wait(audit->ask, &audit->error);
  return audit->error.code;
}

/* ---- sequences ---- */

static void on_sequence(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct audit_key *key = context;
  struct audit *audit = key->audit;
  struct m2se_error why = {0};
  size_t size;
  key->there = false;
  if (!answered(audit, key->key.bytes, status, error) || m2se_redis_reply_type(reply) == M2SE_REDIS_NIL)
    return; /* it has ended since SCAN named it */
  const char *blob = m2se_redis_reply_bytes(reply, &size);
  audit->counts.sequences++;
  if (!size || m2se_sequence_parse(&audit->sequence, blob, size, &why)) {
    tell(audit, &audit->counts.sequences_damaged, key->key.bytes, size ? why.text : "it is empty");
    return;
  }
  key->there = true;
  audit->counts.entries += audit->sequence.entry_count;
}

static void on_vector_exists(void *context, int status, const struct m2se_redis_reply *reply,
                             const char *error) {
  const struct audit_key *key = context;
  if (answered(key->audit, NULL, status, error) && key->there && !m2se_redis_reply_integer(reply))
    key->audit->counts.sequences_without_vector++;
}

static int ask_sequence(struct audit *audit, struct audit_key *key) {
  struct m2se_key user;
  m2se_key_build(&user, audit->ctl->config.redis_prefix, M2SE_KEY_USER, key->id, key->id_size);
  const struct m2se_redis_argument get[] = {m2sed_ask_word("GET"), m2sed_ask_key(&key->key)};
  const struct m2se_redis_argument exists[] = {m2sed_ask_word("EXISTS"), m2sed_ask_key(&user)};
  int code = m2sed_ask_send(audit->ask, get, 2, on_sequence, key, &audit->error);
  return code ? code : m2sed_ask_send(audit->ask, exists, 2, on_vector_exists, key, &audit->error);
}

/* ---- vectors ---- */

static bool is_finite(const float *vector, uint64_t dim) {
  for (uint64_t i = 0; i < dim; i++)
    if (!isfinite(vector[i]))
      return false;
  return true;
}

static void on_vector(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct audit_key *key = context;
  struct audit *audit = key->audit;
  size_t size;
  uint64_t epoch, step;
  key->there = false;
  if (!answered(audit, key->key.bytes, status, error) ||
      m2se_redis_reply_type(m2se_redis_reply_element(reply, 0)) == M2SE_REDIS_NIL)
    return;
  key->there = true;
  audit->counts.vectors++;
  const char *bytes = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 0), &size);
  const char *what = NULL;
  static float vector[M2SE_VECTOR_DIM_MAX];
  if (audit->dim > M2SE_VECTOR_DIM_MAX || !m2se_vector_decode(bytes, size, (uint32_t)audit->dim, vector))
    what = audit->model ? "the vector is not as wide as the model says" : "there is no model";
  else if (!is_finite(vector, audit->dim))
    what = "the vector has values that are not finite";
  else if (!read_number(reply, 1, &epoch) || !read_number(reply, 2, &step))
    what = "epoch or step is no number";
  if (what) {
    tell(audit, &audit->counts.vectors_damaged, key->key.bytes, what);
    return;
  }
  audit->counts.vectors_behind += epoch + 1 < audit->epoch;
  if (epoch > audit->epoch_max) {
    audit->epoch_max = epoch;
    memcpy(audit->epoch_max_key, key->key.bytes, key->key.size + 1);
  }
}

static void on_sequence_exists(void *context, int status, const struct m2se_redis_reply *reply,
                               const char *error) {
  const struct audit_key *key = context;
  struct audit *audit = key->audit;
  if (answered(audit, NULL, status, error) && key->there && !m2se_redis_reply_integer(reply))
    tell(audit, &audit->counts.vectors_without_sequence, key->key.bytes, "there is no sequence with it");
}

/* The sequence is written first, so that it is asked for last. */
static int ask_vector(struct audit *audit, struct audit_key *key) {
  struct m2se_key sequence;
  m2se_key_build(&sequence, audit->ctl->config.redis_prefix, M2SE_KEY_SEQUENCE, key->id, key->id_size);
  const struct m2se_redis_argument get[] = {m2sed_ask_word("HMGET"), m2sed_ask_key(&key->key),
                                            m2sed_ask_word("v"), m2sed_ask_word("epoch"),
                                            m2sed_ask_word("step")};
  const struct m2se_redis_argument exists[] = {m2sed_ask_word("EXISTS"), m2sed_ask_key(&sequence)};
  int code = m2sed_ask_send(audit->ask, get, 5, on_vector, key, &audit->error);
  return code ? code : m2sed_ask_send(audit->ask, exists, 2, on_sequence_exists, key, &audit->error);
}

/* ---- all keys of a kind ---- */

static void on_page(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct audit *audit = context;
  size_t size;
  audit->page_count = 0;
  if (!answered(audit, NULL, status, error))
    return;
  const char *cursor = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 0), &size);
  const struct m2se_redis_reply *keys = m2se_redis_reply_element(reply, 1);
  if (!size || size >= sizeof audit->cursor || m2se_redis_reply_count(keys) > PAGE_MAX) {
    m2se_error_set(&audit->error, M2SE_EFORMAT, "not what SCAN answers");
    return;
  }
  memcpy(audit->cursor, cursor, size + 1);
  for (size_t i = 0; i < m2se_redis_reply_count(keys); i++) {
    const char *name = m2se_redis_reply_bytes(m2se_redis_reply_element(keys, i), &size);
    struct audit_key *key = &audit->page[audit->page_count++];
    key->audit = audit;
    key->key.size = size < M2SE_KEY_BYTES_MAX ? (uint32_t)size : M2SE_KEY_BYTES_MAX;
    memcpy(key->key.bytes, name, key->key.size);
    key->key.bytes[key->key.size] = '\0';
  }
}

static int walk(struct audit *audit, enum m2se_key_kind kind) {
  const char *prefix = audit->ctl->config.redis_prefix;
  struct m2se_key pattern;
  m2se_key_pattern(&pattern, prefix, kind);
  memcpy(audit->cursor, "0", 2);
  uint64_t left = audit->sample;
  do {
    const struct m2se_redis_argument scan[] = {m2sed_ask_word("SCAN"),  m2sed_ask_word(audit->cursor),
                                               m2sed_ask_word("MATCH"), m2sed_ask_key(&pattern),
                                               m2sed_ask_word("COUNT"), m2sed_ask_word("1000")};
    if (m2sed_ask_send(audit->ask, scan, 6, on_page, audit, &audit->error) ||
        m2sed_ask_wait(audit->ask, &audit->error) || audit->error.code)
      return audit->error.code;
    for (uint32_t i = 0; i < audit->page_count && left; i++, left--) {
      struct audit_key *key = &audit->page[i];
      if (!m2se_key_parse(prefix, kind, key->key.bytes, key->key.size, key->id, &key->id_size))
        tell(audit, &audit->counts.keys_foreign, key->key.bytes, "not the name of a user's key");
      else if (kind == M2SE_KEY_USER ? ask_vector(audit, key) : ask_sequence(audit, key))
        return audit->error.code;
    }
    if (m2sed_ask_wait(audit->ask, &audit->error) || audit->error.code)
      return audit->error.code;
  } while (left && strcmp(audit->cursor, "0") != 0);
  return 0;
}

/* ---- the answer ---- */

static int show(const struct audit *audit) {
  if (m2sed_ctl_has(audit->ctl, M2SED_CTL_JSON)) {
    struct m2se_json_writer *writer = m2se_json_writer_new(0);
    m2se_json_put_object(writer, NULL);
    m2se_json_put_bool(writer, "good", !audit->problems);
#define PUT(name, wrong, text) m2se_json_put_int64(writer, #name, (int64_t)audit->counts.name);
    COUNTS(PUT)
#undef PUT
    m2se_json_put_end(writer);
    return m2sed_ctl_show_json(writer);
  }
  struct m2sed_text text = {0};
#define ADD(name, wrong, words)                                                                              \
  if (!(wrong) || audit->counts.name) {                                                                      \
    m2sed_text_add(&text, "%s", (wrong) ? "WRONG: " : "");                                                   \
    m2sed_text_add_count(&text, audit->counts.name);                                                         \
    m2sed_text_add(&text, " %s\n", words);                                                                   \
  }
  COUNTS(ADD)
#undef ADD
  m2sed_text_add(&text, "%s", audit->problems ? "" : "all is well\n");
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

static int run(struct audit *audit) {
  if (read_model(audit) || walk(audit, M2SE_KEY_SEQUENCE) || walk(audit, M2SE_KEY_USER) || read_model(audit))
    return m2sed_ctl_fail(audit->error.code == M2SE_EIO ? EX_UNAVAILABLE : EX_DATAERR, "%s",
                          audit->error.text);
  /* Users may be a step ahead: theirs may come while the model's new epoch is on its way. */
  if (audit->epoch_max > audit->epoch + 1)
    tell(audit, &audit->counts.epochs_ahead, audit->epoch_max_key, "its epoch is ahead of the model's");
  int status = show(audit);
  return status ? status : audit->problems ? EX_DATAERR : 0;
}

int m2sed_ctl_audit(struct m2sed_ctl *ctl) {
  static struct audit audit;
  struct m2se_error error = {0};
  audit.ctl = ctl;
  audit.sample = UINT64_MAX;
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_SAMPLE, INT64_MAX, &audit.sample);
  if (status)
    return status;
  audit.page = calloc(PAGE_MAX, sizeof *audit.page);
  if (!audit.page)
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  m2sed_ctl_catch_interrupts();
  int code = m2sed_ask_open(&audit.ask, &ctl->config, &error);
  status = code ? m2sed_ctl_fail_error(&error) : run(&audit);
  if (!code)
    m2sed_ask_close(audit.ask);
  free(audit.page);
  return status;
}
