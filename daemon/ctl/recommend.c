/* m2sectl recommend, explain: the user's vector against every item's of the same epoch, as any reader of
 * Redis can do it.
 *
 * While items are gone through, the daemon goes on. When the user's vector has become older than what the
 * items keep (their epoch and the one before), it is read again and all is done once more.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/titles.h"
#include "daemon/ctl/user.h"
#include "ingest/vector.h"
#include "model/files/json.h"

enum { BEST_MAX = 1000, PAGE_MAX = 16384, ATTEMPTS = 3 };

struct candidate {
  char id[M2SE_ID_BYTES_MAX + 1];
  uint32_t id_size;
  double score, text, image, bias; /* the sum, and what it is made of */
};

/* All of one search. Static: it must outlive the connection. */
struct search {
  const struct m2sed_ctl *ctl;
  struct m2sed_ask *ask;
  struct m2se_error error; /* of a callback */

  bool found; /* the user's hash is there */
  uint64_t epoch, step, sequence_count, event_time_ms;
  uint64_t dim; /* of the model; 0: there is none */
  float vector[M2SE_VECTOR_DIM_MAX], item[M2SE_VECTOR_DIM_MAX];

  bool explain, exclude;
  struct m2sed_user_sequence seen;

  char cursor[24];
  struct search_key {
    struct search *search;
    struct m2se_key key;
  } * page; /* [PAGE_MAX], keys of one answer of SCAN */
  uint32_t page_count;

  uint64_t items, newer,
      unreadable; /* gone through; of these only with later epochs; without a good vector */
  uint32_t wanted, count;
  struct candidate best[BEST_MAX]; /* best first */
};

static bool failed(struct search *search, int status, const char *error) {
  if (status)
    m2se_error_set(&search->error, status, "Redis: %s", error ? error : "the connection was closed");
  return status;
}

/* An element that is a decimal number. */
static bool read_number(const struct m2se_redis_reply *reply, size_t index, uint64_t *number) {
  size_t size;
  const char *text = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, index), &size);
  errno = 0;
  *number = strtoull(text, NULL, 10);
  return size && !text[strspn(text, "0123456789")] && !errno;
}

/* ---- the user ---- */

static void on_user(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct search *search = context;
  size_t size;
  if (failed(search, status, error))
    return;
  if (m2se_redis_reply_count(reply) != 5) {
    m2se_error_set(&search->error, M2SE_EFORMAT, "the user's key: not what HMGET answers");
    return;
  }
  const char *bytes = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 0), &size);
  search->found = m2se_redis_reply_type(m2se_redis_reply_element(reply, 0)) == M2SE_REDIS_BYTES;
  if (!search->found)
    return;
  if (!m2se_vector_decode(bytes, size, (uint32_t)search->dim, search->vector) ||
      !read_number(reply, 1, &search->epoch) || !read_number(reply, 2, &search->step)) {
    m2se_error_set(&search->error, M2SE_EFORMAT,
                   "the user's vector: %zu bytes (the model says %" PRIu64 " numbers of 4 or 2 bytes), or "
                   "without epoch and step",
                   size, search->dim);
    return;
  }
  read_number(reply, 3, &search->sequence_count);
  read_number(reply, 4, &search->event_time_ms);
}

static void on_model(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct search *search = context;
  if (!failed(search, status, error) &&
      (!read_number(reply, 0, &search->dim) || search->dim > M2SE_VECTOR_DIM_MAX))
    search->dim = 0;
}

static int read_user(struct search *search) {
  struct m2se_key key, model;
  const char *user = search->ctl->arguments[0];
  m2se_key_build(&key, search->ctl->config.redis_prefix, M2SE_KEY_USER, user, strlen(user));
  const struct m2se_redis_argument get[] = {
      m2sed_ask_word("HMGET"), m2sed_ask_key(&key), m2sed_ask_word("v"),       m2sed_ask_word("epoch"),
      m2sed_ask_word("step"),  m2sed_ask_word("n"), m2sed_ask_word("event_ms")};
  m2se_key_build(&model, search->ctl->config.redis_prefix, M2SE_KEY_MODEL, NULL, 0);
  const struct m2se_redis_argument width[] = {m2sed_ask_word("HMGET"), m2sed_ask_key(&model),
                                              m2sed_ask_word("dim")};
  if (m2sed_ask_send(search->ask, width, 3, on_model, search, &search->error) ||
      m2sed_ask_send(search->ask, get, 7, on_user, search, &search->error) ||
      m2sed_ask_wait(search->ask, &search->error))
    return search->error.code;
  return search->error.code;
}

/* ---- items ---- */

static bool is_seen(const struct search *search, const char *id, uint32_t id_size) {
  const struct m2se_sequence *sequence = &search->seen.sequence;
  struct m2se_sequence_span span =
      m2se_sequence_latest(sequence, (uint32_t)search->ctl->config.sequence_keep);
  for (uint32_t i = span.first; i < span.first + span.count; i++)
    if (sequence->entries[i].item_id_size == id_size && !memcmp(sequence->entries[i].item_id, id, id_size))
      return true;
  return false;
}

static bool is_listed(const struct search *search, const char *id, uint32_t id_size) {
  for (uint32_t i = 0; i < search->count; i++)
    if (search->best[i].id_size == id_size && !memcmp(search->best[i].id, id, id_size))
      return true;
  return false;
}

/* Equal scores: by id, so that the answer does not depend on the order of SCAN. */
static bool is_better(const struct candidate *a, const struct candidate *b) {
  return a->score > b->score || (a->score == b->score && strcmp(a->id, b->id) < 0);
}

static void consider(struct search *search, const struct candidate *candidate) {
  bool full = search->count == search->wanted;
  if ((full && !is_better(candidate, &search->best[search->count - 1])) ||
      (search->exclude && is_seen(search, candidate->id, candidate->id_size)) ||
      is_listed(search, candidate->id, candidate->id_size)) /* SCAN may name a key twice */
    return;
  uint32_t at = full ? search->count - 1 : search->count++;
  for (; at > 0 && is_better(candidate, &search->best[at - 1]); at--)
    search->best[at] = search->best[at - 1];
  search->best[at] = *candidate;
}

static double inner_product(const struct search *search, uint64_t first, uint64_t end) {
  double sum = 0;
  for (uint64_t i = first; i < end; i++)
    sum += (double)search->item[i] * search->vector[i];
  return sum;
}

/* A vector is the half of the texts, the half of the images, and, if its width is odd, the bias. */
static void rate(const struct search *search, struct candidate *candidate) {
  uint64_t half = search->dim / 2;
  candidate->text = inner_product(search, 0, half);
  candidate->image = inner_product(search, half, 2 * half);
  candidate->bias = inner_product(search, 2 * half, search->dim);
  candidate->score = candidate->text + candidate->image + candidate->bias;
}

static void on_item(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  const struct search_key *key = context;
  struct search *search = key->search;
  struct candidate candidate = {.id_size = 0};
  uint64_t epoch = 0, epoch_before = 0;
  size_t size = 0;
  if (failed(search, status, error))
    return;
  search->items++;
  bool now = read_number(reply, 1, &epoch), before = read_number(reply, 3, &epoch_before);
  size_t field = now && epoch == search->epoch ? 0 : before && epoch_before == search->epoch ? 2 : 4;
  if (field == 4) {
    search->newer += now && epoch > search->epoch;
    return;
  }
  const char *bytes = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, field), &size);
  bool good = m2se_vector_decode(bytes, size, (uint32_t)search->dim, search->item) &&
              m2se_key_parse(search->ctl->config.redis_prefix, M2SE_KEY_ITEM, key->key.bytes, key->key.size,
                             candidate.id, &candidate.id_size);
  candidate.score = NAN;
  if (good)
    rate(search, &candidate);
  if (isfinite(candidate.score))
    consider(search, &candidate);
  else
    search->unreadable++;
}

static void on_page(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct search *search = context;
  size_t size;
  search->page_count = 0;
  if (failed(search, status, error))
    return;
  const char *cursor = m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 0), &size);
  const struct m2se_redis_reply *keys = m2se_redis_reply_element(reply, 1);
  if (!size || size >= sizeof search->cursor || m2se_redis_reply_count(keys) > PAGE_MAX) {
    m2se_error_set(&search->error, M2SE_EFORMAT, "not what SCAN answers");
    return;
  }
  memcpy(search->cursor, cursor, size + 1);
  for (size_t i = 0; i < m2se_redis_reply_count(keys); i++) {
    const char *key = m2se_redis_reply_bytes(m2se_redis_reply_element(keys, i), &size);
    struct search_key *slot = &search->page[search->page_count];
    if (size > M2SE_KEY_BYTES_MAX)
      continue; /* none of ours */
    slot->search = search;
    slot->key.size = (uint32_t)size;
    memcpy(slot->key.bytes, key, size + 1);
    search->page_count++;
  }
}

static int read_page(struct search *search) {
  struct m2se_key pattern;
  m2se_key_pattern(&pattern, search->ctl->config.redis_prefix, M2SE_KEY_ITEM);
  const struct m2se_redis_argument scan[] = {m2sed_ask_word("SCAN"),  m2sed_ask_word(search->cursor),
                                             m2sed_ask_word("MATCH"), m2sed_ask_key(&pattern),
                                             m2sed_ask_word("COUNT"), m2sed_ask_word("1000")};
  if (m2sed_ask_send(search->ask, scan, 6, on_page, search, &search->error) ||
      m2sed_ask_wait(search->ask, &search->error))
    return search->error.code;
  for (uint32_t i = 0; i < search->page_count && !search->error.code; i++) {
    struct search_key *key = &search->page[i];
    const struct m2se_redis_argument get[] = {m2sed_ask_word("HMGET"),  m2sed_ask_key(&key->key),
                                              m2sed_ask_word("v"),      m2sed_ask_word("epoch"),
                                              m2sed_ask_word("v_prev"), m2sed_ask_word("epoch_prev")};
    if (m2sed_ask_send(search->ask, get, 6, on_item, key, &search->error))
      return search->error.code;
  }
  m2sed_ask_wait(search->ask, &search->error);
  return search->error.code;
}

static int read_items(struct search *search) {
  search->items = search->newer = search->unreadable = 0;
  search->count = 0;
  memcpy(search->cursor, "0", 2);
  do {
    if (read_page(search))
      return search->error.code;
  } while (strcmp(search->cursor, "0") != 0);
  return 0;
}

/* ---- the answer ---- */

static int show_json(const struct search *search, const struct m2sed_title *titles) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_text(writer, "user", search->ctl->arguments[0]);
  m2se_json_put_decimal(writer, "epoch", search->epoch);
  m2se_json_put_decimal(writer, "step", search->step);
  m2se_json_put_array(writer, "items");
  for (uint32_t i = 0; i < search->count; i++) {
    m2se_json_put_object(writer, NULL);
    m2se_json_put_text(writer, "item_id", search->best[i].id);
    m2se_json_put_double(writer, "score", search->best[i].score);
    if (titles[i].title)
      m2se_json_put_text(writer, "title", titles[i].title);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

static int show_table(const struct search *search, const struct m2sed_title *titles) {
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "the best of ");
  m2sed_text_add_count(&text, search->items);
  m2sed_text_add(&text, " items for user ");
  m2sed_text_add_foreign(&text, search->ctl->arguments[0], strlen(search->ctl->arguments[0]));
  m2sed_text_add(&text, "   (epoch %llu, step %llu%s)\n", (unsigned long long)search->epoch,
                 (unsigned long long)search->step, search->exclude ? "; those of the sequence left out" : "");
  m2sed_text_add(&text, "rank      score  item\n");
  for (uint32_t i = 0; i < search->count; i++) {
    m2sed_text_add(&text, "%4u %10.4f  ", i + 1, search->best[i].score);
    m2sed_text_add_foreign(&text, search->best[i].id, search->best[i].id_size);
    if (titles[i].title) {
      m2sed_text_add(&text, "  ");
      m2sed_text_add_foreign(&text, titles[i].title, strlen(titles[i].title));
    }
    m2sed_text_add(&text, "\n");
  }
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

/* ---- explain ---- */

/* Which part of the sequence the model looks at. */
static struct m2se_sequence_span context_of(const struct search *search) {
  return m2se_sequence_latest(&search->seen.sequence, (uint32_t)search->ctl->config.sequence_length);
}

static int explain_json(const struct search *search, const struct m2sed_title *titles) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  struct m2se_sequence_span span = context_of(search);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_text(writer, "user", search->ctl->arguments[0]);
  m2se_json_put_decimal(writer, "epoch", search->epoch);
  m2se_json_put_decimal(writer, "step", search->step);
  m2se_json_put_int64(writer, "sequence_count", (int64_t)search->sequence_count);
  m2se_json_put_int64(writer, "event_time_ms", (int64_t)search->event_time_ms);
  m2se_json_put_array(writer, "sequence");
  for (uint32_t i = span.first; i < span.first + span.count; i++) {
    const struct m2se_sequence_entry *entry = &search->seen.sequence.entries[i];
    m2se_json_put_object(writer, NULL);
    m2se_json_put_string(writer, "item_id", entry->item_id, entry->item_id_size);
    m2se_json_put_int64(writer, "event_time_ms", entry->event_time_ms);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_array(writer, "items");
  for (uint32_t i = 0; i < search->count; i++) {
    const struct candidate *item = &search->best[i];
    m2se_json_put_object(writer, NULL);
    m2se_json_put_text(writer, "item_id", item->id);
    m2se_json_put_double(writer, "score", item->score);
    m2se_json_put_double(writer, "text", item->text);
    m2se_json_put_double(writer, "image", item->image);
    m2se_json_put_double(writer, "bias", item->bias);
    m2se_json_put_bool(writer, "seen", is_seen(search, item->id, item->id_size));
    if (titles[i].title)
      m2se_json_put_text(writer, "title", titles[i].title);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

static void add_sequence(struct m2sed_text *text, const struct search *search) {
  struct m2se_sequence_span span = context_of(search);
  m2sed_text_add(text, "what the model looks at: the newest %u items, oldest first\n", span.count);
  for (uint32_t i = span.first; i < span.first + span.count; i++) {
    const struct m2se_sequence_entry *entry = &search->seen.sequence.entries[i];
    m2sed_text_add(text, "  ");
    m2sed_text_add_time(text, entry->event_time_ms);
    m2sed_text_add(text, "  ");
    m2sed_text_add_foreign(text, entry->item_id, entry->item_id_size);
    m2sed_text_add(text, "\n");
  }
}

static int explain_table(const struct search *search, const struct m2sed_title *titles) {
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "user ");
  m2sed_text_add_foreign(&text, search->ctl->arguments[0], strlen(search->ctl->arguments[0]));
  m2sed_text_add(&text,
                 ": vector of epoch %" PRIu64 " (step %" PRIu64 "), from %" PRIu64 " items, newest of ",
                 search->epoch, search->step, search->sequence_count);
  m2sed_text_add_time(&text, (int64_t)search->event_time_ms);
  m2sed_text_add(&text, "\n");
  add_sequence(&text, search);
  m2sed_text_add(&text, "what it makes of that: score = text + image + bias\n");
  m2sed_text_add(&text, "rank      score       text      image       bias        item\n");
  for (uint32_t i = 0; i < search->count; i++) {
    const struct candidate *item = &search->best[i];
    m2sed_text_add(&text, "%4u %10.4f %10.4f %10.4f %10.4f  %-4s  ", i + 1, item->score, item->text,
                   item->image, item->bias, is_seen(search, item->id, item->id_size) ? "seen" : "");
    m2sed_text_add_foreign(&text, item->id, item->id_size);
    if (titles[i].title) {
      m2sed_text_add(&text, "  ");
      m2sed_text_add_foreign(&text, titles[i].title, strlen(titles[i].title));
    }
    m2sed_text_add(&text, "\n");
  }
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

static int show(const struct search *search) {
  struct m2sed_title titles[BEST_MAX] = {0};
  struct m2se_error error = {0};
  for (uint32_t i = 0; i < search->count; i++)
    titles[i] = (struct m2sed_title){.id = search->best[i].id, .id_size = search->best[i].id_size};
  const char *file = search->ctl->values[M2SED_CTL_TITLES];
  int code = file ? m2sed_titles_read(file, titles, search->count, &error) : 0;
  bool json = m2sed_ctl_has(search->ctl, M2SED_CTL_JSON);
  int status = code              ? m2sed_ctl_fail_error(&error)
               : search->explain ? (json ? explain_json(search, titles) : explain_table(search, titles))
                                 : (json ? show_json(search, titles) : show_table(search, titles));
  m2sed_titles_free(titles, search->count);
  return status;
}

static const char *why_no_vector(const struct search *search) {
  if (!search->seen.sequence.entry_count)
    return ": nothing is known of them";
  return search->explain ? " yet: there is a sequence, but none of its items has features, or the daemon has "
                           "not come so far (m2sectl status)"
                         : " yet";
}

static int run(struct search *search) {
  const char *user = search->ctl->arguments[0];
  int code = m2sed_user_sequence_read(&search->seen, search->ask, &search->ctl->config, user);
  if (code)
    return m2sed_ctl_fail(code == M2SE_EIO ? EX_UNAVAILABLE : EX_DATAERR, "%s", search->seen.error.text);
  for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
    code = read_user(search);
    if (!code && !search->found)
      return m2sed_ctl_fail(EX_NOINPUT, "user '%s' has no vector%s", user, why_no_vector(search));
    if (!code)
      code = read_items(search);
    if (code)
      return m2sed_ctl_fail(code == M2SE_EIO ? EX_UNAVAILABLE : EX_DATAERR, "%s", search->error.text);
    if (!search->newer)
      break;
  }
  if (!search->count && search->newer)
    return m2sed_ctl_fail(
        EX_TEMPFAIL,
        "the vector of user '%s' is of epoch %llu, all items are ahead of it: it will be made "
        "again (serve.refresh_per_second)",
        user, (unsigned long long)search->epoch);
  uint64_t left_out = search->newer + search->unreadable;
  if (left_out)
    m2sed_ctl_fail(0, "%" PRIu64 " of %" PRIu64 " items were left out: no good vector of epoch %" PRIu64,
                   left_out, search->items, search->epoch);
  return show(search);
}

static int start(struct m2sed_ctl *ctl, bool explain) {
  static struct search search;
  struct m2se_error error = {0};
  uint64_t wanted = 10;
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_COUNT, BEST_MAX, &wanted);
  if (!status)
    status = m2sed_user_check(ctl->arguments[0]);
  if (status)
    return status;
  if (!wanted)
    return m2sed_ctl_fail(EX_USAGE, "k: must be at least 1");
  search.ctl = ctl;
  search.wanted = (uint32_t)wanted;
  search.explain = explain;
  search.exclude = !explain && ctl->config.serve_exclude_seen && !m2sed_ctl_has(ctl, M2SED_CTL_INCLUDE_SEEN);
  search.page = calloc(PAGE_MAX, sizeof *search.page);
  if (!search.page)
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  int code = m2sed_ask_open(&search.ask, &ctl->config, &error);
  status = code ? m2sed_ctl_fail_error(&error) : run(&search);
  if (!code)
    m2sed_ask_close(search.ask);
  m2sed_user_sequence_free(&search.seen);
  free(search.page);
  return status;
}

int m2sed_ctl_recommend(struct m2sed_ctl *ctl) {
  return start(ctl, false);
}

int m2sed_ctl_explain(struct m2sed_ctl *ctl) {
  return start(ctl, true);
}
