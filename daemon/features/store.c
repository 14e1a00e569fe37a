#include "daemon/features/store.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/features/kv.h"

/* META: "format" -> struct format. ITEMS: id -> struct item_head and references. CONTENTS: digest -> struct
 * content_head, then the row or the reason. SOURCES: digest -> bytes, of what has to be computed. REFUSED:
 * digest -> nothing. PENDING: the sequence, newest first -> id. */
enum table { META, ITEMS, CONTENTS, SOURCES, REFUSED, PENDING, TABLES };
static const char *const table_names[] = {"meta", "items", "contents", "sources", "refused", "pending"};

struct format {
  uint32_t version, byte_order;
};
static const struct format present_format = {1, 0x01020304};

struct reference {
  uint8_t kind, digest[M2SED_DIGEST_BYTES];
};

struct item_head { /* references follow */
  uint64_t sequence, version;
};

struct content_head { /* state HAS_ROW: float [dim] follows; REFUSED: the reason */
  uint32_t references, dim, attempts;
  uint8_t kind, state, unused[2];
  uint8_t model[M2SED_MODEL_BYTES];
  int64_t not_before_ms;
};

/* What is largest in a value: an item of most contents, or a content's row. */
enum {
  ITEM_BYTES_MAX = sizeof(struct item_head) + M2SED_STORE_CONTENTS_MAX * sizeof(struct reference),
  CONTENT_BYTES_MAX = sizeof(struct content_head) + M2SED_STORE_DIM_MAX * sizeof(float),
};

struct m2sed_store {
  struct m2sed_kv *kv;
  struct m2sed_store_options options;
  struct reference references[M2SED_STORE_CONTENTS_MAX]; /* of the item in work */
  uint8_t item[ITEM_BYTES_MAX], content[CONTENT_BYTES_MAX];
};

static struct m2sed_span span(const void *data, size_t size) {
  return (struct m2sed_span){data, size};
}

static struct m2sed_span digest_span(const uint8_t *digest) {
  return span(digest, M2SED_DIGEST_BYTES);
}

static struct m2sed_span id_span(const char *id) {
  size_t size = strlen(id);
  assert(size >= 1 && size <= M2SED_STORE_ID_MAX);
  return span(id, size);
}

static void pending_key(uint64_t sequence, uint8_t key[8]) {
  for (int i = 0; i < 8; i++) {
    key[i] = (uint8_t)(~sequence >> (56 - 8 * i));
  }
}

static int wrong(struct m2sed_store *store, struct m2se_error *error, const char *what) {
  m2sed_kv_rollback(store->kv);
  return m2se_error_set(error, M2SE_EFORMAT, "store: %s: %s", store->options.folder, what);
}

static int check_format(struct m2sed_store *store, struct m2se_error *error) {
  static const char name[] = "format";
  struct m2sed_span key = span(name, sizeof name - 1), value;
  int found = m2sed_kv_get(store->kv, META, key, &value, error);
  if (found == 0 && !store->options.read_only) {
    found = m2sed_kv_put(store->kv, META, key, span(&present_format, sizeof present_format), error);
    return found ? found : m2sed_store_commit(store, error);
  }
  if (found < 0) {
    return found;
  }
  if (found == 0 || value.size != sizeof present_format ||
      memcmp(value.data, &present_format, sizeof present_format) != 0) {
    return wrong(store, error, "made by another version or on another kind of machine");
  }
  m2sed_store_rollback(store);
  return 0;
}

int m2sed_store_open(struct m2sed_store **out, const struct m2sed_store_options *options,
                     struct m2se_error *error) {
  *out = NULL;
  struct m2sed_store *store = calloc(1, sizeof *store);
  if (!store) {
    return m2se_error_set(error, M2SE_ENOMEM, "store: out of memory");
  }
  store->options = *options;
  store->options.folder = strdup(options->folder);
  int code = store->options.folder ? 0 : m2se_error_set(error, M2SE_ENOMEM, "store: out of memory");
  code = code ? code
              : m2sed_kv_open(&store->kv, options->folder, options->bytes_max, options->read_only,
                              table_names, TABLES, error);
  code = code ? code : check_format(store, error);
  if (code != 0) {
    m2sed_store_close(store);
    return code;
  }
  *out = store;
  return 0;
}

void m2sed_store_close(struct m2sed_store *store) {
  if (store) {
    m2sed_kv_close(store->kv);
    free((void *)store->options.folder);
    free(store);
  }
}

int m2sed_store_commit(struct m2sed_store *store, struct m2se_error *error) {
  return m2sed_kv_commit(store->kv, error);
}

void m2sed_store_rollback(struct m2sed_store *store) {
  m2sed_kv_rollback(store->kv);
}

/* Contents. */

/* 1: *head is filled in and *rest is what follows it; 0: no such content. */
static int get_content(struct m2sed_store *store, const uint8_t *digest, struct content_head *head,
                       struct m2sed_span *rest, struct m2se_error *error) {
  struct m2sed_span value;
  int found = m2sed_kv_get(store->kv, CONTENTS, digest_span(digest), &value, error);
  if (found <= 0) {
    return found;
  }
  if (value.size < sizeof *head) {
    return wrong(store, error, "a content is too short");
  }
  memcpy(head, value.data, sizeof *head);
  *rest = span((const char *)value.data + sizeof *head, value.size - sizeof *head);
  bool sized =
      head->state == M2SED_CONTENT_HAS_ROW ? rest->size == head->dim * sizeof(float) : head->dim == 0;
  if (head->kind >= M2SED_CONTENT_KINDS || head->state > M2SED_CONTENT_REFUSED || !sized) {
    return wrong(store, error, "a content makes no sense");
  }
  return 1;
}

/* rest: may be a view of the content that is replaced. */
static int put_content(struct m2sed_store *store, const uint8_t *digest, const struct content_head *head,
                       struct m2sed_span rest, struct m2se_error *error) {
  assert(sizeof *head + rest.size <= sizeof store->content);
  memcpy(store->content, head, sizeof *head);
  memcpy(store->content + sizeof *head, rest.data, rest.size);
  return m2sed_kv_put(store->kv, CONTENTS, digest_span(digest),
                      span(store->content, sizeof *head + rest.size), error);
}

static bool is_current(const struct m2sed_store *store, const struct content_head *head) {
  return head->state != M2SED_CONTENT_WAITS &&
         memcmp(head->model, store->options.models[head->kind], M2SED_MODEL_BYTES) == 0;
}

/* One reference more (or none, if the item has it already), and bytes if they are needed. Returns whether it
 * has to be computed. */
static int take_content(struct m2sed_store *store, const struct m2sed_content *content, const uint8_t *digest,
                        bool is_new, struct m2se_error *error) {
  struct content_head head = {.kind = (uint8_t)content->kind, .state = M2SED_CONTENT_WAITS};
  struct m2sed_span rest = span("", 0), source;
  int found = get_content(store, digest, &head, &rest, error);
  if (found >= 0 && (is_new || found == 0)) {
    head.references++;
    int code = put_content(store, digest, &head, rest, error);
    found = code ? code : found;
  }
  if (found < 0) {
    return found;
  }
  if (is_current(store, &head)) { /* with bytes only if a change of models was taken back */
    return m2sed_kv_delete(store->kv, SOURCES, digest_span(digest), error);
  }
  int has_source = m2sed_kv_get(store->kv, SOURCES, digest_span(digest), &source, error);
  if (has_source == 0) {
    has_source =
        m2sed_kv_put(store->kv, SOURCES, digest_span(digest), span(content->bytes, content->size), error);
  }
  return has_source < 0 ? has_source : 1;
}

static int drop_content(struct m2sed_store *store, const uint8_t *digest, struct m2se_error *error) {
  struct content_head head;
  struct m2sed_span rest;
  int found = get_content(store, digest, &head, &rest, error);
  if (found <= 0 || head.references == 0) {
    return found < 0 ? found : wrong(store, error, "an item's content is missing");
  }
  if (--head.references > 0) {
    return put_content(store, digest, &head, rest, error);
  }
  static const enum table tables[] = {CONTENTS, SOURCES, REFUSED};
  int code = 0;
  for (size_t i = 0; i < sizeof tables / sizeof *tables && code == 0; i++) {
    code = m2sed_kv_delete(store->kv, tables[i], digest_span(digest), error);
  }
  return code;
}

/* What came of it, by the present model. */
static int settle(struct m2sed_store *store, const uint8_t *digest, enum m2sed_content_state state,
                  uint32_t dim, struct m2sed_span rest, struct m2se_error *error) {
  struct content_head head;
  struct m2sed_span before;
  int found = get_content(store, digest, &head, &before, error);
  if (found <= 0) {
    return found;
  }
  head.state = (uint8_t)state;
  head.dim = dim;
  head.attempts++;
  head.not_before_ms = 0;
  memcpy(head.model, store->options.models[head.kind], M2SED_MODEL_BYTES);
  int code = put_content(store, digest, &head, rest, error);
  code = code ? code : m2sed_kv_delete(store->kv, SOURCES, digest_span(digest), error);
  if (code != 0) {
    return code;
  }
  return state == M2SED_CONTENT_REFUSED
             ? m2sed_kv_put(store->kv, REFUSED, digest_span(digest), span("", 0), error)
             : m2sed_kv_delete(store->kv, REFUSED, digest_span(digest), error);
}

int m2sed_store_put_row(struct m2sed_store *store, const uint8_t digest[M2SED_DIGEST_BYTES], const float *row,
                        uint32_t dim, struct m2se_error *error) {
  assert(dim >= 1 && dim <= M2SED_STORE_DIM_MAX);
  return settle(store, digest, M2SED_CONTENT_HAS_ROW, dim, span(row, dim * sizeof *row), error);
}

int m2sed_store_refuse(struct m2sed_store *store, const uint8_t digest[M2SED_DIGEST_BYTES],
                       const char *reason, struct m2se_error *error) {
  size_t size = strnlen(reason, M2SED_STORE_REASON_MAX);
  return settle(store, digest, M2SED_CONTENT_REFUSED, 0, span(reason, size), error);
}

int m2sed_store_retry(struct m2sed_store *store, const uint8_t digest[M2SED_DIGEST_BYTES],
                      int64_t not_before_ms, struct m2se_error *error) {
  struct content_head head;
  struct m2sed_span rest;
  int found = get_content(store, digest, &head, &rest, error);
  if (found <= 0) {
    return found;
  }
  head.attempts++;
  head.not_before_ms = not_before_ms;
  return put_content(store, digest, &head, rest, error);
}

/* Items. */

/* Copies it to store->item. Its count of references, or -1 with *code 0 (there is none) or an error. */
static int32_t get_item(struct m2sed_store *store, const char *id, struct item_head *head, int *code,
                        struct m2se_error *error) {
  struct m2sed_span value;
  *code = m2sed_kv_get(store->kv, ITEMS, id_span(id), &value, error);
  if (*code <= 0) {
    return -1;
  }
  if (value.size < sizeof *head || value.size > ITEM_BYTES_MAX ||
      (value.size - sizeof *head) % sizeof(struct reference) != 0) {
    *code = wrong(store, error, "an item makes no sense");
    return -1;
  }
  *code = 0;
  memcpy(head, value.data, sizeof *head);
  memcpy(store->item, value.data, value.size);
  return (int32_t)((value.size - sizeof *head) / sizeof(struct reference));
}

static const struct reference *item_references(const struct m2sed_store *store) {
  return (const struct reference *)(store->item + sizeof(struct item_head)); /* bytes only: no alignment */
}

static int put_item(struct m2sed_store *store, const char *id, const struct item_head *head,
                    const struct reference *references, uint32_t count, struct m2se_error *error) {
  memcpy(store->item, head, sizeof *head);
  memmove(store->item + sizeof *head, references, count * sizeof *references);
  return m2sed_kv_put(store->kv, ITEMS, id_span(id),
                      span(store->item, sizeof *head + count * sizeof *references), error);
}

static int drop_pending(struct m2sed_store *store, uint64_t sequence, struct m2se_error *error) {
  uint8_t key[8];
  pending_key(sequence, key);
  return sequence ? m2sed_kv_delete(store->kv, PENDING, span(key, sizeof key), error) : 0;
}

/* Puts the item before all others. */
static int add_pending(struct m2sed_store *store, const char *id, uint64_t *sequence,
                       struct m2se_error *error) {
  static const uint8_t first[8] = {0};
  struct m2sed_span key = span(first, sizeof first), value;
  int found = m2sed_kv_from(store->kv, PENDING, &key, &value, error);
  if (found < 0) {
    return found;
  }
  uint64_t newest = 0;
  for (size_t i = 0; found && i < sizeof first && i < key.size; i++) {
    newest = newest << 8 | (uint8_t) ~((const uint8_t *)key.data)[i];
  }
  *sequence = newest + 1;
  uint8_t own[8];
  pending_key(*sequence, own);
  return m2sed_kv_put(store->kv, PENDING, span(own, sizeof own), id_span(id), error);
}

int m2sed_store_put_item(struct m2sed_store *store, const char *id, uint64_t version,
                         const struct m2sed_content *contents, uint32_t count, struct m2se_error *error) {
  assert(count <= M2SED_STORE_CONTENTS_MAX);
  for (uint32_t i = 0; i < count; i++) {
    store->references[i].kind = (uint8_t)contents[i].kind;
    m2sed_store_digest(&contents[i], store->references[i].digest);
  }
  struct item_head before = {0};
  int code;
  int32_t count_before = get_item(store, id, &before, &code, error);
  bool same = count_before == (int32_t)count &&
              memcmp(item_references(store), store->references, count * sizeof *store->references) == 0;
  int waiting = 0;
  for (uint32_t i = 0; i < count && code == 0; i++) {
    int waits = take_content(store, &contents[i], store->references[i].digest, !same, error);
    code = waits < 0 ? waits : 0;
    waiting += waits > 0;
  }
  /* Taken before dropped: what both have stays. */
  for (int32_t i = 0; i < count_before && code == 0 && !same; i++) {
    code = drop_content(store, item_references(store)[i].digest, error);
  }
  struct item_head head = {.version = version};
  if (code == 0 && same && (before.sequence != 0) == (waiting > 0)) { /* it keeps its place */
    if (before.version == version) {
      return waiting;
    }
    head.sequence = before.sequence;
  } else {
    code = code ? code : drop_pending(store, before.sequence, error);
    code = code || waiting == 0 ? code : add_pending(store, id, &head.sequence, error);
  }
  code = code ? code : put_item(store, id, &head, store->references, count, error);
  return code ? code : waiting;
}

int m2sed_store_delete_item(struct m2sed_store *store, const char *id, struct m2se_error *error) {
  struct item_head head;
  int code;
  int32_t count = get_item(store, id, &head, &code, error);
  if (count < 0) {
    return code;
  }
  for (int32_t i = 0; i < count && code == 0; i++) {
    code = drop_content(store, item_references(store)[i].digest, error);
  }
  code = code ? code : drop_pending(store, head.sequence, error);
  return code ? code : m2sed_kv_delete(store->kv, ITEMS, id_span(id), error);
}

static int show_content(struct m2sed_store *store, const struct reference *reference,
                        struct m2sed_store_content *content, struct m2se_error *error) {
  struct content_head head;
  struct m2sed_span rest, source;
  int found = get_content(store, reference->digest, &head, &rest, error);
  if (found <= 0) {
    return found < 0 ? found : wrong(store, error, "an item's content is missing");
  }
  *content = (struct m2sed_store_content){.kind = head.kind,
                                          .state = head.state,
                                          .is_current = is_current(store, &head),
                                          .attempts = head.attempts,
                                          .not_before_ms = head.not_before_ms,
                                          .dim = head.dim};
  memcpy(content->digest, reference->digest, sizeof content->digest);
  if (head.state == M2SED_CONTENT_HAS_ROW) {
    content->row = rest.data;
  } else if (head.state == M2SED_CONTENT_REFUSED) {
    content->reason = rest.data;
    content->reason_size = rest.size;
  }
  if (content->is_current) {
    return 0;
  }
  found = m2sed_kv_get(store->kv, SOURCES, digest_span(reference->digest), &source, error);
  if (found > 0) {
    content->bytes = source.data;
    content->size = source.size;
  }
  return found < 0 ? found : 0;
}

int m2sed_store_get_item(struct m2sed_store *store, const char *id, struct m2sed_store_item *item,
                         struct m2se_error *error) {
  struct item_head head;
  int code;
  int32_t count = get_item(store, id, &head, &code, error);
  if (count < 0) {
    return code;
  }
  memmove(item->id, id, strlen(id) + 1); /* it may be that of the item itself */
  item->version = head.version;
  item->sequence = head.sequence;
  item->content_count = (uint32_t)count;
  item->waiting = 0;
  for (int32_t i = 0; i < count; i++) {
    code = show_content(store, &item_references(store)[i], &item->contents[i], error);
    if (code != 0) {
      return code;
    }
    item->waiting += !item->contents[i].is_current;
  }
  return 1;
}

int m2sed_store_next_item(struct m2sed_store *store, uint64_t *before, struct m2sed_store_item *item,
                          struct m2se_error *error) {
  if (*before == 1) {
    return 0; /* nothing is older */
  }
  uint8_t from[8] = {0};
  if (*before != 0) {
    pending_key(*before - 1, from);
  }
  struct m2sed_span key = span(from, sizeof from), value;
  int found = m2sed_kv_from(store->kv, PENDING, &key, &value, error);
  if (found <= 0) {
    return found;
  }
  char id[M2SED_STORE_ID_MAX + 1];
  if (value.size < 1 || value.size > M2SED_STORE_ID_MAX) {
    return wrong(store, error, "a pending item makes no sense");
  }
  memcpy(id, value.data, value.size);
  id[value.size] = '\0';
  found = m2sed_store_get_item(store, id, item, error);
  if (found == 0) {
    return wrong(store, error, "a pending item is missing");
  }
  *before = found > 0 ? item->sequence : *before;
  return found;
}

int m2sed_store_finish_item(struct m2sed_store *store, const char *id, struct m2se_error *error) {
  struct item_head head;
  int code;
  int32_t count = get_item(store, id, &head, &code, error);
  if (count < 0 || head.sequence == 0) {
    return code;
  }
  code = drop_pending(store, head.sequence, error);
  head.sequence = 0;
  return code ? code : put_item(store, id, &head, item_references(store), (uint32_t)count, error);
}

int m2sed_store_count(struct m2sed_store *store, struct m2sed_store_counts *counts,
                      struct m2se_error *error) {
  int code = m2sed_kv_entries(store->kv, ITEMS, &counts->items, error);
  code = code ? code : m2sed_kv_entries(store->kv, PENDING, &counts->pending, error);
  code = code ? code : m2sed_kv_entries(store->kv, CONTENTS, &counts->contents, error);
  code = code ? code : m2sed_kv_entries(store->kv, SOURCES, &counts->waiting, error);
  code = code ? code : m2sed_kv_entries(store->kv, REFUSED, &counts->refused, error);
  counts->bytes = m2sed_kv_bytes(store->kv);
  return code;
}

/* All of a table. */

/* Calls `visit` for every entry of a table. */
static int each(struct m2sed_store *store, enum table table,
                int (*visit)(struct m2sed_store *, struct m2sed_span key, struct m2sed_span value,
                             void *context, struct m2se_error *),
                void *context, struct m2se_error *error) {
  uint8_t at[M2SED_KV_KEY_MAX + 1] = {0};
  struct m2sed_span key = span(at, 1), value;
  for (;;) {
    int code = m2sed_kv_from(store->kv, table, &key, &value, error);
    if (code <= 0) {
      return code;
    }
    memcpy(at, key.data, key.size);
    code = visit(store, key, value, context, error);
    if (code != 0) {
      return code;
    }
    key = span(at, key.size + 1); /* the smallest key behind it */
    at[key.size - 1] = 0;
  }
}

struct refusals {
  void (*visit)(void *context, const char *reason, size_t size);
  void *context;
};

static int show_refusal(struct m2sed_store *store, struct m2sed_span key, struct m2sed_span value,
                        void *context, struct m2se_error *error) {
  (void)value;
  const struct refusals *refusals = context;
  struct content_head head;
  struct m2sed_span rest;
  int found = get_content(store, key.data, &head, &rest, error);
  if (found > 0 && head.state == M2SED_CONTENT_REFUSED) {
    refusals->visit(refusals->context, rest.data, rest.size);
  }
  return found < 0 ? found : 0;
}

int m2sed_store_each_refusal(struct m2sed_store *store,
                             void (*visit)(void *context, const char *reason, size_t size), void *context,
                             struct m2se_error *error) {
  struct refusals refusals = {visit, context};
  return each(store, REFUSED, show_refusal, &refusals, error);
}

static int check_item(struct m2sed_store *store, struct m2sed_span key, struct m2sed_span value,
                      void *references, struct m2se_error *error) {
  (void)value;
  char id[M2SED_STORE_ID_MAX + 1] = "";
  if (key.size > M2SED_STORE_ID_MAX) {
    return wrong(store, error, "an id is too long");
  }
  memcpy(id, key.data, key.size);
  struct item_head head;
  int code;
  int32_t count = get_item(store, id, &head, &code, error);
  if (count < 0) {
    return code ? code : wrong(store, error, "an item is missing");
  }
  bool waits = false;
  for (int32_t i = 0; i < count; i++) {
    struct m2sed_store_content content;
    code = show_content(store, &item_references(store)[i], &content, error);
    if (code != 0) {
      return code;
    }
    waits |= content.state == M2SED_CONTENT_WAITS;
    ++*(uint64_t *)references;
  }
  uint8_t own[8];
  pending_key(head.sequence, own);
  struct m2sed_span found;
  int is_pending = m2sed_kv_get(store->kv, PENDING, span(own, sizeof own), &found, error);
  if (is_pending < 0) {
    return is_pending;
  }
  if (head.sequence != 0 &&
      (!is_pending || found.size != key.size || memcmp(found.data, id, key.size) != 0)) {
    return wrong(store, error, "a pending item has lost its place");
  }
  return waits && head.sequence == 0 ? wrong(store, error, "an item waits and is not pending") : 0;
}

static int check_content(struct m2sed_store *store, struct m2sed_span key, struct m2sed_span value,
                         void *references, struct m2se_error *error) {
  (void)value;
  struct content_head head;
  struct m2sed_span rest, other;
  int found = get_content(store, key.data, &head, &rest, error);
  if (found <= 0) {
    return found < 0 ? found : wrong(store, error, "a content is missing");
  }
  int has_source = m2sed_kv_get(store->kv, SOURCES, key, &other, error);
  int is_refused = has_source < 0 ? has_source : m2sed_kv_get(store->kv, REFUSED, key, &other, error);
  if (is_refused < 0) {
    return is_refused;
  }
  if ((head.state == M2SED_CONTENT_WAITS && !has_source) ||
      is_refused != (head.state == M2SED_CONTENT_REFUSED) || head.references == 0) {
    return wrong(store, error, "a content and what belongs to it do not agree");
  }
  *(uint64_t *)references += head.references;
  return 0;
}

int m2sed_store_check(struct m2sed_store *store, struct m2se_error *error) {
  uint64_t named = 0, counted = 0;
  int code = each(store, ITEMS, check_item, &named, error);
  code = code ? code : each(store, CONTENTS, check_content, &counted, error);
  if (code == 0 && named != counted) {
    return wrong(store, error, "references are not what is counted");
  }
  return code;
}
